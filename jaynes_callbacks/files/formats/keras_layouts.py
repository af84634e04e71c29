"""Names and orders of the variables of Keras' layers.

Files of Keras 3 number the variables of a layer; older ones name them.  Kernels are stored as
``[…, in, out]``, those of transposed convolutions as ``[…, out, in]``, depthwise ones as
``[…, in, multiplier]``.  Source: ``build`` of each class in ``keras.layers``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaynes_callbacks.files.formats.layouts import Layout

__all__ = ["Layer", "layer_of", "layers_of", "layout_of", "variables_of"]

_PLAIN = ("kernel", "bias")
_RECURRENT = ("kernel", "recurrent_kernel", "bias")
_SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
#: Names of the variables by their numbers, by the class of the layer.
_VARIABLES: dict[str, tuple[str, ...]] = {
    "dense": _PLAIN,
    "einsum_dense": _PLAIN,
    **{f"conv{n}d": _PLAIN for n in (1, 2, 3)},
    **{f"conv{n}d_transpose": _PLAIN for n in (1, 2, 3)},
    **{f"depthwise_conv{n}d": _PLAIN for n in (1, 2)},
    **{f"separable_conv{n}d": _SEPARABLE for n in (1, 2)},
    "embedding": ("embeddings",),
    "position_embedding": ("position_embeddings",),
    "reversible_embedding": ("embeddings", "reverse_embeddings"),
    **dict.fromkeys(("simple_rnn_cell", "lstm_cell", "gru_cell", "conv_lstm_cell"), _RECURRENT),
}
#: Parts of attention, whose kernels are ``[in, heads, size]``, and of the output ``[heads, size,
#: out]``.
_INTO_HEADS = re.compile(r"_?(query|key|value|gate)(_dense)?")
_OUT_OF_HEADS = re.compile(r"_?(attention_output|output_dense)")
_COUNTER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Layer:
    """A layer as the model's configuration describes it.

    Attributes:
        kind: its class, as ``conv2d_transpose``.
        equation: of an ``EinsumDense``.
    """

    kind: str
    equation: str | None = None


def layers_of(config: Any) -> dict[str, Layer]:
    """Find all layers in a model's configuration, by name and in its order.

    Args:
        config: of the model, or anything: what is no layer is passed over.
    """
    found = {}
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += reversed(each)
        elif isinstance(each, dict):
            waiting += reversed(each.values())
            kind, inner = each.get("class_name"), each.get("config")
            if isinstance(kind, str) and isinstance(inner, dict):
                equation = inner.get("equation")
                layer = Layer(_snake(kind), equation if isinstance(equation, str) else None)
                found[str(inner.get("name"))] = layer
    return found


def variables_of(layer: Layer) -> tuple[str, ...]:
    """Return the names of a layer's variables by their numbers; none of a class that is unknown."""
    return _VARIABLES.get(layer.kind, ())


def layer_of(names: Sequence[str], layers: dict[str, Layer]) -> Layer:
    """Find a layer by its name in the configuration, or by what names say of its class.

    Args:
        names: of the layer itself, the surest first.
        layers: of the configuration.
    """
    for name in names:
        if name in layers:
            return layers[name]
    for name in names:
        if (kind := _COUNTER.sub("", name)) in _VARIABLES:
            return Layer(kind)
        if _INTO_HEADS.fullmatch(name) or _OUT_OF_HEADS.fullmatch(name):
            return Layer("einsum_dense")
    return Layer("")


def layout_of(layer: Layer, names: Sequence[str], variable: str, dimensions: int) -> Layout | None:
    """Return the order in which a variable is stored; None of a bias, which is no weight.

    Args:
        layer: whose variable it is.
        names: of the layer.
        variable: its name.
        dimensions: number of its dimensions.
    """
    if variable == "bias":
        return None
    if dimensions < 2 or not variable.endswith(("kernel", "reverse_embeddings")):
        return Layout.as_stored(dimensions)
    if variable == "depthwise_kernel" or layer.kind.startswith("depthwise_conv"):
        return Layout.depthwise(dimensions)
    if layer.kind.endswith("_transpose"):
        places = tuple(range(dimensions - 2))
        return Layout((dimensions - 2,), (dimensions - 1,), places)
    if layer.kind == "einsum_dense" or (dimensions == 3 and not layer.kind):
        return _einsum(layer, names, dimensions)
    return Layout.outputs_last(dimensions)


def _einsum(layer: Layer, names: Sequence[str], dimensions: int) -> Layout:
    """Sort the axes of a kernel by where the equation has them."""
    axes = tuple(range(dimensions))
    if any(_INTO_HEADS.fullmatch(name) for name in names):
        return Layout(axes[1:], axes[:1])
    if any(_OUT_OF_HEADS.fullmatch(name) for name in names):
        return Layout(axes[-1:], axes[:-1])
    parts = re.fullmatch(r"([^,]*),([^-]*)->(.*)", (layer.equation or "").replace(" ", ""))
    if parts is None or len(parts[2]) != dimensions:
        return Layout.outputs_last(dimensions)
    outputs = tuple(axis for axis, letter in enumerate(parts[2]) if letter in parts[3])
    return Layout(outputs, tuple(axis for axis in axes if axis not in outputs))


def _snake(name: str) -> str:
    """Write the name of a class as Keras writes it in files.

    >>> _snake("DepthwiseConv2D"), _snake("LSTMCell")
    ('depthwise_conv2d', 'lstm_cell')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
