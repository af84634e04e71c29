"""The weights of a model: which parameters are streams, and how far they have moved."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jaynes_callbacks.counting import subsample
from jaynes_callbacks.record import Stream
from jaynes_callbacks.sources.selection import Selection, Skipped

__all__ = ["WeightStream", "find_weights", "relative_distance", "sample"]

#: Values kept of each stream's first state, for the distance moved: 16 KiB.
_SAMPLE = 4096


@dataclass(frozen=True)
class WeightStream:
    """A stream and the parameter that it watches."""

    stream: Stream
    parameter: nn.Parameter


def find_weights(
    model: nn.Module, selection: Selection
) -> tuple[list[WeightStream], list[Skipped]]:
    """Every parameter with two or more dimensions, tied ones once, and what is left out and why."""
    found: dict[int, WeightStream] = {}
    skipped: list[Skipped] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in found:
            first = found[id(parameter)]
            aliases = (*first.stream.aliases, name)
            found[id(parameter)] = replace(first, stream=replace(first.stream, aliases=aliases))
        elif reason := _reason_to_skip(name, parameter, selection):
            skipped.append(Skipped(name, reason))
        else:
            stream = Stream("weight", name, tuple(parameter.shape))
            found[id(parameter)] = WeightStream(stream, parameter)
    return list(found.values()), skipped


def _reason_to_skip(name: str, parameter: nn.Parameter, selection: Selection) -> str:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        return "not initialised yet (lazy)"
    if parameter.dim() < 2:
        return "fewer than 2 dimensions"
    if not selection.admits(name):
        return "excluded by pattern"
    if parameter.is_meta:
        return "on the meta device, without values"
    if not parameter.dtype.is_floating_point:
        return f"not floating-point ({parameter.dtype})"
    if parameter.numel() < max(1, selection.min_size):
        return f"fewer than min_size={max(1, selection.min_size)} elements"
    return ""


def sample(weight: WeightStream) -> Float[Tensor, " values"]:
    """A fixed set of at most 4096 of the parameter's values, copied; whole if it is smaller.

    ‖w − w₀‖/‖w₀‖ over 4096 values has a standard error of about 1 % of itself, and is exactly zero
    where nothing moved.
    """
    return subsample(weight.parameter.detach(), _SAMPLE).reshape(-1).to(torch.float32, copy=True)


def relative_distance(
    now: Float[Tensor, " values"], first: Float[Tensor, " values"] | None
) -> Float[Tensor, ""]:
    """‖now − first‖/‖first‖; nan where the first is unknown, of another size, or zero."""
    if first is None or first.shape != now.shape:
        return now.new_full((), torch.nan)
    first = first.to(now.device)
    norm = first.norm()
    return torch.where(norm > 0, (now - first).norm() / norm, torch.nan)
