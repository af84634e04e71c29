"""The weights of a model: which tensors are streams, their values, and how far they have moved."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jaynes_callbacks.counts.counting import reason_not_countable, subsample
from jaynes_callbacks.probes.dtensors import (
    is_sharded,
    local_shard,
    owned_values,
    place_of_shard,
    reason_not_countable_in_parts,
    sample_source,
)
from jaynes_callbacks.probes.effective import effective_weights
from jaynes_callbacks.probes.selection import Selection, Skipped
from jaynes_callbacks.records.stream import WEIGHT, Stream

__all__ = [
    "CurrentValues",
    "WeightFinder",
    "WeightStream",
    "reason_to_skip",
    "relative_distance",
    "sample",
    "weight_names",
]

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
        value: returns the weight as it is now: a parameter itself, or computed from parameters.
        sharded: True if ranks hold parts of the weight.
    """

    stream: Stream
    value: Callable[[], Tensor]
    sharded: bool = False


class CurrentValues:
    """The values of weights at one moment, each computed once.

    What is computed is kept as long as this object, so make one for a record and let it go with the
    record.  Parameters are not copied.
    """

    def __init__(self) -> None:
        self._values: dict[Callable[[], Tensor], Tensor] = {}

    def of(self, value: Callable[[], Tensor]) -> Tensor:
        """Return the weight that `value` computes."""
        if value not in self._values:
            self._values[value] = value()
        return self._values[value]

    def counted_of(self, weight: WeightStream) -> Tensor:
        """Return the values of a weight that this rank counts."""
        value = self.of(weight.value)
        return owned_values(value) if weight.sharded else local_shard(value)

    def place_of(self, weight: WeightStream) -> tuple[int, ...]:
        """Return where these values begin in the weight, along each dimension."""
        if not weight.sharded:
            return (0,) * len(weight.stream.shape)
        return place_of_shard(self.of(weight.value))


class _Candidate(NamedTuple):
    """A weight of a model, before it is known whether it is a stream.

    Attributes:
        name: of the weight.
        key: the same for all names of a tied weight.
        value: returns the weight.
        recipe: `EffectiveWeight.recipe` of a computed weight; None for a parameter.
    """

    name: str
    key: int
    value: Callable[[], Tensor]
    recipe: tuple[Hashable, ...] | None


class _Finding(NamedTuple):
    """A weight's shape and placement, and the reason not to watch it, if there is one."""

    recipe: tuple[Hashable, ...] | None
    shape: tuple[int, ...]
    sharded: bool
    reason: str | None


class WeightFinder:
    """Finds the weights of a model, as often as asked: some are made late (lazy), or exchanged.

    A weight that a module computes is computed to learn its shape, once; again only if what
    computes it was changed.

    Args:
        model: any module.
        selection: which weights to watch.
    """

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        self._model, self._selection = model, selection
        self._findings: dict[str, _Finding] = {}

    def find(self, now: CurrentValues) -> tuple[list[WeightStream], list[Skipped]]:
        """Find every weight with two or more dimensions, and what is left out and why.

        A tied weight is one stream.  A weight that a module computes from parameters stands in
        their place.

        Args:
            now: takes up the weights that had to be computed.
        """
        found: dict[int, WeightStream] = {}
        skipped: list[Skipped] = []
        earlier, self._findings = self._findings, {}
        for weight in _candidates(self._model):
            if weight.key in found:
                first = found[weight.key]
                aliases = (*first.stream.aliases, weight.name)
                stream = replace(first.stream, aliases=aliases)
                found[weight.key] = replace(first, stream=stream)
                continue
            finding = self._look_at(weight, earlier.get(weight.name), now)
            self._findings[weight.name] = finding
            if finding.reason is not None:
                skipped.append(Skipped(weight.name, finding.reason))
            else:
                stream = Stream(WEIGHT, weight.name, finding.shape)
                found[weight.key] = WeightStream(stream, weight.value, finding.sharded)
        return list(found.values()), skipped + _packed(self._model)

    def _look_at(
        self, weight: _Candidate, earlier: _Finding | None, now: CurrentValues
    ) -> _Finding:
        if weight.recipe is None:
            return _finding(weight, weight.value(), self._selection)
        if earlier is None or earlier.recipe != weight.recipe:
            return _finding(weight, now.of(weight.value), self._selection)
        return earlier


def weight_names(model: nn.Module) -> list[str]:
    """List the names that a weight may be asked for by: of parameters and of computed weights."""
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return [*parameters, *(weight.name for weight in effective_weights(model))]


def _candidates(model: nn.Module) -> Iterator[_Candidate]:
    """Find every weight; one that is computed stands where the first of its parameters would."""
    computed = {name: weight for weight in effective_weights(model) for name in weight.parameters}
    given: set[str] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name not in computed:
            yield _Candidate(name, id(parameter), partial(_itself, parameter), None)
        elif computed[name].name not in given:
            weight = computed[name]
            given.add(weight.name)
            yield _Candidate(weight.name, id(parameter), weight.value, weight.recipe)


def _itself(parameter: nn.Parameter) -> Tensor:
    return parameter


def _finding(weight: _Candidate, value: Tensor, selection: Selection) -> _Finding:
    reason = reason_to_skip(weight.name, value, selection)
    # A lazy parameter has no shape yet.
    shape = tuple(value.shape) if reason is None else ()
    return _Finding(weight.recipe, shape, is_sharded(value), reason)


def reason_to_skip(name: str, value: Tensor, selection: Selection) -> str | None:
    """Say why a weight, or one of its parameters, is not watched; None if it is."""
    if isinstance(value, nn.parameter.UninitializedParameter):
        return "not initialised yet (lazy)"
    if value.dim() < 2:
        return _FLATTENED if _FSDP1 in name else "fewer than 2 dimensions"
    if not selection.admits(name):
        return "excluded by pattern"
    if reason := reason_not_countable_in_parts(value) or reason_not_countable(local_shard(value)):
        return reason
    return selection.too_small(value.numel())


def _packed(model: nn.Module) -> list[Skipped]:
    """Name quantised modules, whose weights are no longer parameters."""
    return [
        Skipped(name, "quantised: its weights are packed integers")
        for name, module in model.named_modules()
        if hasattr(module, "_packed_params")
    ]


def sample(value: Tensor) -> Float[Tensor, " values"]:
    """Copy at most 4096 of a weight's values, always the same places; all if it is smaller.

    ‖w − w₀‖/‖w₀‖ over 4096 values has a standard error of about 1 % of itself, and is exactly zero
    where nothing moved.  Of a sharded weight, rank 0 samples its own shard and the other ranks
    nothing.  At another number of ranks the shard has another size, so the samples of a run that is
    resumed there cannot be compared (see `relative_distance`).
    """
    source = sample_source(value)
    limit = -(-_SAMPLE * source.numel() // max(1, value.numel()))
    return subsample(source, limit).reshape(-1).to(torch.float32, copy=True)


def relative_distance(
    now: Float[Tensor, " values"], first: Float[Tensor, " values"] | None
) -> Float[Tensor, ""]:
    """Return ‖now − first‖/‖first‖; nan if `first` is unknown, of another size, or zero."""
    if first is None or first.shape != now.shape:
        return now.new_full((), torch.nan)
    first = first.to(now.device)
    norm = first.norm()
    return torch.where(norm > 0, (now - first).norm() / norm, torch.nan)
