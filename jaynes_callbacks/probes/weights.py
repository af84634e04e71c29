"""The weights of a model under watch: their values at a record, and how far they have moved."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from jaynes_callbacks.probes.parameters import (
    CurrentValues,
    WeightFinder,
    WeightStream,
    relative_distance,
    sample,
)
from jaynes_callbacks.probes.selection import Selection, Skipped
from jaynes_callbacks.records.stream import WEIGHT, Stream

__all__ = ["WeightValue", "WeightWatch"]


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

    A weight that a module computes from parameters is computed once for each reading, and let go
    with what was read.

    Args:
        model: any module.
        selection: which weights to watch; none if their kind is not in it.

    Attributes:
        skipped: what is not watched, with the reasons.
        first: `sample` of each weight's first state, by the stream's name.
    """

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        self.skipped: list[Skipped] = []
        self.first: dict[str, Tensor] = {}
        self._selection = selection
        self._finder = WeightFinder(model, selection)
        self._weights: list[WeightStream] = []
        self._resumed = False

    @property
    def streams(self) -> list[Stream]:
        """The weights that were found last."""
        return [weight.stream for weight in self._weights]

    @property
    def sharded(self) -> list[Stream]:
        """Those of them of which ranks hold parts, on every rank in the same order."""
        return [weight.stream for weight in self._weights if weight.sharded]

    def find(self) -> None:
        """Find the weights, and remember the first state of those that are new."""
        self._find(CurrentValues())

    def begin(self) -> None:
        """Take the weights as they are now for their first state."""
        self.first = {}

    def resume(self, first: Mapping[str, Tensor]) -> None:
        """Go on from a first state of which no more is known than this."""
        self.first, self._resumed = dict(first), True

    def read(self) -> Sequence[WeightValue]:
        """Return every weight as it is now; nothing is said to other ranks, nor waited for."""
        now = CurrentValues()
        self._find(now)
        return [
            WeightValue(
                weight.stream,
                now.counted_of(weight),
                weight.sharded,
                relative_distance(sample(now.of(weight.value)), self.first.get(weight.stream.name)),
                now.place_of(weight),
            )
            for weight in self._weights
        ]

    def _find(self, now: CurrentValues) -> None:
        """Find the weights anew: they may be made late (lazy), or be exchanged."""
        if WEIGHT not in self._selection.kinds:
            return
        shards = {weight.stream.name: weight for weight in self._weights if weight.sharded}
        found, self.skipped = self._finder.find(now)
        # After a forward without backward FSDP2 may leave gathered copies in the place of shards.
        self._weights = [
            weight if weight.sharded else shards.get(weight.stream.name, weight) for weight in found
        ]
        if not self._resumed:
            new = [weight for weight in self._weights if weight.stream.name not in self.first]
            self.first |= {weight.stream.name: sample(now.of(weight.value)) for weight in new}
