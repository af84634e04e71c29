"""Print what `jaynes fit` and `jaynes compare` found as plain text, as wide as the terminal."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.files.roles import RoleSummary, Spread, role, summarise_roles
from jaynes_callbacks.instruments.record import (
    Record,
    family_label,
    law_text,
    paper_remarks,
    paper_text,
    remarks,
    verdict_text,
)
from jaynes_callbacks.instruments.scale_row import core_text, share_text
from jaynes_callbacks.records.headings import under_headings, without_common_end
from jaynes_callbacks.records.printable import printable
from jaynes_callbacks.records.text import (
    ROWS,
    SHORTEST_NAME,
    WIDTH,
    align,
    count_text,
    counted,
    number_text,
    shortened,
    shortened_names,
)
from jaynes_callbacks.statistics import FEWEST_WEIGHTS

if TYPE_CHECKING:
    from jaynes_callbacks.api import Comparison, Pair
    from jaynes_callbacks.files.table2 import Network

__all__ = [
    "Layout",
    "comparison_table",
    "layout_here",
    "network_table",
    "sorted_by",
    "summary_table",
    "table",
    "weight_table",
]

_NONE = "–"
_UNFITTED = "no fit"

_WEIGHT_HEADINGS = (
    "weight", "role", "n", "gap ± se", "core (Gauss)", "scales", "best law", "R² (Gauss)"
)  # fmt: skip
_LEFT = ("weight", "role", "best law")
_SUMMARY_HEADINGS = ("role", "layers", "R²", "μ'", "σ'", "R² Gauss", "gap", "best families")
_SUMMARY_NOTES = (
    f"layers: weights of at least {FEWEST_WEIGHTS:,} elements, as in the paper's Table II, of all "
    "measured;",
    "R², μ', σ': mean ± sd by the paper's protocol; R² Gauss: what Gaussian weights would score;",
    "gap: median nats to the best lognormal; Gaussian weights have 0.163, uniform ones 0.419.",
)
_NETWORK_HEADINGS = ("network", "weights", "layers", "R²", "μ'", "σ'", "gap", "core", "scales")
#: Characters of the longest name of a network's part.
_PART = 20
_NETWORK_NOTES = (
    "paper: its Table II (arXiv 2405.10955), which has no gaps; here: the same protocol, mean ± sd",
    f"over the layers: weights of at least {FEWEST_WEIGHTS:,} elements, of all measured where "
    "these are more;",
    "Gaussian: what Gaussian weights of the same shapes have on average; gap: median nats to the",
    "best lognormal; core: the same without the scales of rows and columns; scales: their median",
    "share of the variance of ln w.  What is not known is –.",
)
_PAIR_HEADINGS = ("weight", "n", "gap", "core (Gauss)", "best family", "moved", "verdict")


@dataclass(frozen=True)
class Layout:
    """How much of a table is printed.

    Attributes:
        width: characters of the longest line; None for any number.
        rows: most rows, of more the first and the last; None for all.
    """

    width: int | None = WIDTH
    rows: int | None = ROWS

    def cut(self, line: str) -> str:
        """Return a line with its middle left out if it is too long."""
        return line if self.width is None else shortened(line, self.width)


def layout_here(*, whole: bool) -> Layout:
    """Return the layout for standard output: as wide as the terminal, or unlimited where piped.

    Args:
        whole: whether all rows are asked for.
    """
    if not sys.stdout.isatty():
        return Layout(None, None)
    return Layout(max(40, shutil.get_terminal_size().columns), None if whole else ROWS)


def sorted_by(rows: Sequence[Any], column: str | None, record: Any = None) -> list[Any]:
    """Sort rows by a column of their records: numbers from the greatest on, texts by the alphabet.

    Args:
        rows: that are sorted.
        column: of `Record`; None leaves them as they are.
        record: returns the record of a row; by default the row is one.
    """
    if column is None:
        return list(rows)

    def key(row: Any) -> tuple[bool, Any]:
        value = (row if record is None else record(row)).to_dict(counts=False).get(column, math.nan)
        if isinstance(value, int | float):
            return math.isnan(value), 0.0 if math.isnan(value) else -value
        return False, str(value)

    return sorted(rows, key=key)


def weight_table(records: Sequence[Record], layout: Layout = Layout()) -> str:
    """Make a table with a line for each weight; reasons for missing figures follow below it."""
    left_out = set()
    if not any(math.isfinite(record.core_gap) for record in records):
        left_out |= {"core (Gauss)", "scales"}
    if layout.width is not None:
        # Names need the room, and the roles have a table of their own.
        left_out.add("role")
    shown = [i for i, heading in enumerate(_WEIGHT_HEADINGS) if heading not in left_out]
    cells = [_weight_cells(record) for record in records]
    headings, *rows = ([row[i] for i in shown] for row in (_WEIGHT_HEADINGS, *cells))
    left = [place for place, i in enumerate(shown) if _WEIGHT_HEADINGS[i] in _LEFT]
    notes = (layout.cut(printable(line)) for line in (*paper_remarks(records), *remarks(records)))
    return "\n".join([*table(headings, rows, left, layout), *notes])


def summary_table(records: Sequence[Record], layout: Layout = Layout()) -> str:
    """Make a table in the form of the paper's Table II: a line for each role, and one for all."""
    rows = [_summary_cells(summary) for summary in summarise_roles(records)]
    lines = align([_SUMMARY_HEADINGS, *rows], left=(0, 7))
    return "\n".join([*(_cut(line, layout.width) for line in lines), *_SUMMARY_NOTES])


def network_table(measured: "Mapping[Network, Mapping[str, Sequence[Record]]]") -> str:
    """Make the paper's Table II with what was measured; below it how to have the other networks.

    Args:
        measured: records of the networks that were measured, by the parts of each.
    """
    from jaynes_callbacks.files.table2 import NETWORKS, rows_of

    cells = [
        (network.name if not number else "", *_network_cells(name, summary))
        for network in NETWORKS
        for number, (name, summary) in enumerate(rows_of(network, measured.get(network, {})))
    ]
    lines = [*align([_NETWORK_HEADINGS, *cells], left=(0, 1)), *_NETWORK_NOTES]
    missing = [network for network in NETWORKS if network not in measured]
    if missing:
        lines += ["", "to measure here:"]
        lines += [line for network in missing for line in _how_to_measure(network)]
    return "\n".join(lines)


def comparison_table(
    comparison: "Comparison",
    layout: Layout = Layout(),
    sort: str | None = None,
) -> str:
    """Make a table with a line for each pair of weights; the totals follow below it.

    Args:
        comparison: of two checkpoints.
        layout: of the table.
        sort: column of the later records by which rows are sorted.
    """
    pairs = sorted_by(comparison.pairs, sort, lambda pair: pair.after)
    lines = table(_PAIR_HEADINGS, [_pair_cells(pair) for pair in pairs], (0, 4, 6), layout)
    return "\n".join([*lines, "", *map(layout.cut, _totals(comparison))])


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int], layout: Layout
) -> list[str]:
    """Align rows, leave out the middle of a long table, and shorten the first cell of each row.

    Args:
        headings: of the columns.
        rows: cells; the first is a name.
        left: numbers of the columns that are aligned to the left.
        layout: how much is printed.
    """
    names = [printable(row[0]) for row in rows]
    groups = [""] * len(rows)
    others = list(zip(headings, *rows, strict=True))[1:]
    if layout.width is not None:
        taken = sum(max(map(len, column)) + 2 for column in others)
        room = max(SHORTEST_NAME, layout.width - taken)
        if named := under_headings(names, room):
            groups = [layout.cut(heading) for heading, _ in named]
            indent = "  " if any(groups) else ""
            names = [f"{indent if heading else ''}{name}" for heading, name in named]
        else:
            # Of all rows, those left out too: a name is shortened alike whatever is shown.
            names = shortened_names(without_common_end(names), room)
    head, *lines = align(
        [headings, *((name, *row[1:]) for name, row in zip(names, rows, strict=True))], left
    )
    if layout.rows is None or len(rows) <= layout.rows:
        return [head, *_grouped(lines, groups)]
    half = layout.rows // 2
    left_out = f"… {len(rows) - 2 * half} more: --all shows them …"
    first, last = (
        _grouped(lines[part], groups[part]) for part in (slice(half), slice(-half, None))
    )
    return [head, *first, left_out, *last]


def _grouped(lines: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Put a group's heading above its lines."""
    shown: list[str] = []
    above = ""
    for line, group in zip(lines, groups, strict=True):
        if group != above:
            shown.append(group)
            above = group
        shown.append(line)
    return shown


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"


def _weight_cells(record: Record) -> tuple[str, ...]:
    return (
        record.name,
        role(record.name, record.shape),
        count_text(record.n),
        _gap_text(record),
        core_text(record),
        share_text(record),
        law_text(record, record.best_family),
        paper_text(record),
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


def _network_cells(name: str, summary: RoleSummary) -> tuple[str, ...]:
    layers = f"{summary.eligible}"
    share = summary.scale_share
    return (
        shortened(printable(name), _PART),
        layers if summary.eligible == summary.measured else f"{layers}/{summary.measured}",
        _spread_text(summary.r2),
        _spread_text(summary.mu),
        _spread_text(summary.sigma),
        *(
            _NONE if value is None else number_text(value, 3)
            for value in (summary.gap, summary.core_gap)
        ),
        _NONE if share is None else f"{100 * share:.0f} %",
    )


def _how_to_measure(network: "Network") -> list[str]:
    command = f"jaynes table2 {network.key}=PATH"
    if network.address is None:
        return [f"  {command}: {network.source}"]
    return [
        f"  jaynes table2 --fetch {network.key}, or {network.key}=PATH",
        f"    {network.address}: {network.source}",
    ]


def _pair_cells(pair: "Pair") -> tuple[str, ...]:
    before, after = pair
    families = dict.fromkeys((before.best_family, after.best_family))
    return (
        after.name,
        count_text(after.n),
        f"{number_text(before.gap, 3)} → {number_text(after.gap, 3)}",
        core_text(after),
        " → ".join(family_label(family) or _UNFITTED for family in families),
        number_text(after.moved, 3),
        verdict_text(after),
    )


def _totals(comparison: "Comparison") -> list[str]:
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in comparison.verdicts.items())
    lines = [f"{counted(len(comparison.pairs), 'weight')}: {verdicts}"]
    if change := comparison.gap_change:
        lines.append(
            f"gap fell in {change.fell} of {change.comparable}, "
            f"median change {change.median:+.4f} nats"
        )
    for where, names in (("first", comparison.only_before), ("second", comparison.only_after)):
        if names:
            shown = printable(", ".join(names))
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
