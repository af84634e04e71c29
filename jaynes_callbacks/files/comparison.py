"""Two checkpoints of one network: what became of each weight."""

from collections.abc import Sequence
from typing import NamedTuple

from jaynes_callbacks.counts.counting import subsample
from jaynes_callbacks.files import CheckpointError, Entry
from jaynes_callbacks.files.pairing import pair_names
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.verdict import verdict
from jaynes_callbacks.watch.parameters import relative_distance

__all__ = ["Comparison", "Pair", "compare"]

#: Values of each weight whose distance is taken, as a training run does.
_SAMPLE = 4096


class Pair(NamedTuple):
    """One weight before and after; the later record has `moved` and `verdict`."""

    before: Record
    after: Record


class Comparison(NamedTuple):
    """Every weight that both checkpoints have, and the names that only one of them has."""

    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def compare(
    before: Sequence[Record],
    after: Sequence[Record],
    entries: tuple[Sequence[Entry], Sequence[Entry]],
) -> Comparison:
    """Pair the weights of two checkpoints, and judge each by the rule of a training run.

    `moved` is ‖w − w₀‖/‖w₀‖ over 4096 evenly spread values, to about 1 % of itself.

    Args:
        before: records of the earlier checkpoint.
        after: of the later one.
        entries: the tensors of both, for their distance.
    """
    names = pair_names(
        {record.name: record.shape for record in before},
        {record.name: record.shape for record in after},
    )
    later = {record.name: record for record in after}
    tensors = tuple({entry.name: entry for entry in each} for each in entries)
    pairs = []
    for record in before:
        if record.name in names:
            other = later[names[record.name]]
            moved = _moved(tensors[0][record.name], tensors[1][other.name])
            judged = other.replace(moved=moved, verdict=verdict(record, other))
            pairs.append(Pair(record, judged))
    return Comparison(
        tuple(pairs),
        tuple(record.name for record in before if record.name not in names),
        tuple(name for name in later if name not in names.values()),
    )


def _moved(before: Entry, after: Entry) -> float:
    try:
        first, now = (subsample(entry.load(), _SAMPLE).float() for entry in (before, after))
    except CheckpointError:
        return float("nan")
    return float(relative_distance(now.reshape(-1), first.reshape(-1)))
