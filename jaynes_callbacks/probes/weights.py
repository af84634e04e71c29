"""The weights of a model under watch: their values at a record, and how far they have moved."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from jaynes_callbacks.probes.parameters import (
    CurrentValues,
    WeightFinder,
    WeightStream,
    reason_of_failure,
    relative_distance,
    sample,
)
from jaynes_callbacks.probes.selection import Selection, Skipped
from jaynes_callbacks.records.stream import WEIGHT, Stream

__all__ = ["WeightValue", "WeightWatch"]

_Result = TypeVar("_Result")


class WeightValue(NamedTuple):
    """A weight at one moment.

    Attributes:
        stream: which.
        values: what this rank has of it: all, or of a sharded weight what it alone counts.
        sharded: whether ranks hold parts of it.
        moved: ‖w − w₀‖/‖w₀‖ since the first state, nan where that is unknown.
        place: where `values` begin in the weight, along each dimension; () where nobody asked.
    """

    stream: Stream
    values: Tensor
    sharded: bool
    moved: Float[Tensor, ""]
    place: tuple[int, ...] = ()


class WeightWatch:
    """Finds and reads the weights of a model, and remembers a sample of their first state.

    A weight that a module computes from parameters is computed once for each reading (or once for
    all that read it in a block of `one_moment`), and let go with what was read.  One that cannot be
    read is left out of that record: a warning says so once, and the reason stands among the skipped
    ones.

    Args:
        model: any module.
        selection: which weights to watch; none if their kind is not in it.

    Attributes:
        first: `sample` of each weight's first state, by the stream's name.
    """

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        self.first: dict[str, Tensor] = {}
        self._selection = selection
        self._finder = WeightFinder(model, selection)
        self._weights: list[WeightStream] = []
        self._skipped: list[Skipped] = []
        self._failed: dict[str, str] = {}
        self._resumed = False

    @property
    def skipped(self) -> list[Skipped]:
        """What is not watched, with the reasons."""
        return [*self._skipped, *map(Skipped, self._failed, self._failed.values())]

    @property
    def streams(self) -> list[Stream]:
        """The weights that were found last."""
        weights = (weight.stream for weight in self._weights)
        return [stream for stream in weights if stream.name not in self._failed]

    @property
    def sharded(self) -> list[Stream]:
        """Those of them of which ranks hold parts, on every rank in the same order."""
        return [weight.stream for weight in self._weights if weight.sharded]

    def find(self) -> None:
        """Find the weights, and remember the first state of those that are new."""
        self._find(CurrentValues.now())

    def begin(self) -> None:
        """Take the weights as they are now for their first state."""
        self.first = {}

    def resume(self, first: Mapping[str, Tensor]) -> None:
        """Go on from a first state of which no more is known than this."""
        self.first, self._resumed = dict(first), True

    def read(self) -> Sequence[WeightValue]:
        """Return every weight as it is now; nothing is said to other ranks, nor waited for."""
        now = CurrentValues.now()
        self._find(now)
        read = [
            self._spare(weight, now, lambda each: self._read(each, now)) for weight in self._weights
        ]
        return [value for value in read if value is not None]

    def _read(self, weight: WeightStream, now: CurrentValues) -> WeightValue:
        return WeightValue(
            weight.stream,
            now.counted_of(weight),
            weight.sharded,
            relative_distance(sample(now.of(weight.value)), self.first.get(weight.stream.name)),
            now.place_of(weight),
        )

    def _spare(
        self, weight: WeightStream, now: CurrentValues, act: Callable[[WeightStream], _Result]
    ) -> _Result | None:
        """Return what `act` makes of a weight; None, with the reason noted, if it fails.

        Raises:
            Exception: of a weight in parts, of which other ranks have theirs.
        """
        name = weight.stream.name
        try:
            result = act(weight)
            self._failed.pop(name, None)
            return result
        except Exception as error:
            if weight.sharded:
                raise
            if name not in self._failed:
                now.say_lost(name, reason_of_failure(error))
            self._failed[name] = reason_of_failure(error)
            return None

    def _find(self, now: CurrentValues) -> None:
        """Find the weights anew: they may be made late (lazy), or be exchanged."""
        if WEIGHT not in self._selection.kinds:
            return
        shards = {weight.stream.name: weight for weight in self._weights if weight.sharded}
        found, self._skipped = self._finder.find(now)
        # After a forward without backward FSDP2 may leave gathered copies in the place of shards.
        self._weights = [
            weight if weight.sharded else shards.get(weight.stream.name, weight) for weight in found
        ]
        if not self._resumed:
            new = [weight for weight in self._weights if weight.stream.name not in self.first]
            for weight in new:
                value = self._spare(weight, now, lambda each: sample(now.of(each.value)))
                if value is not None:
                    self.first[weight.stream.name] = value
