"""The verdict on emergence: its rule was fixed before any experiment was run.

A stream's last record is compared with its first, which has no verdict of its own:

1. *emerged*: gap(end) < 0.02, below the gap of every rival family, and below gap(start) by more
   than twice the standard error of the difference;
2. *present from the start*: gap(start) < 0.02 already;
3. *approaching*: the gap fell by more than twice that standard error, but 1 does not hold;
4. *not emerging*: otherwise.

A start that was already near is *present from the start* whatever followed: training cannot be
given credit for it.  Where a gap is nan the verdict is *undetermined*, with the record's status; so
it is of fewer than a thousand values, for the gap of n values is biased upward by about 20/n, there
as much as the limit itself.
"""

import math

from jaynes_callbacks.instruments.record import NEAR, Record
from jaynes_callbacks.statistics import RIVALS

__all__ = ["FEWEST_VALUES", "VERDICTS", "rival_gaps", "verdict"]

#: All that `verdict` can answer, best first.
VERDICTS = ("emerged", "present from the start", "approaching", "not emerging", "undetermined")
#: Of fewer values no verdict is passed.
FEWEST_VALUES = 1000


def verdict(start: Record, end: Record) -> str:
    """Judge one stream by the rule above.

    >>> start = Record(n=50_000, gap=0.163, gap_se=0.001)
    >>> end = Record(n=50_000, gap=0.091, gap_se=0.001, rival_gaps={"exponential": 0.0})
    >>> verdict(start, end)
    'approaching'
    """
    if math.isnan(start.gap) or math.isnan(end.gap) or min(start.n, end.n) < FEWEST_VALUES:
        return "undetermined"
    if start.gap < NEAR:
        return "present from the start"
    if not _fell(start, end):
        return "not emerging"
    nearest = end.gap < min(rival_gaps(end).values(), default=math.inf)
    return "emerged" if end.gap < NEAR and nearest else "approaching"


def rival_gaps(record: Record) -> dict[str, float]:
    """Return the finite gaps of the rivals: families that do not contain the lognormal.

    A family that contains it fits at least as well, and says so by its own parameter (q).
    """
    gaps = {family.name: record.rival_gaps.get(family.name, math.nan) for family in RIVALS}
    return {name: gap for name, gap in gaps.items() if math.isfinite(gap)}


def _fell(start: Record, end: Record) -> bool:
    """Tell whether the gap fell by more than twice the standard error of the fall."""
    errors = [0.0 if math.isnan(record.gap_se) else record.gap_se for record in (start, end)]
    return start.gap - end.gap > 2 * math.hypot(*errors)
