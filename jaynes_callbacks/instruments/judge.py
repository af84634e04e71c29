"""Judge a run's records as they come, each against the first of its stream."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaynes_callbacks.instruments.laws import objects
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.instruments.verdict import verdict, verdict_2

__all__ = ["Judge", "judged"]

Key = tuple[str, str]


class Judge:
    """Passes verdicts on records in the order of their steps.

    Args:
        start: first record of each stream, by its key; streams without one start with the first
            record that is judged.
        recent: gaps of each stream's last two records after its first.
    """

    def __init__(
        self, start: Mapping[Key, Record], recent: Mapping[Key, Sequence[float]] | None = None
    ) -> None:
        self.start = dict(start)
        self.recent = {key: list(gaps) for key, gaps in (recent or {}).items()}

    def judged(self, moments: Sequence[Records]) -> list[Records]:
        """Return the records with what follows from a comparison with their streams' first."""
        return [self._judged(records) for records in moments]

    def _judged(self, records: Records) -> Records:
        rows = list(records)
        if not rows:
            return records
        # A stream's first record is its start: there is nothing yet to judge.
        starts = [self.start.get(row.key) for row in rows]
        pairs = list(zip(starts, rows, strict=True))
        self.start = {**{row.key: row for row in rows}, **self.start}
        return records.replaced(
            gap_closed=np.array([_closed(start, row) for start, row in pairs]),
            start_step=np.array([self.start[row.key].step for row in rows]),
            verdict=objects([verdict(start, row) if start else "" for start, row in pairs]),
            verdict_2=objects([self._second(start, row) if start else "" for start, row in pairs]),
        )

    def _second(self, start: Record, row: Record) -> str:
        gaps = self.recent.get(row.key, [])
        self.recent[row.key] = [*gaps, row.gap][-2:]
        return verdict_2(start, row, gaps)


def _closed(start: Record | None, row: Record) -> float:
    """Return the share of the gap at the start that has closed."""
    return 1 - row.gap / start.gap if start is not None and start.gap > 0 else math.nan


def judged(start: Record, end: Record) -> Record:
    """Return one record with what follows from a comparison with an earlier one."""
    (found,) = Judge({end.key: start}).judged([Records([end])])[0]
    return found
