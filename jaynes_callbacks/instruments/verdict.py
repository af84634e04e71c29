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

That is version 1.  Version 2 stands beside it, never in its place: the generalized normal is a
rival too; the gap at the end is the median of the last three records after the first; a fall of
less than 0.003 is none; and the verdict is *undetermined* where any figure is missing, and of
values that lie on a coarse grid (int8, int4) or were cut off at a smallest size (pruning by
magnitude), of which no smooth law is true.

Neither knows the scales of rows and columns, which bring untrained Gaussian weights near a
lognormal; `in_words` says with a verdict what is left without them.
"""

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from jaynes_callbacks.counts.grid import FIRST_POSITIVE
from jaynes_callbacks.counts.two_way import Layout
from jaynes_callbacks.instruments.laws import family_label
from jaynes_callbacks.instruments.record import NEAR, Record, law_text, verdict_text
from jaynes_callbacks.instruments.scale_row import share_text
from jaynes_callbacks.records.text import number_text
from jaynes_callbacks.statistics import LOGNORMAL, RIVALS, RIVALS_2, Family

__all__ = [
    "FEWEST_VALUES",
    "VERDICTS",
    "in_words",
    "is_cut_off",
    "is_on_grid",
    "rival_gaps",
    "verdict",
    "verdict_2",
]

#: All that a verdict can be, best first.
VERDICTS = ("emerged", "present from the start", "approaching", "not emerging", "undetermined")
#: Of fewer values no verdict is passed.
FEWEST_VALUES = 1000
#: The least fall of a gap that version 2 calls one, in nats.
LEAST_FALL = 0.003
#: Records whose median gap is the end's in version 2.
_LAST = 3
#: A core whose gap is as near as this to that of Gaussian weights is called Gaussian.
_AS_GAUSSIAN = 0.005


def verdict(start: Record, end: Record) -> str:
    """Judge one stream by version 1 of the rule.

    >>> start = Record(n=50_000, gap=0.163, gap_se=0.001)
    >>> end = Record(n=50_000, gap=0.091, gap_se=0.001, rival_gaps={"exponential": 0.0})
    >>> verdict(start, end)
    'approaching'
    """
    if math.isnan(start.gap) or math.isnan(end.gap) or min(start.n, end.n) < FEWEST_VALUES:
        return "undetermined"
    if start.gap < NEAR:
        return "present from the start"
    if not start.gap - end.gap > 2 * _error_of_sum(start, end):
        return "not emerging"
    nearest = end.gap < min(rival_gaps(end).values(), default=math.inf)
    return "emerged" if end.gap < NEAR and nearest else "approaching"


def verdict_2(start: Record, end: Record, before: Sequence[float] = ()) -> str:
    """Judge one stream by version 2 of the rule.

    Args:
        start: first record of the stream.
        end: last record.
        before: gaps of the stream's records between these two, the latest last; nan of a record
            without one, which takes no part in the median.
    """
    last = [gap for gap in [*before, end.gap][-_LAST:] if not math.isnan(gap)]
    gap = math.nan if math.isnan(end.gap) else median(last)
    rivals = [end.rival_gaps.get(family.name, math.nan) for family in RIVALS_2]
    figures = (start.gap, start.gap_se, gap, end.gap_se, *rivals)
    if any(map(math.isnan, figures)) or min(start.n, end.n) < FEWEST_VALUES:
        return "undetermined"
    if is_on_grid(end) or is_cut_off(end):
        return "undetermined"
    if start.gap < NEAR:
        return "present from the start"
    error = _error_of_sum(start, end) if math.isnan(end.gap_change_se) else end.gap_change_se
    if not start.gap - gap > max(LEAST_FALL, 2 * error):
        return "not emerging"
    return "emerged" if gap < NEAR and gap < min(rivals) else "approaching"


def rival_gaps(record: Record, rivals: Sequence[Family] = RIVALS) -> dict[str, float]:
    """Return the finite gaps of the rivals: families that do not contain the lognormal.

    A family that contains it fits at least as well, and says so by its own parameter (q).
    """
    gaps = {family.name: record.rival_gaps.get(family.name, math.nan) for family in rivals}
    return {name: gap for name, gap in gaps.items() if math.isfinite(gap)}


def is_on_grid(record: Record) -> bool:
    """Tell whether values lie on so coarse a grid that bins amid the bulk are empty.

    So they do where whole numbers of 4 or 8 bits are multiplied by one scale.  Of a smooth law with
    fifty values a bin on average no bin between the quantiles of 5 and 95 % stays empty.
    """
    positive = record.codes >= FIRST_POSITIVE
    codes, shares = record.codes[positive], record.counts[positive].cumsum() / max(1, record.n)
    bulk = codes[(shares > 0.05) & (shares < 0.95)]
    if len(bulk) < 2:
        return len(codes) > 0 and record.n >= FEWEST_VALUES
    width = int(bulk[-1] - bulk[0]) + 1
    return record.n >= 50 * width and len(bulk) < 0.9 * width


def is_cut_off(record: Record) -> bool:
    """Tell whether the smallest values were set to zero: the law begins with a full bin.

    So it does after pruning by magnitude.  Of a smooth law the lowest occupied bin has few values.
    """
    if not len(record.counts) or record.zeros < 0.05 * (record.zeros + record.n):
        return False
    positive = record.counts[record.codes >= FIRST_POSITIVE]
    # The cut may lie within a bin, which is then as good as empty.
    lowest = int(positive[:2].max(initial=0))
    return lowest >= 20 and lowest >= 0.05 * int(positive.max(initial=0))


def in_words(record: Record) -> str:
    """Say a verdict with all that belongs to it; nothing where no verdict was passed.

    Whether it is by scale, and what law the core has; the law that is approached, and how near it
    is; how much of the gap closed; whether all but the smallest values are lognormal; since which
    step.

    >>> in_words(Record(verdict="emerged", gap=0.003, best_family="lognormal", gap_closed=0.98,
    ...     scale_share=0.81, core_gap=0.161, core_gap_gaussian=0.163, core_gap_se=0.001))
    'emerged by scale: 81 % of the spread of ln|w| is rows and columns; the core is Gaussian \
(0.161, Gaussian 0.163); 98 % of the gap closed'
    """
    if not record.verdict:
        return ""
    head = verdict_text(record)
    said = [*_approached(record), *_core(record)]
    if record.verdict in ("emerged", "approaching") and math.isfinite(record.gap_closed):
        said.append(f"{100 * record.gap_closed:.0f} % of the gap closed")
    if record.gap_censored < record.gap / 5 and record.gap >= LEAST_FALL:
        said.append("lognormal but for the smallest 5 %")
    if record.start_step:
        said.append(f"since step {record.start_step}")
    return f"{head}: {'; '.join(said)}" if said else head


def _approached(record: Record) -> list[str]:
    """Name the law that a stream approaches, where it is not the lognormal."""
    # Version 0.1 compared fewer laws.
    law = record.best_family_2 or record.best_family
    if record.verdict != "approaching" or law in ("", LOGNORMAL.name):
        return []
    gap = record.rival_gaps.get(law, math.nan)
    return [f"nearest law {law_text(record, law)} ({number_text(gap, 3)})"]


def _core(record: Record) -> list[str]:
    if math.isnan(record.core_gap):
        return []
    own, gaussian = (number_text(each, 3) for each in (record.core_gap, record.core_gap_gaussian))
    return [
        *_scales(record),
        f"the core is {_law_of_core(record)} ({own}, Gaussian {gaussian})",
    ]


def _scales(record: Record) -> list[str]:
    """Say how much of the spread is scales, and which scales could not be told."""
    layout = Layout.of(record.shape) if len(record.shape) >= 2 else None
    told = {
        "rows": layout is None or layout.centres_rows,
        "columns": layout is None or layout.centres_columns,
    }
    known = [name for name, centred in told.items() if centred]
    said = []
    if known and math.isfinite(record.scale_share):
        said.append(f"{share_text(record)} of the spread of ln|w| is {' and '.join(known)}")
    said += [f"{name} are too short to tell their scales" for name in told if name not in known]
    return said


def _law_of_core(record: Record) -> str:
    error = np.nan_to_num(record.core_gap_se)
    if abs(record.core_gap - record.core_gap_gaussian) < max(_AS_GAUSSIAN, 2 * error):
        return "Gaussian"
    return family_label(record.core_best_family) or "of no known law"


def _error_of_sum(start: Record, end: Record) -> float:
    """Return the standard error of the difference of two independent gaps."""
    return math.hypot(*(np.nan_to_num(record.gap_se) for record in (start, end)))
