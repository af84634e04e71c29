"""Rescale the hidden neurons of a network: its weights change, what it computes does not.

ReLU and leaky ReLU are positively homogeneous: f(λz) = λ f(z) for λ > 0.  So the weights into a
hidden neuron, and its bias, may be multiplied by any λ > 0 if the weights out of it are divided by
λ (B. Neyshabur, R. Salakhutdinov & N. Srebro, Path-SGD, NeurIPS 2015).  ``docs/symmetry.md`` shows
what this does to the law of the weights.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["rescale_"]

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
#: What may stand between two layers: it lets a positive factor of a channel through.
_ANYWHERE = (
    *(nn.ReLU, nn.LeakyReLU, nn.Identity),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
#: Likewise, of what a convolution puts out.
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)


@torch.no_grad()
def rescale_(model: nn.Module, scale: float, seed: int) -> None:
    """Multiply the weights into each hidden neuron by e^a, and divide those out of it by e^a.

    Args:
        model: changed in place: a sequence, which may contain sequences, of linear and convolution
            layers with ReLU or leaky ReLU, dropout and pools between them.  What stands before the
            first layer or after the last one is free.
        scale: standard deviation of a ~ N(0, scale²); 0 leaves the model as it is.
        seed: of the factors.

    Raises:
        ValueError: for a negative scale, or a model whose outputs would change.

    Example:
        >>> network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)).double()
        >>> inputs = torch.randn(8, 20, dtype=torch.float64)
        >>> before = network(inputs)
        >>> rescale_(network, 1.0, seed=0)
        >>> bool((network(inputs) - before).abs().max() < 1e-12)
        True
    """
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale must be a number of at least 0, got {scale!r}")
    # Everything is checked before anything is changed.
    pairs = list(_pairs(model))
    source = torch.Generator().manual_seed(seed)
    for before, after in pairs:
        exponent = scale * torch.randn(len(before.weight), generator=source, dtype=torch.float64)
        factor = exponent.exp().to(before.weight)
        _multiply_along(before.weight, 0, factor)
        if before.bias is not None:
            before.bias.mul_(factor)
        # A convolution's channel is a block of so many inputs of a linear layer.
        block = after.weight.shape[1] // len(factor)
        _multiply_along(after.weight, 1, 1 / factor.repeat_interleave(block))


def _multiply_along(weight: Tensor, dim: int, factor: Tensor) -> None:
    shape = [1] * weight.dim()
    shape[dim] = -1
    weight.mul_(factor.view(shape))


def _pairs(model: nn.Module) -> Iterator[tuple[Layer, Layer]]:
    """Yield each two layers that follow each other, having checked what stands between them."""
    layers: list[Layer] = []
    between: list[tuple[str, nn.Module]] = []
    for name, module in _leaves(model, ""):
        if not isinstance(module, Layer):
            between.append((name, module))
            continue
        _check_layer(name, module, layers)
        if layers:
            _check_between(name, layers[-1], module, between)
            yield layers[-1], module
        layers.append(module)
        between = []


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a sequence in their order; a sequence within it is gone through."""
    if type(module).forward is not nn.Sequential.forward:
        if not name:
            raise ValueError(
                f"only an nn.Sequential can be rescaled, got {type(module).__name__}: of another "
                "model it is not known which layer follows which"
            )
        yield name, module
        return
    # named_children would leave out a module that stands in two places.
    for key, child in module._modules.items():
        if child is not None:
            yield from _leaves(child, f"{name}.{key}" if name else key)


def _check_layer(name: str, layer: Layer, before: Sequence[Layer]) -> None:
    if not isinstance(layer.weight, nn.Parameter):
        raise ValueError(f"the weight of {name} is computed from other parameters: rescale these")
    if any(layer.weight is each.weight for each in before):
        raise ValueError(f"{name} shares its weight with an earlier layer")
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(f"{name} has {layer.groups} groups; rescaling needs 1")


def _check_between(
    name: str, before: Layer, after: Layer, between: Sequence[tuple[str, nn.Module]]
) -> None:
    """Check that a factor of each output of one layer arrives at inputs of the next."""
    allowed = _ANYWHERE if isinstance(before, nn.Linear) else (*_ANYWHERE, *_POOLS)
    flattens = False
    for place, module in between:
        if isinstance(module, nn.Flatten):
            flattens = True
        elif not isinstance(module, allowed):
            raise ValueError(
                f"{place} is a {type(module).__name__}: outputs stay equal only with ReLU, leaky "
                "ReLU, dropout and, after convolutions, pools between layers"
            )
    if not _is_clear(before, after, flattens=flattens):
        raise ValueError(
            f"{name} takes {after.weight.shape[1]} inputs and the layer before it has "
            f"{len(before.weight)} outputs: it is not known which input comes from which"
        )


def _is_clear(before: Layer, after: Layer, *, flattens: bool) -> bool:
    """Tell whether it is known which input of a layer comes from which output of another."""
    outputs, inputs = len(before.weight), after.weight.shape[1]
    if isinstance(before, nn.Linear):
        return isinstance(after, nn.Linear) and inputs == outputs
    if isinstance(after, nn.Linear):
        return flattens and inputs % outputs == 0
    return inputs == outputs and not flattens
