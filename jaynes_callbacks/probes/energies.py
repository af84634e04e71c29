"""Energies of activations: what is taken of a call, and the bias of the layer that made z.

A neuron's contribution ½(Z + b·y) needs the bias b of the linear layer or the convolution whose
output is z.  It is known only if z *is* that output: the same tensor, unchanged since.  A
normalisation, an addition or a pooling between the two, in place or not, makes a tensor of which no
single b is a part.  A layer without a bias has b = 0.  Inside compiled models b is not known: a
traced graph would have to keep the outputs of layers.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.nn import functional

from jaynes_callbacks.counts.energies import add_energies_, by_sample, energy_row
from jaynes_callbacks.probes.dtensors import is_sharded_along, owned_values
from jaynes_callbacks.probes.neurons import SPREAD, NeuronReading
from jaynes_callbacks.probes.reading import Call

__all__ = ["Energies"]

#: Position of the bias among the arguments of each function that has one.
_BIAS: Mapping[Callable[..., Any], int] = {
    functional.linear: 2,
    functional.bilinear: 3,
    functional.conv1d: 2,
    functional.conv2d: 2,
    functional.conv3d: 2,
    functional.conv_transpose1d: 2,
    functional.conv_transpose2d: 2,
    functional.conv_transpose3d: 2,
}
#: Products of matrices, without a bias of their own.
_WITHOUT_BIAS = frozenset({torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__})


class _Output(NamedTuple):
    """The output of a layer.

    Attributes:
        tensor: the output, which is not kept alive.
        version: of the tensor, raised by each operation in place.
        bias: a copy, for a layer that is sharded frees its own when it ends; None for zeros.
    """

    tensor: "ReferenceType[Tensor]"
    version: int
    bias: Tensor | None


class _Kept(NamedTuple):
    """What is kept of a pre-activation until the function has been applied.

    Attributes:
        z: the pre-activation, or samples of it.
        is_laid_out: whether it is samples × neurons × places.
        bias: of each neuron; None if it is not known.
    """

    z: Tensor
    is_laid_out: bool
    bias: Tensor | None


class Energies(NeuronReading):
    """Sums the energies Z = z·y of samples and of neurons, and the products b·y.

    Args:
        neurons: most neurons of a stream; of more, some at a constant stride are taken.
    """

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = (energy_row(neurons),)
        self._output: _Output | None = None

    def variable(self, iota: str) -> str:
        """Return ``z*y``, of a ReLU too: its Z is y²."""
        return "z*y"

    def needs_preactivation(self, iota: str) -> bool:
        """Return True: it also tells whether the bias is known."""
        return True

    def keep(self, z: Tensor, limit: int, *, overwritten: bool) -> _Kept:
        """Return the pre-activation, or samples of it if the call overwrites it, and the bias."""
        bias, dimension = self._bias_of(z), self._dimension(z)
        z = owned_values(z)
        if not overwritten:
            return _Kept(z, False, bias)
        # To pick some samples while tracing would tie the graph to the shape.
        if torch.compiler.is_compiling():
            return _Kept(z.clone(), False, bias)
        return _Kept(by_sample(z, dimension, limit).clone(), True, bias)

    def add_(self, kept: _Kept | None, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Add the energies of a call.

        Raises:
            ValueError: if ranks hold parts of one sample (a DTensor): neither its energy nor its
                neurons are known here.
        """
        if kept is None:
            return
        dimension = self._dimension(y)
        if any(is_sharded_along(y, each) for each in {dimension, *range(1, y.dim())}):
            raise ValueError(SPREAD)
        y = owned_values(y)
        if kept.is_laid_out:
            y, dimension = by_sample(y, dimension, limit), 1
        add_energies_(y, kept.z, kept.bias, table, row, dim=dimension, limit=limit)

    def forward_begins(self) -> None:
        """Forget the layers of earlier forwards."""
        super().forward_begins()
        self._output = None

    def layer_ends(self, function: Callable[..., Any], call: Call) -> None:
        """Take note of a layer, of its bias, and of the tensor that it returned."""
        super().layer_ends(function, call)
        if torch.compiler.is_compiling():
            return
        self._output = None
        if function not in _BIAS and function not in _WITHOUT_BIAS:
            return
        bias = _bias(function, call)
        # Tensors of inference mode count no versions.
        if not call.output.is_inference():
            self._output = _Output(
                ref(call.output),
                call.output._version,
                None if bias is None else owned_values(bias).clone(),
            )

    def _bias_of(self, z: Tensor) -> Tensor | None:
        """Return the bias of each neuron of a pre-activation; None if it is not known."""
        if torch.compiler.is_compiling() or self._output is None:
            return None
        tensor, version, bias = self._output
        if tensor() is not z or z._version != version:
            return None
        neurons = z.shape[self._dimension(z)] if z.dim() else 1
        if bias is None:
            return z.detach().new_zeros(neurons)
        return bias if len(bias) == neurons else None


def _bias(function: Callable[..., Any], call: Call) -> Tensor | None:
    """Return the bias that a layer was called with; None if it has none."""
    place = _BIAS.get(function)
    if place is None:
        return None
    found: Tensor | None = call.args[place] if len(call.args) > place else call.kwargs.get("bias")
    return found
