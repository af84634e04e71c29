"""Tallies: what was counted of some streams at one moment, all that the statistics see."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.counting import count, count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.base import Quantity, Slot, State
from jaynes_callbacks.instruments.change import GapChanges
from jaynes_callbacks.probes.weights import WeightValue
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.statistics import (
    Influence,
    influences,
    jackknife_standard_error,
    standard_errors_of,
)

__all__ = [
    "PAPER_BINS",
    "QUANTITIES",
    "Tally",
    "checked_bins",
    "counts_state",
    "quantities",
    "tally_of_counts",
    "tally_of_groups",
    "tally_of_state",
    "tally_of_tensors",
    "weights_state",
]

#: Equal bins of the paper's protocol for weights; the paper does not state its own.
PAPER_BINS = 100
_MOST_BINS = 10_000

#: What is collected of distributions: counts that add over ranks, and what only a rank that has all
#: values can tell of them.
QUANTITIES: Mapping[str, Quantity] = {
    "counts": Quantity((CODES,), torch.int64),
    "maximum": Quantity(reduction=None),
    "linear": Quantity((PAPER_BINS,), torch.int64, None),
    "errors": Quantity(reduction=None),
    "change_errors": Quantity(reduction=None),
    "exact": Quantity(dtype=torch.bool, reduction=None),
    "moved": Quantity(reduction=None),
}


class Tally(NamedTuple):
    """Counts of some streams, and what cannot be computed from the counts.

    Attributes:
        counts: magnitudes on the universal grid.
        maximum: largest finite magnitude of streams that are `exact`.
        linear: the paper's own equal bins on [0, maximum] of streams that are `exact`.
        errors: cluster-robust standard error of the lognormal's gap, nan where there is none.
        change_errors: the same of the gap's change since the stream's first record.
        exact: whether the values themselves were seen; of activations, and of weights that are
            spread over ranks, only the counts are known.
    """

    counts: Int64[Tensor, "streams 4096"]
    maximum: Float64[Tensor, " streams"]
    linear: Int64[Tensor, "streams bins"]
    errors: Float64[Tensor, " streams"]
    change_errors: Float64[Tensor, " streams"]
    exact: Bool[Tensor, " streams"]

    def joined(self, other: "Tally") -> "Tally":
        """Concatenate the streams, on this tally's device, or the other's if this one is empty."""
        device = (self if len(self.counts) else other).counts.device
        pairs = zip(self, other, strict=True)
        return Tally(*(torch.cat([ours.to(device), theirs.to(device)]) for ours, theirs in pairs))


def tally_of_tensors(tensors: Sequence[Tensor], bins: int = PAPER_BINS) -> Tally:
    """Count every tensor as it is now, on the first one's device.

    Args:
        tensors: real floating-point tensors; the rows and columns of each are clusters.  Each is
            taken from the sequence once, since a sequence may compute it on access, and kept until
            the end.
        bins: number of the paper's equal bins.
    """
    return _with_influences(tensors, bins)[0]


def _with_influences(tensors: Sequence[Tensor], bins: int) -> tuple[Tally, list[Influence | None]]:
    """Count every tensor, and return what its rows and columns do to its gap beside the tally."""
    taken = list(tensors)
    device = taken[0].device if taken else torch.device("cpu")
    tally = tally_of_counts(torch.zeros(len(taken), CODES, dtype=torch.int64, device=device), bins)
    for row, tensor in enumerate(taken):
        tally.counts[row], tally.maximum[row], tally.linear[row] = count(tensor, bins)
    found = influences(taken, tally.counts)
    tally.errors.copy_(standard_errors_of(found, device))
    return tally._replace(exact=torch.ones_like(tally.exact)), found


def tally_of_counts(counts: Int64[Tensor, "streams 4096"], bins: int = PAPER_BINS) -> Tally:
    """Make a tally of streams of which nothing but the counts is known.

    Args:
        counts: on the universal grid.
        bins: number of the paper's equal bins for weights.
    """
    unknown = torch.full((len(counts),), torch.nan, dtype=torch.float64, device=counts.device)
    linear = counts.new_zeros(len(counts), bins)
    seen = torch.zeros(len(counts), dtype=torch.bool, device=counts.device)
    return Tally(counts, unknown, linear, unknown.clone(), unknown.clone(), seen)


def tally_of_groups(groups: Int64[Tensor, "streams groups 4096"], bins: int = PAPER_BINS) -> Tally:
    """Make a tally of streams counted in groups of samples, whose spread gives the gap's error."""
    tally = tally_of_counts(groups.sum(1), bins)
    if groups.shape[1] < 2:
        return tally
    return tally._replace(errors=jackknife_standard_error(groups.transpose(0, 1)))


# States -------------------------------------------------------------------------------------


def checked_bins(bins: int, name: str = "paper_bins") -> int:
    """Return the number of the paper's equal bins, if there can be so many.

    Raises:
        ValueError: if it is no integer from 4 to 10,000; a curve of three parameters needs four.
    """
    if not isinstance(bins, int) or not 4 <= bins <= _MOST_BINS:
        raise ValueError(f"{name} must be an integer from 4 to {_MOST_BINS:,}, got {bins!r}")
    return bins


def quantities(bins: int = PAPER_BINS) -> Mapping[str, Quantity]:
    """Return `QUANTITIES` for another number of the paper's equal bins."""
    return {**QUANTITIES, "linear": Quantity((bins,), torch.int64, None)}


def weights_state(
    weights: Sequence[WeightValue],
    device: torch.device,
    changes: GapChanges | None = None,
    bins: int = PAPER_BINS,
) -> State:
    """Count weights: of those that this rank has whole everything, of the others their share.

    Args:
        weights: as they are now.
        device: where the state is kept.
        changes: what is known of the first records; None where records are not compared.
        bins: number of the paper's equal bins.
    """
    whole = [weight for weight in weights if not weight.sharded]
    parts = [weight for weight in weights if weight.sharded]
    tally, found = _with_influences([weight.values for weight in whole], bins)
    if changes is not None:
        streams = [weight.stream for weight in whole]
        errors = changes.errors(streams, found, tally.errors.device)
        tally = tally._replace(change_errors=errors)
    counts = _counts([weight.values for weight in parts], device)
    shares = _state(parts, tally_of_counts(counts, bins), device)
    return _state(whole, tally, device).joined(shares)


def counts_state(
    streams: Sequence[Stream],
    grouped: Int64[Tensor, "streams groups 4096"],
    numbers: Sequence[int],
    bins: int = PAPER_BINS,
) -> State:
    """Return the state of streams of which only counts are known, in groups of samples.

    Args:
        streams: that were counted.
        grouped: their counts by groups of samples.
        numbers: of each stream's groups, which stand first.
        bins: number of the paper's equal bins of the weights that this state is joined with.
    """
    places = [(row, group) for row, number in enumerate(numbers) for group in range(number)]
    slots = [Slot(streams[row], group) for row, group in places]
    tally = tally_of_counts(
        grouped.flatten(0, 1)[[row * grouped.shape[1] + group for row, group in places]], bins
    )
    tensors = {**tally._asdict(), "moved": torch.full_like(tally.errors, torch.nan)}
    return State(slots, tensors, [True] * len(slots))


def tally_of_state(state: State) -> tuple[list[Stream], Tally, list[float]]:
    """Return the streams of which anything was counted, their tally, and how far each has moved.

    A stream that was counted in groups of samples has the jackknife's standard error.
    """
    rows: dict[Stream, list[int]] = {}
    counted = (state["counts"].sum(-1) > 0).tolist()
    for row, slot in enumerate(state.slots):
        rows.setdefault(slot.stream, []).append(row)
    seen = [stream for stream in rows if any(counted[row] for row in rows[stream])]
    alone = [rows[stream][0] for stream in seen if len(rows[stream]) == 1]
    tally = Tally(*(state[name][alone] for name in Tally._fields))
    grouped = [stream for stream in seen if len(rows[stream]) > 1]
    if grouped:
        counts = torch.stack([state["counts"][rows[stream]] for stream in grouped])
        tally = tally.joined(tally_of_groups(counts, tally.linear.shape[1]))
    joined = [stream for stream in seen if len(rows[stream]) == 1] + grouped
    # Back in the network's order.
    place = {stream: row for row, stream in enumerate(joined)}
    order = [place[stream] for stream in seen]
    moved = state["moved"].tolist()
    return (
        seen,
        Tally(*(values[order] for values in tally)),
        [moved[rows[stream][0]] for stream in seen],
    )


def _state(weights: Sequence[WeightValue], tally: Tally, device: torch.device) -> State:
    moved = [weight.moved.to(device, torch.float64) for weight in weights]
    return State(
        [Slot(weight.stream) for weight in weights],
        {
            **{name: each.to(device) for name, each in tally._asdict().items()},
            "moved": torch.stack(moved) if moved else torch.zeros(0, dtype=torch.float64),
        },
        [weight.sharded for weight in weights],
    )


def _counts(tensors: Sequence[Tensor], device: torch.device) -> Int64[Tensor, "streams 4096"]:
    """Count magnitudes alone."""
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64, device=device)
    for row, tensor in enumerate(tensors):
        count_(tensor, counts, row)
    return counts
