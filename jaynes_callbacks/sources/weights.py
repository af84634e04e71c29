"""The weights of a model at one moment: their counts on this rank, and how far they have moved."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jaynes_callbacks.record import Stream
from jaynes_callbacks.sources.parameters import Values, WeightStream, relative_distance, sample
from jaynes_callbacks.sources.ranks import Counted
from jaynes_callbacks.tally import Tally, counts_of_tensors, tally_of_tensors

__all__ = ["Weighed", "weigh"]


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


def weigh(weights: Sequence[WeightStream], first: Mapping[str, Tensor]) -> Weighed:
    """Count weights as they are now, without a word to other ranks.

    Args:
        weights: what to count.
        first: `sample` of each in its first state, by the stream's name.
    """
    whole = [weight for weight in weights if not weight.sharded]
    sharded = [weight for weight in weights if weight.sharded]
    return Weighed(
        [weight.stream for weight in whole],
        tally_of_tensors(Values(whole)),
        Counted([weight.stream for weight in sharded], counts_of_tensors(Values(sharded))),
        _moved(weights, first),
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
