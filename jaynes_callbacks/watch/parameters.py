"""The weights of a model: which parameters are streams, and how far they have moved."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jaynes_callbacks.counts.counting import subsample
from jaynes_callbacks.instruments.record import Stream
from jaynes_callbacks.instruments.tally import reason_not_to_count
from jaynes_callbacks.watch.dtensors import (
    held,
    is_sharded,
    reason_not_to_share,
    sampled,
    share,
)
from jaynes_callbacks.watch.effective import effective_weights
from jaynes_callbacks.watch.selection import Selection, Skipped

__all__ = ["Values", "WeightStream", "find_weights", "relative_distance", "sample", "weight_names"]

#: Values kept of each stream's first state, for the distance moved: 16 KiB.
_SAMPLE = 4096
#: In the names of what FSDP's first generation wraps.
_FSDP1 = "_fsdp_wrapped_module"
_FLATTENED = "flattened by FullyShardedDataParallel (FSDP1); fully_shard (FSDP2) keeps the shape"


@dataclass(frozen=True)
class WeightStream:
    """A stream and the weight that it watches.

    Attributes:
        stream: as it stands in the records.
        value: the weight as it is now.
        sharded: whether ranks hold parts of it.
    """

    stream: Stream
    value: Callable[[], Tensor]
    sharded: bool = False


class Values(Sequence[Tensor]):
    """What this rank counts of some weights as they are now, each made when it is asked for."""

    def __init__(self, weights: Sequence[WeightStream]) -> None:
        self._weights = weights

    def __len__(self) -> int:
        return len(self._weights)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "Values": ...
    def __getitem__(self, index: "int | slice") -> "Tensor | Values":
        if isinstance(index, slice):
            return Values(self._weights[index])
        weight = self._weights[index]
        return share(weight.value()) if weight.sharded else held(weight.value())


def find_weights(
    model: nn.Module, selection: Selection
) -> tuple[list[WeightStream], list[Skipped]]:
    """Every weight with two or more dimensions, tied ones once, and what is left out and why.

    A weight that a module computes from parameters stands in the place of these.
    """
    found: dict[int, WeightStream] = {}
    skipped: list[Skipped] = []
    for name, key, value in _weights_of(model):
        weight = value()
        if key in found:
            first = found[key]
            aliases = (*first.stream.aliases, name)
            found[key] = replace(first, stream=replace(first.stream, aliases=aliases))
        elif reason := _reason_to_skip(name, weight, selection):
            skipped.append(Skipped(name, reason))
        else:
            stream = Stream("weight", name, tuple(weight.shape))
            found[key] = WeightStream(stream, value, is_sharded(weight))
    return list(found.values()), skipped + _packed(model)


def weight_names(model: nn.Module) -> list[str]:
    """Names that a weight may be asked for by: of those that multiply, and of all parameters."""
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return [*parameters, *(weight.name for weight in effective_weights(model))]


def _weights_of(model: nn.Module) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """Name, identity and value of every weight; one that is computed where its parameters are."""
    computed = {name: weight for weight in effective_weights(model) for name in weight.parameters}
    given: set[str] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name not in computed:
            yield name, id(parameter), partial(_itself, parameter)
        elif computed[name].name not in given:
            given.add(computed[name].name)
            yield computed[name].name, id(parameter), computed[name].value


def _itself(parameter: nn.Parameter) -> Tensor:
    return parameter


def _reason_to_skip(name: str, weight: Tensor, selection: Selection) -> str:
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "not initialised yet (lazy)"
    if weight.dim() < 2:
        return _FLATTENED if _FSDP1 in name else "fewer than 2 dimensions"
    if not selection.admits(name):
        return "excluded by pattern"
    if reason := reason_not_to_share(weight) or reason_not_to_count(held(weight)):
        return reason
    if weight.numel() < max(1, selection.min_size):
        return f"fewer than min_size={max(1, selection.min_size)} elements"
    return ""


def _packed(model: nn.Module) -> list[Skipped]:
    """Quantised modules, whose weights are no parameters any more."""
    return [
        Skipped(name, "quantised: its weights are packed integers")
        for name, module in model.named_modules()
        if hasattr(module, "_packed_params")
    ]


def sample(weight: WeightStream) -> Float[Tensor, " values"]:
    """A fixed set of at most 4096 of the parameter's values, copied; whole if it is smaller.

    ‖w − w₀‖/‖w₀‖ over 4096 values has a standard error of about 1 % of itself, and is exactly zero
    where nothing moved.  Of a sharded weight it is the share in the sample that rank 0 holds, and
    nothing elsewhere: what is remembered at another number of ranks has another size.
    """
    value = weight.value()
    part = sampled(value)
    limit = -(-_SAMPLE * part.numel() // max(1, value.numel()))
    return subsample(part, limit).reshape(-1).to(torch.float32, copy=True)


def relative_distance(
    now: Float[Tensor, " values"], first: Float[Tensor, " values"] | None
) -> Float[Tensor, ""]:
    """‖now − first‖/‖first‖; nan where the first is unknown, of another size, or zero."""
    if first is None or first.shape != now.shape:
        return now.new_full((), torch.nan)
    first = first.to(now.device)
    norm = first.norm()
    return torch.where(norm > 0, (now - first).norm() / norm, torch.nan)
