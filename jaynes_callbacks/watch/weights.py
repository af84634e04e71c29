"""The weights of a model under watch: their counts on this rank, and how far they have moved."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jaynes_callbacks.instruments.record import Stream
from jaynes_callbacks.instruments.tally import Tally, counts_of_tensors, tally_of_tensors
from jaynes_callbacks.watch.parameters import (
    Values,
    WeightStream,
    find_weights,
    relative_distance,
    sample,
)
from jaynes_callbacks.watch.ranks import Counted
from jaynes_callbacks.watch.selection import Selection, Skipped

__all__ = ["Weighed", "WeightWatch"]


class Weighed(NamedTuple):
    """Weights at one moment.

    Attributes:
        streams: those that this rank holds the whole of.
        tally: of these.
        shares: the others, of which the ranks hold parts, with what this rank counts of them.
        moved: ‖w − w₀‖/‖w₀‖ by the stream's name.
    """

    streams: list[Stream]
    tally: Tally
    shares: Counted
    moved: dict[str, float]


class WeightWatch:
    """Finds and counts the weights of a model, and remembers a sample of their first state.

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
        self._model, self._selection = model, selection
        self._weights: list[WeightStream] = []
        self._held: Weighed | None = None
        self._resumed = False

    @property
    def streams(self) -> list[Stream]:
        """The weights that were found last."""
        return [weight.stream for weight in self._weights]

    def find(self) -> None:
        """Anew for every record: weights may be made late (lazy), or be exchanged."""
        if "weight" not in self._selection.kinds:
            return
        shards = {weight.stream.name: weight for weight in self._weights if weight.sharded}
        found, self.skipped = find_weights(self._model, self._selection)
        # FSDP2 may leave gathered copies in the place of shards, after a forward without backward.
        self._weights = [
            weight if weight.sharded else shards.get(weight.stream.name, weight) for weight in found
        ]
        if not self._resumed:
            new = [weight for weight in self._weights if weight.stream.name not in self.first]
            self.first |= {weight.stream.name: sample(weight) for weight in new}

    def begin(self) -> None:
        """Take the weights as they are now for the start, and for what is weighed next."""
        self.first = {}
        self._held = self._weigh()

    def resume(self, first: Mapping[str, Tensor]) -> None:
        """Go on from a first state of which no more is known than this."""
        self.first, self._resumed = dict(first), True

    def weigh(self) -> Weighed:
        """The weights as they are, or once those of `begin`; without a word to other ranks."""
        weighed, self._held = self._held or self._weigh(), None
        return weighed

    def _weigh(self) -> Weighed:
        self.find()
        whole = [weight for weight in self._weights if not weight.sharded]
        sharded = [weight for weight in self._weights if weight.sharded]
        return Weighed(
            [weight.stream for weight in whole],
            tally_of_tensors(Values(whole)),
            Counted(
                [weight.stream for weight in sharded], counts_of_tensors(Values(sharded))[:, None]
            ),
            _moved(self._weights, self.first),
        )


def _moved(weights: Sequence[WeightStream], first: Mapping[str, Tensor]) -> dict[str, float]:
    """One copy to the host for all; nan where the first state is unknown."""
    if not weights:
        return {}
    names = [weight.stream.name for weight in weights]
    ratios = [
        relative_distance(sample(weight), first.get(name))
        for name, weight in zip(names, weights, strict=True)
    ]
    on_one_device = torch.stack([ratio.to(ratios[0].device) for ratio in ratios])
    return dict(zip(names, on_one_device.tolist(), strict=True))
