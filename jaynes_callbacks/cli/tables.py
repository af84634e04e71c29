"""Print what `jaynes fit` and `jaynes compare` found as plain text, at most 100 columns wide."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaynes_callbacks.files.roles import RoleSummary, Spread, role, summarise_roles
from jaynes_callbacks.instruments.record import (
    Record,
    family_label,
    paper_text,
    remarks,
    tilt_text,
)
from jaynes_callbacks.records.text import (
    ROWS,
    SHORTEST_NAME,
    WIDTH,
    align,
    count_text,
    number_text,
    shortened,
)
from jaynes_callbacks.statistics import FEWEST_WEIGHTS

if TYPE_CHECKING:
    from jaynes_callbacks.api import Comparison, Pair

__all__ = ["comparison_table", "summary_table", "weight_table"]

_NONE = "–"
_UNFITTED = "no fit"

_WEIGHT_HEADINGS = (
    "weight", "role", "n", "gap ± se", "best family", "q", "R² (Gauss)", "μ'", "σ'",
)  # fmt: skip
_SUMMARY_HEADINGS = ("role", "layers", "R²", "μ'", "σ'", "R² Gauss", "gap", "best families")
_SUMMARY_NOTES = (
    f"layers: weights of at least {FEWEST_WEIGHTS:,} elements, as in the paper's Table II, of all "
    "measured;",
    "R², μ', σ': mean ± sd by the paper's protocol; R² Gauss: what Gaussian weights would score;",
    "gap: median nats to the best lognormal; Gaussian weights have 0.163, uniform ones 0.419.",
)
_PAIR_HEADINGS = ("weight", "n", "gap", "change", "best family", "q", "moved", "verdict")


def weight_table(records: Sequence[Record]) -> str:
    """Make a table with a line for each weight; reasons for missing figures follow below it."""
    rows = [_weight_cells(record) for record in records]
    notes = [shortened(line, WIDTH) for line in remarks(records)]
    return "\n".join([*_table(_WEIGHT_HEADINGS, rows, left=(0, 1, 4)), *notes])


def summary_table(records: Sequence[Record]) -> str:
    """Make a table in the form of the paper's Table II: a line for each role, and one for all."""
    rows = [_summary_cells(summary) for summary in summarise_roles(records)]
    lines = align([_SUMMARY_HEADINGS, *rows], left=(0, 7))
    return "\n".join([*map(_cut, lines), *_SUMMARY_NOTES])


def comparison_table(comparison: "Comparison") -> str:
    """Make a table with a line for each pair of weights; the totals follow below it."""
    rows = [_pair_cells(pair) for pair in comparison.pairs]
    table = _table(_PAIR_HEADINGS, rows, left=(0, 4, 7))
    return "\n".join([*table, "", *_totals(comparison)])


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]
) -> list[str]:
    """Align rows, leave out the middle of a long table, and shorten the first cell of each row.

    Args:
        headings: of the columns.
        rows: cells; the first is a name.
        left: numbers of the columns that are aligned to the left.
    """
    left_out = len(rows) - ROWS
    if left_out > 0:
        rows = [*rows[: ROWS // 2], *rows[-ROWS // 2 :]]
    others = list(zip(headings, *rows, strict=True))[1:]
    room = max(SHORTEST_NAME, WIDTH - sum(max(map(len, column)) + 2 for column in others))
    lines = align([headings, *((shortened(row[0], room), *row[1:]) for row in rows)], left=left)
    if left_out > 0:
        lines.insert(1 + ROWS // 2, f"… {left_out} more …")
    return lines


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _weight_cells(record: Record) -> tuple[str, ...]:
    return (
        record.name,
        role(record.name, record.shape),
        count_text(record.n),
        _gap_text(record),
        family_label(record.best_family),
        tilt_text(record.q),
        paper_text(record),
        number_text(record.paper_mu, 2),
        number_text(record.paper_sigma, 2),
    )


def _gap_text(record: Record) -> str:
    """Write the gap and its standard error.

    >>> _gap_text(Record(gap=0.163, gap_se=0.0036)), _gap_text(Record())
    ('0.163±.004', '–')
    """
    gap = number_text(record.gap, 3)
    if not math.isfinite(record.gap_se):
        return gap
    return f"{gap}±{number_text(record.gap_se, 3).removeprefix('0')}"


def _summary_cells(summary: RoleSummary) -> tuple[str, ...]:
    return (
        summary.role,
        f"{summary.eligible}/{summary.measured}",
        _spread_text(summary.r2),
        _spread_text(summary.mu),
        _spread_text(summary.sigma),
        _spread_text(summary.r2_gaussian),
        _NONE if summary.gap is None else number_text(summary.gap, 3),
        _families_text(summary.families),
    )


def _pair_cells(pair: "Pair") -> tuple[str, ...]:
    before, after = pair
    families = dict.fromkeys((before.best_family, after.best_family))
    return (
        after.name,
        count_text(after.n),
        f"{number_text(before.gap, 3)} → {number_text(after.gap, 3)}",
        f"{'+' if pair.gap_change > 0 else ''}{number_text(pair.gap_change, 3)}",
        " → ".join(family_label(family) or _UNFITTED for family in families),
        tilt_text(after.q),
        number_text(after.moved, 3),
        after.verdict,
    )


def _totals(comparison: "Comparison") -> list[str]:
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in comparison.verdicts.items())
    lines = [f"{len(comparison.pairs)} weights: {verdicts}"]
    if change := comparison.gap_change:
        lines.append(
            f"gap fell in {change.fell} of {change.comparable}, "
            f"median change {change.median:+.4f} nats"
        )
    for where, names in (("first", comparison.only_before), ("second", comparison.only_after)):
        if names:
            shown = shortened(", ".join(names), WIDTH - 30)
            lines.append(f"only in the {where}: {len(names)} ({shown})")
    return lines


def _spread_text(spread: Spread | None) -> str:
    """Write mean ± standard deviation as the paper prints them.

    >>> _spread_text(Spread(0.97, 0.014)), _spread_text(Spread(0.5, None)), _spread_text(None)
    ('.97±.01', '.50', '–')
    """
    if spread is None:
        return _NONE
    mean = _bare(spread.mean)
    return mean if spread.deviation is None else f"{mean}±{_bare(spread.deviation)}"


def _bare(value: float) -> str:
    """Write two decimals without the leading zero."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _families_text(families: Mapping[str | None, int]) -> str:
    return ", ".join(
        f"{family_label(family or _UNFITTED)} {number}" for family, number in families.items()
    )
