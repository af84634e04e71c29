"""Tangent kernels of a model's layers: one forward of some samples, a backward for each output.

The gradient of a sample with respect to a layer's weight is made of what the layer was applied to
and of the gradient with respect to what it returned (`statistics.alignment`).  Both are at hand
without the parameters' own gradients: a forward hook keeps the input and returns a copy of the
output, so that an activation that works in place leaves alone what is differentiated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jaynes_callbacks.probes.maps import has_torchs_forward
from jaynes_callbacks.probes.selection import Selection, Skipped
from jaynes_callbacks.probes.undisturbed import is_lazy, undisturbed
from jaynes_callbacks.statistics.alignment import (
    AlignmentStatus,
    Call,
    Places,
    add_kernel_,
    input_gram,
    random_outputs,
)

__all__ = ["MOST_OUTPUTS", "Layer", "Tangents", "UnfitError", "layers_of", "tangent_kernels"]

#: Outputs of the network that are differentiated; of more, so many random projections.
MOST_OUTPUTS = 32
#: Products of inputs that are kept of a layer, and of all layers: 64 MiB and 1 GiB of float32.
_GRAM, _GRAMS = 1 << 24, 1 << 28
#: The same of patches, which are else copied for each output.
_PATCHED, _PATCHES = 1 << 24, 1 << 28
#: Seeds the projections, so that all records of a run have the same.
_SEED = 20211022
#: Names under which models return what they predict, the more telling first.
_OUTPUT_NAMES = ("logits", "out", "output", "outputs", "prediction", "predictions")

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Classes whose weight multiplies their input, but for its orientation as `nn.Linear` does; by
#: name, so that transformers need not be imported.
_DENSE = ("transformers.pytorch_utils.Conv1D",)
_FSDP1 = "FullyShardedDataParallel"
_FROZEN = "frozen: its parameters are not trained"
_OWN_FORWARD = "has a forward of its own"
_NOT_MEASURED = "tangent kernels are of linear and convolutional layers"
_NOT_CALLED = "not called as a module in the forward"
_NO_TENSOR = "called with something else than one tensor"
_IN_PARTS = "spread over ranks by tensor parallelism"
_NO_GRAPH = "called without gradients"
_NO_SAMPLES = "the samples are along no dimension of its output that is known"
_UNBATCHED = "applied to each sample by itself"


class UnfitError(Exception):
    """Why there are no tangent kernels of a model.

    Attributes:
        status: of the record.
    """

    def __init__(self, status: AlignmentStatus, more: str = "") -> None:
        super().__init__(f"{status.reason}: {more}" if more else status.reason)
        self.status = status


@dataclass(frozen=True)
class Layer:
    """A layer whose tangent kernel is measured.

    Attributes:
        name: of the module.
        module: linear or convolutional.
    """

    name: str
    module: nn.Module


class Tangents(NamedTuple):
    """Tangent kernels of layers, in the order of their first calls.

    Attributes:
        layers: their names.
        kernels: float64 ``[layers, samples, samples]``.
        leaks: largest gradient of the last sample's outputs with respect to what a layer returned
            for other samples, in units of that for itself; 0 where samples do not mix.
        outputs: how many outputs of the network, or projections of them, were differentiated.
        skipped: layers that were not measured, and why.
    """

    layers: list[str]
    kernels: Tensor
    leaks: Tensor
    outputs: int
    skipped: list[Skipped]


# Layers -------------------------------------------------------------------------------------


def layers_of(model: nn.Module, selection: Selection) -> tuple[list[Layer], list[Skipped]]:
    """Find the layers whose tangent kernels can be measured, and those with weights that cannot.

    Args:
        model: any module.
        selection: whose patterns are on the names of modules.
    """
    layers: list[Layer] = []
    skipped: list[Skipped] = []
    for name, module in model.named_modules():
        if not _has_weight(module):
            continue
        name = name or type(module).__name__
        if not selection.admits(name):
            skipped.append(Skipped(name, "excluded by pattern"))
        elif (reason := _reason_to_skip(module)) is not None:
            skipped.append(Skipped(name, reason))
        else:
            layers.append(Layer(name, module))
    return layers, skipped


def _has_weight(module: nn.Module) -> bool:
    """Tell whether a module has a weight of two or more dimensions, its own or computed."""
    own: dict[str, Any] = dict(module.named_parameters(recurse=False))
    if nn.utils.parametrize.is_parametrized(module):
        computed: Any = module.parametrizations
        own |= {name: each.original for name, each in computed.items() if each.is_tensor}
    return any(is_lazy(each) or each.dim() > 1 for each in own.values())


def _reason_to_skip(module: nn.Module) -> str | None:
    if not any(each.requires_grad for each in module.parameters()):
        return _FROZEN
    if _is_dense(module):
        return None
    kinds = (nn.Linear, *_CONVOLUTIONS)
    if not isinstance(module, kinds):
        return _NOT_MEASURED
    return None if has_torchs_forward(module, kinds) else _OWN_FORWARD


def _is_dense(module: nn.Module) -> bool:
    return f"{type(module).__module__}.{type(module).__qualname__}" in _DENSE


def _trained(module: nn.Module, name: str) -> bool:
    """Tell whether a layer has such a parameter, its own or computed, that is trained."""
    value = getattr(module, name, None)
    return isinstance(value, Tensor) and value.requires_grad


# Calls --------------------------------------------------------------------------------------


@dataclass
class _Heard:
    """A call of a layer in the forward.

    Attributes:
        output: what it returned, of which the model has a copy.
        places: its input.
        arranged: brings a gradient of the output into the order of `Call`.
    """

    output: Tensor
    places: Places
    arranged: Callable[[Tensor], Tensor]


@dataclass
class _Listener:
    """Keeps the calls of all layers in one forward.

    Attributes:
        samples: number of samples.
        calls: of each layer, in the order of first calls.
        unfit: layers with a call that cannot be used, and why.
        is_open: False once the forward is over: what follows are repeated calls.
        room: how many values of patches may still be kept.
    """

    samples: int
    calls: dict[str, list[_Heard]] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    is_open: bool = True
    room: int = _PATCHES

    def hear(
        self, layer: Layer, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> Tensor | None:
        """Keep a call, and return a copy of the output for the model to go on with."""
        if not self.is_open:
            return None
        x = next(iter((*args, *kwargs.values())), None)
        if not isinstance(x, Tensor) or not isinstance(output, Tensor):
            heard: _Heard | str = _NO_TENSOR
        elif hasattr(x, "placements") or hasattr(output, "placements"):
            heard = _IN_PARTS
        elif not output.requires_grad:
            heard = _NO_GRAPH
        else:
            heard = self._heard(layer.module, x, output)
        if isinstance(heard, str):
            self.unfit[layer.name] = heard
            return None
        self.calls.setdefault(layer.name, []).append(heard)
        copy: Tensor = output.clone()
        return copy

    def _heard(self, module: nn.Module, x: Tensor, output: Tensor) -> _Heard | str:
        """Return the call; or the reason why it cannot be used."""
        x = _in_full(x.detach())
        if isinstance(module, _CONVOLUTIONS):
            return self._convolution(module, x, output)
        dim = _sample_dim(output, self.samples)
        if dim is None:
            return _NO_SAMPLES
        if (x.shape[-1], output.shape[-1]) != _features(module):
            return _IN_PARTS

        def arranged(values: Tensor) -> Tensor:
            return values.movedim(dim, 0).reshape(self.samples, 1, -1, values.shape[-1])

        return _Heard(output, Places(arranged(x)), arranged)

    def _convolution(self, module: Any, x: Tensor, output: Tensor) -> _Heard | str:
        if output.dim() != len(module.kernel_size) + 2:
            return _UNBATCHED
        if len(output) % self.samples:
            return _NO_SAMPLES
        if (x.shape[1], output.shape[1]) != (module.in_channels, module.out_channels):
            return _IN_PARTS
        places, arranged = _convolved(module, x, self.samples)
        if (size := places.windows.numel()) <= min(_PATCHED, self.room):
            self.room -= size
            places = replace(places, windows=places.windows.contiguous())
        return _Heard(output, places, arranged)


def _features(module: Any) -> tuple[int, int]:
    """Return how many inputs and outputs a dense layer has on all ranks together."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    inputs, outputs = module.weight.shape
    return inputs, outputs


def _in_full(values: Tensor) -> Tensor:
    """Return values in single precision at least."""
    return values if values.dtype == torch.float64 else values.float()


def _sample_dim(output: Tensor, samples: int) -> int | None:
    """Return the dimension of a dense layer's output along which the samples lie.

    The first one, also where several rows belong to a sample; else the second one, as of sequences
    ``[time, samples, features]``.
    """
    if output.dim() < 2:
        return None
    if len(output) % samples == 0:
        return 0
    return 1 if output.dim() > 2 and output.shape[1] == samples else None


def _convolved(module: Any, x: Tensor, samples: int) -> tuple[Places, Callable[[Tensor], Tensor]]:
    """Return the patches of a convolution's input as a view, and the order of its gradients.

    Several rows of the input may belong to a sample, one after the other.
    """
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    if any(module._reversed_padding_repeated_twice):
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    dims, groups = len(module.kernel_size), module.groups
    for dim in range(dims):
        dilation = module.dilation[dim]
        reach = dilation * (module.kernel_size[dim] - 1) + 1
        x = x.unfold(2 + dim, reach, module.stride[dim])[..., ::dilation]
    # [rows, channels, *places, *kernel] → [samples, groups, rows, *places, channels, *kernel]
    x = x.unflatten(0, (samples, -1)).unflatten(2, (groups, -1))
    of_places = range(4, 4 + dims)
    of_kernel = range(4 + dims, 4 + 2 * dims)
    places = Places(x.permute(0, 2, 1, *of_places, 3, *of_kernel), 1 + dims)

    def arranged(gradient: Tensor) -> Tensor:
        split = gradient.unflatten(0, (samples, -1)).unflatten(2, (groups, -1))
        ordered: Tensor = split.permute(0, 2, 1, *of_places, 3)
        return ordered.reshape(samples, groups, -1, split.shape[3])

    return places, arranged


# Kernels ------------------------------------------------------------------------------------


def tangent_kernels(
    model: nn.Module,
    layers: Sequence[Layer],
    forward: Callable[[nn.Module], Any],
    samples: int,
    most_outputs: int = MOST_OUTPUTS,
) -> Tangents:
    """Compute the tangent kernels of layers on some samples, with the model in evaluation mode.

    Nothing of the model or of its training is changed.  A layer that is called several times has
    the kernel of the gradients' sum, for its parameters are the same in all calls.

    Args:
        model: any module.
        layers: of it.
        forward: calls the model on the samples and returns its outputs.
        samples: how many there are.
        most_outputs: that are differentiated; of more, so many random projections.

    Raises:
        UnfitError: if the outputs are none, or not one row for each sample.
        Exception: what the model raises.
    """
    if any(map(is_lazy, model.parameters())):
        raise UnfitError(AlignmentStatus.FAILED, "not initialised yet (lazy)")
    if any(type(each).__name__ == _FSDP1 for each in model.modules()):
        raise UnfitError(AlignmentStatus.FAILED, f"{_FSDP1} (FSDP1); fully_shard (FSDP2) can")
    listener = _Listener(samples)
    with undisturbed(model) as called:
        called.eval()
        for layer in layers:
            layer.module.register_forward_hook(_hook(listener, layer), with_kwargs=True)
        outputs = _outputs(forward(called), samples)
        listener.is_open = False
        trained = {
            each.name: (_trained(each.module, "weight"), _trained(each.module, "bias"))
            for each in layers
        }
        calls = {
            name: heard for name, heard in listener.calls.items() if name not in listener.unfit
        }
        skipped = [
            Skipped(each.name, listener.unfit.get(each.name, _NOT_CALLED))
            for each in layers
            if each.name not in calls
        ]
        directions = _directions(outputs, most_outputs)
        kernels, leaks = _summed(calls, trained, outputs, directions)
    return Tangents(list(calls), kernels, leaks, directions.shape[1], skipped)


def _hook(listener: _Listener, layer: Layer) -> Callable[..., Tensor | None]:
    def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor | None:
        return listener.hear(layer, args, kwargs, output)

    return hook


def _summed(
    calls: Mapping[str, Sequence[_Heard]],
    trained: Mapping[str, tuple[bool, bool]],
    outputs: Tensor,
    directions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sum the kernels over the outputs; find out whether samples mix."""
    samples = len(outputs)
    kernels = outputs.new_zeros(len(calls), samples, samples, dtype=torch.float64)
    if not calls:
        return kernels, kernels.new_zeros(0)
    inputs = [heard.output for each in calls.values() for heard in each]
    rising = torch.linspace(1, 2, outputs.shape[1], device=outputs.device, dtype=outputs.dtype)
    last = torch.zeros_like(outputs)
    last[-1] = rising
    leaks = torch.stack([_leak(each, last) for each in _gradients(calls, outputs, inputs, last)])
    grams: list[Tensor | None] = []
    room = _GRAMS
    with torch.no_grad():
        for heard in calls.values():
            gram = input_gram(heard[0].places, min(_GRAM, room)) if len(heard) == 1 else None
            room -= 0 if gram is None else gram.numel()
            grams.append(gram)
    for direction in directions.T:
        along = direction.expand_as(outputs).to(outputs.dtype)
        found = _gradients(calls, outputs, inputs, along)
        with torch.no_grad():
            for place, (name, each) in enumerate(zip(calls, found, strict=True)):
                if each:
                    weight, bias = trained[name]
                    add_kernel_(kernels[place], each, weight=weight, bias=bias, gram=grams[place])
    return kernels, leaks


def _gradients(
    calls: Mapping[str, Sequence[_Heard]],
    outputs: Tensor,
    inputs: Sequence[Tensor],
    along: Tensor,
) -> list[list[Call]]:
    """Return the calls of each layer with the gradients of the outputs along a direction."""
    found = iter(torch.autograd.grad(outputs, inputs, along, retain_graph=True, allow_unused=True))
    return [
        [
            Call(heard.places, heard.arranged(_in_full(gradient)))
            for heard, gradient in ((each, next(found)) for each in of_layer)
            if gradient is not None
        ]
        for of_layer in calls.values()
    ]


def _leak(calls: Sequence[Call], last: Tensor) -> Tensor:
    """Return how far the last sample's gradient reaches into others, in units of its own."""
    if not calls:
        return last.new_zeros((), dtype=torch.float64)
    others = [call.gradients[:-1].abs().amax() for call in calls]
    own = [call.gradients[-1].abs().amax() for call in calls]
    return (torch.stack(others).amax() / torch.stack(own).amax()).double()


# Outputs ------------------------------------------------------------------------------------


def _directions(outputs: Tensor, most: int) -> Tensor:
    """Return along which outputs are differentiated, ``[outputs, at most so many]``."""
    number = outputs.shape[1]
    if number <= most:
        return torch.eye(number, dtype=torch.float64, device=outputs.device)
    generator = torch.Generator().manual_seed(_SEED)
    return random_outputs(number, most, generator).to(outputs.device)


def _outputs(returned: Any, samples: int) -> Tensor:
    """Find the predictions in what a model returned, as one row for each sample.

    Raises:
        UnfitError: if there are none.
    """
    outputs = _predictions(returned)
    if outputs is None or not outputs.is_floating_point():
        raise UnfitError(
            AlignmentStatus.FAILED, f"the model returned no outputs but {type(returned)}"
        )
    if outputs.dim() == 0 or len(outputs) != samples:
        raise UnfitError(AlignmentStatus.PLACES, f"got shape {tuple(outputs.shape)}")
    if outputs.dim() > 2 and outputs[0].numel() != outputs.shape[1]:
        raise UnfitError(AlignmentStatus.PLACES, f"got shape {tuple(outputs.shape)}")
    if not outputs.requires_grad:
        raise UnfitError(AlignmentStatus.FAILED, "the model's outputs have no gradients")
    return outputs.reshape(samples, -1)


def _predictions(returned: Any) -> Tensor | None:
    """Return the tensor of predictions: under a known name, or else the first."""
    if isinstance(returned, Tensor):
        return returned
    if isinstance(returned, Mapping):
        named: Mapping[Any, Any] = returned
    elif is_dataclass(returned):
        named = {each.name: getattr(returned, each.name) for each in fields(returned)}
    elif isinstance(returned, list | tuple):
        named = dict(enumerate(returned))
    else:
        return None
    ordered = [named[name] for name in _OUTPUT_NAMES if name in named]
    found = (_predictions(each) for each in [*ordered, *named.values()] if each is not None)
    return next((each for each in found if each is not None), None)
