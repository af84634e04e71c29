"""What a module does to distances, as far as it follows from its class and its weights.

Layers are linear maps but for their bias; of them only products with vectors are used, so that
weights may be computed in any way: with all unit vectors where the layer is small, so that its norm
is exact, else with a few.  Of other modules without children a bound is known by their
class.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jaynes_callbacks.probes.maps import has_torchs_forward, maps_vectors
from jaynes_callbacks.statistics.averaged import SLOPES, Slopes, linear_gamma
from jaynes_callbacks.statistics.norms import NormBounds, krylov_norm, spectral_norm

__all__ = ["MOST_EXACT", "Bound", "bound_of", "is_layer", "layer_gamma", "layer_norm", "slopes_of"]

#: Products with a layer and its adjoint for its norm, where it is not exact.
STEPS = 24
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
#: Norms in the iteration keep so many values at most: vectors of inputs and outputs.
_VALUES = 2**26
#: Norms are exact, and γ is known, up to so many values on the smaller side: it takes their cube.
MOST_EXACT = 512
#: And up to so many on the other side: as many unit vectors are passed through the layer.
_MOST_OTHER = 2048

_BY_CLASS: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Softsign: "softsign",
    nn.Softplus: "softplus",
    nn.Sigmoid: "sigmoid",
    nn.LogSigmoid: "logsigmoid",
    nn.Tanh: "tanh",
    nn.Tanhshrink: "tanhshrink",
}
#: In evaluation these rearrange values or leave them as they are.
_REARRANGING = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.ChannelShuffle,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_MEANS_OF_MAPS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


class Bound(NamedTuple):
    """What is known of a module in evaluation.

    Attributes:
        lipschitz: no larger is its Lipschitz constant.
        gamma: it is averaged with this γ; nan if it may not be.
    """

    lipschitz: float | Tensor
    gamma: float | Tensor


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer or a convolution, with torch's own forward.

    Of a subclass that computes something else, such as a cosine, the weight is not the map.
    """
    kinds = (nn.Linear, *_CONVOLUTIONS)
    if isinstance(module, kinds):
        return has_torchs_forward(module, kinds)
    return maps_vectors(module)


def slopes_of(module: nn.Module) -> Slopes | None:
    """Return the range of slopes of a module that applies one function to each value; else None.

    Those of softmax are the eigenvalues of its Jacobian.  A PReLU's are learned, and not read.
    """
    if not _is_of_torch(module):
        return None
    if isinstance(module, nn.GELU):
        return SLOPES["gelu" if module.approximate == "none" else "gelu_tanh"]
    if isinstance(module, nn.LeakyReLU):
        slope = module.negative_slope
        return Slopes(min(slope, 1.0), max(slope, 1.0))
    if isinstance(module, nn.ELU):
        return Slopes(min(0.0, module.alpha), max(1.0, module.alpha))
    if isinstance(module, nn.Softmax | nn.Softmax2d):
        return Slopes(0.0, 0.5)
    name = _BY_CLASS.get(type(module))
    return None if name is None else SLOPES[name]


def bound_of(module: nn.Module) -> Bound | None:
    """Return what is known of a module that is no layer; None if its class is not known."""
    if not _is_of_torch(module):
        return None
    if isinstance(module, _REARRANGING):
        return Bound(1.0, 0.0)
    if (slopes := slopes_of(module)) is not None:
        return Bound(slopes.lipschitz, slopes.gamma)
    if isinstance(module, _NORMS) and module.running_var is not None:
        scales = (module.running_var.double() + module.eps).rsqrt()
        if module.weight is not None:
            scales = scales * module.weight.detach().double()
        low, high = scales.amin(), scales.amax()
        averaged = (low >= -1) & (high <= 1)
        return Bound(scales.abs().amax(), torch.where(averaged, (1 - low) / 2, torch.nan))
    if isinstance(module, _MAXIMA):
        return Bound(math.sqrt(_overlap(module)), math.nan)
    return Bound(1.0, math.nan) if _is_mean(module) else None


def _is_of_torch(module: nn.Module) -> bool:
    """Tell whether a module's class is torch's own: of another's forward nothing is known."""
    return type(module).__module__.startswith("torch.")


def _is_mean(module: nn.Module) -> bool:
    """Tell whether a module takes means of windows such that no value counts more than once in all.

    Means at a border that is left out of them, and adaptive ones that enlarge a map, may not.
    """
    if isinstance(module, _MEANS):
        return bool(module.count_include_pad) and not module.ceil_mode
    sizes = getattr(module, "output_size", None)
    sizes = sizes if isinstance(sizes, tuple) else (sizes,)
    return isinstance(module, _MEANS_OF_MAPS) and all(size == 1 for size in sizes)


def _overlap(pool: Any) -> int:
    """Return in how many windows of a pooling one value can be."""
    dims = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}[type(pool)]

    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * dims if isinstance(value, int) else tuple(value)

    # Of a window's values, dilation apart, every (stride / gcd)-th can lie on the same input.
    windows = zip(each(pool.kernel_size), each(pool.stride), each(pool.dilation), strict=True)
    return math.prod(
        -(-size // (stride // math.gcd(stride, dilation))) for size, stride, dilation in windows
    )


def layer_norm(module: nn.Module, shape: tuple[int, ...]) -> NormBounds:
    """Return bounds of the spectral norm of a layer as a map of inputs of this shape.

    Of a convolution this is the norm with its actual padding, stride and size of the map.  The
    bounds are equal up to `MOST_EXACT` values on the smaller side and 2,048 on the other.

    Args:
        module: a layer, in evaluation.
        shape: of one sample's input.
    """
    apply, adjoint = _products(module, shape)
    start = _random_vector(math.prod(shape), _device(module), _dtype(module))
    inputs, outputs = start.numel(), apply(start).numel()
    if min(inputs, outputs) <= MOST_EXACT and max(inputs, outputs) <= _MOST_OTHER:
        norm = spectral_norm(_transposed(module, shape))
        return NormBounds(norm, norm)
    steps = max(2, min(STEPS, _VALUES // (inputs + outputs)))
    return krylov_norm(apply, adjoint, start, steps)


def layer_gamma(module: nn.Module, size: int) -> Tensor:
    """Return the smallest γ of a linear layer with as many outputs as inputs; nan if none."""
    return linear_gamma(_transposed(module, (size,)).mT)


def _transposed(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return what a layer's linear part makes of each unit vector, one row for each input."""
    size = math.prod(shape)
    eye = torch.eye(size, device=_device(module), dtype=_dtype(module)).view(size, *shape)
    with torch.no_grad():
        rows: Tensor = module(eye) - module(torch.zeros_like(eye[:1]))
    return rows.flatten(1)


def _products(
    module: nn.Module, shape: tuple[int, ...]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the products of a layer's linear part, and of its adjoint, with vectors."""
    dtype = _dtype(module)
    origin = torch.zeros(1, *shape, device=_device(module), dtype=dtype, requires_grad=True)
    output = module(origin)
    bias = output.detach()

    def apply(v: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(v.to(dtype).view(1, *shape)) - bias
        return found.flatten().to(v.dtype)

    def adjoint(u: Tensor) -> Tensor:
        given = u.to(dtype).view_as(output)
        (found,) = torch.autograd.grad(output, origin, given, retain_graph=True)
        return found.flatten().to(u.dtype)

    return apply, adjoint


def _random_vector(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a Gaussian vector that is the same every time, in single precision at least."""
    generator = torch.Generator(device).manual_seed(size)
    dtype = torch.promote_types(dtype, torch.float32)
    return torch.randn(size, generator=generator, device=device, dtype=dtype)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(each.dtype for each in module.parameters() if each.is_floating_point())


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
