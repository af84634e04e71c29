"""The tables of `jaynes fit`: every weight, and the summary in the form of the paper's Table II.

Plain text, at most 100 columns wide.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean, median, stdev

from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.text import (
    align,
    count_text,
    number_text,
    paper_text,
    remarks,
    shortened,
    tilt_text,
)
from jaynes_callbacks.statistics import FEWEST_WEIGHTS

__all__ = ["is_eligible", "summary_table", "weight_table"]

_WIDTH = 100
#: Rows that are printed of a table of weights; of more, the first and the last.
_ROWS = 60
_WEIGHT_HEADINGS = ("weight", "role", "n", "gap", "best family", "q", "R² (Gauss)", "μ'", "σ'")
_SUMMARY_HEADINGS = ("role", "layers", "R²", "μ'", "σ'", "R² Gauss", "gap", "best families")
_NOTES = (
    f"layers: weights of at least {FEWEST_WEIGHTS:,} elements, as in the paper's Table II, of all "
    "measured;",
    "R², μ', σ': mean ± sd by the paper's protocol; R² Gauss: what Gaussian weights would score;",
    "gap: median nats to the best lognormal; Gaussian weights have 0.163, uniform ones 0.419.",
)
_UNFITTED = "no fit"


def is_eligible(record: Record) -> bool:
    """Whether the paper would have taken the weight in: it left out those below 36,864.

    >>> is_eligible(Record(shape=(192, 192))), is_eligible(Record(shape=(100, 100)))
    (True, False)
    """
    return math.prod(record.shape) >= FEWEST_WEIGHTS


def weight_table(records: Sequence[Record], roles: Sequence[str]) -> str:
    """One line for each weight, its role beside it; reasons of missing figures below."""
    rows = [_cells(record, role) for record, role in zip(records, roles, strict=True)]
    left_out = len(rows) - _ROWS
    if left_out > 0:
        rows = [*rows[: _ROWS // 2], *rows[-_ROWS // 2 :]]
    others = sum(
        max(map(len, column)) + 2 for column in list(zip(_WEIGHT_HEADINGS, *rows, strict=True))[1:]
    )
    rows = [(shortened(row[0], _WIDTH - others), *row[1:]) for row in rows]
    lines = align([_WEIGHT_HEADINGS, *rows], left=(0, 1, 4))
    if left_out > 0:
        lines.insert(1 + _ROWS // 2, f"… {left_out} more …")
    return "\n".join([*lines, *remarks(records)])


def summary_table(records: Sequence[Record], roles: Sequence[str], order: Iterable[str]) -> str:
    """One line for each role and one for all: the paper's figures, and what they hide.

    Args:
        records: of one checkpoint.
        roles: of each record.
        order: in which the roles are shown.
    """
    named = list(zip(records, roles, strict=True))
    groups = {role: [record for record, its in named if its == role] for role in order}
    groups = {role: group for role, group in groups.items() if group}
    if len(groups) > 1:
        groups["total"] = list(records)
    rows = [_summary(role, group) for role, group in groups.items()]
    lines = [shortened_line(line) for line in align([_SUMMARY_HEADINGS, *rows], left=(0, 7))]
    return "\n".join([*lines, *_NOTES])


def shortened_line(line: str) -> str:
    """The line, cut at the table's width."""
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _cells(record: Record, role: str) -> tuple[str, ...]:
    return (
        record.name,
        role,
        count_text(record.n),
        number_text(record.gap, 3),
        record.best_family,
        tilt_text(record.q),
        paper_text(record),
        number_text(record.paper_mu, 2),
        number_text(record.paper_sigma, 2),
    )


def _summary(role: str, records: Sequence[Record]) -> tuple[str, ...]:
    eligible = [record for record in records if is_eligible(record)]
    gaps = [record.gap for record in eligible if math.isfinite(record.gap)]
    return (
        role,
        f"{len(eligible)}/{len(records)}",
        _mean_and_spread([record.paper_r2 for record in eligible]),
        _mean_and_spread([record.paper_mu for record in eligible]),
        _mean_and_spread([record.paper_sigma for record in eligible]),
        _mean_and_spread([record.paper_r2_gaussian for record in eligible]),
        number_text(median(gaps), 3) if gaps else "–",
        _families(eligible),
    )


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of those that there are.

    >>> _mean_and_spread([0.96, 0.98, math.nan]), _mean_and_spread([0.5]), _mean_and_spread([])
    ('.97±.01', '.50', '–')
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "–"
    mean = _bare(fmean(finite))
    return f"{mean}±{_bare(stdev(finite))}" if len(finite) > 1 else mean


def _bare(value: float) -> str:
    """Two decimals without the leading zero, as the paper prints them."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _families(records: Iterable[Record]) -> str:
    """How often each family fits best, the most frequent first."""
    counts = Counter(record.best_family or _UNFITTED for record in records)
    return ", ".join(f"{family} {number}" for family, number in counts.most_common())
