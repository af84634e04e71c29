"""The table of `jaynes compare`: what became of each weight; at most 100 columns wide."""

from collections import Counter
from math import isfinite
from statistics import median

from jaynes_callbacks.files.comparison import Comparison, Pair
from jaynes_callbacks.records.text import align, count_text, number_text, shortened, tilt_text

__all__ = ["comparison_table"]

_WIDTH = 100
_HEADINGS = ("weight", "n", "gap", "change", "best family", "q", "moved", "verdict")
_ROWS = 60


def comparison_table(comparison: Comparison) -> str:
    """One line for each weight, from the earlier checkpoint to the later one, and the total."""
    rows = [_cells(pair) for pair in comparison.pairs]
    left_out = len(rows) - _ROWS
    if left_out > 0:
        rows = [*rows[: _ROWS // 2], *rows[-_ROWS // 2 :]]
    columns = list(zip(_HEADINGS, *rows, strict=True))
    room = max(8, _WIDTH - sum(max(map(len, column)) + 2 for column in columns[1:]))
    rows = [(shortened(name, room), *cells) for name, *cells in rows]
    lines = align([_HEADINGS, *rows], left=(0, 4, 7))
    if left_out > 0:
        lines.insert(1 + _ROWS // 2, f"… {left_out} more …")
    return "\n".join([*lines, "", *_closing(comparison)])


def _cells(pair: Pair) -> tuple[str, ...]:
    before, after = pair
    change = after.gap - before.gap
    families = dict.fromkeys((before.best_family, after.best_family))
    return (
        after.name,
        count_text(after.n),
        f"{number_text(before.gap, 3)} → {number_text(after.gap, 3)}",
        f"{'+' if change > 0 else ''}{number_text(change, 3)}",
        " → ".join(_FAMILIES.get(family, family or "no fit") for family in families),
        tilt_text(after.q),
        number_text(after.moved, 3),
        after.verdict,
    )


#: Names that would leave the weight's own no room.
_FAMILIES = {
    "generalized_gamma": "gen. gamma",
    "half_student_t": "Student t",
    "half_normal": "half-normal",
}


def _closing(comparison: Comparison) -> list[str]:
    verdicts = Counter(pair.after.verdict for pair in comparison.pairs)
    changes = [pair.after.gap - pair.before.gap for pair in comparison.pairs]
    finite = [change for change in changes if isfinite(change)]
    lines = [f"{len(changes)} weights: " + ", ".join(f"{n} {v}" for v, n in verdicts.items())]
    if finite:
        fell = sum(change < 0 for change in finite)
        lines.append(
            f"gap fell in {fell} of {len(finite)}, median change {median(finite):+.4f} nats"
        )
    for where, names in (("first", comparison.only_before), ("second", comparison.only_after)):
        if names:
            shown = shortened(", ".join(names), _WIDTH - 30)
            lines.append(f"only in the {where}: {len(names)} ({shown})")
    return lines
