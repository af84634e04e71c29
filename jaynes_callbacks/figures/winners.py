"""Which law fits best, and when."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaynes_callbacks.figures.layers import HEADINGS, Course, name_rows, paths_by_kind
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    family_line,
    heading,
    legend,
)
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics import LOGNORMAL, RIVALS

__all__ = ["laws_over_steps", "step_ticks"]

#: In the order of the legend: what may be a stream's best family.
_LAWS = (LOGNORMAL.name, *(family.name for family in RIVALS))
#: Of every family's median gap, none is drawn below this.
_FLOOR = 1e-4
_ROW, _TALLEST = 0.16, 3.2


def laws_over_steps(history: Sequence[Record], *, look: Look = LIGHT) -> Figure:
    """Which law describes each stream best at each record, and the laws' median gaps.

    Above, the median over the streams of a kind of every law's gap; below, one row for each
    stream, coloured by the law with the smallest gap.  Neither the generalized gamma, which holds
    the lognormal, nor a stream without a fit (left blank) is among them.

    Args:
        history: rows of many steps; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> rows = [Record(name="fc", step=step, best_family="gamma") for step in range(3)]
        >>> len(laws_over_steps(rows).axes)
        2
    """
    streams = paths_by_kind(history) or {"weight": []}
    steps = sorted({record.step for record in history})
    rows = [
        height
        for courses in streams.values()
        for height in (1.5, min(0.5 + _ROW * len(courses), _TALLEST))
    ]
    figure, axes = canvas(look, rows)
    for number, (kind, courses) in enumerate(streams.items()):
        upper, lower = axes[2 * number : 2 * number + 2]
        _medians(upper, look, courses, steps)
        _winners(lower, look, courses, steps)
        upper.set_ylabel(f"median gap,\n{HEADINGS[kind]}")
    heading(axes[0], look, "The law that fits best, record by record")
    axes[-1].set_xlabel("optimizer step")
    step_ticks(axes[-1], steps)
    legend(figure, look, _entries(history))
    return figure


def _medians(axes: Axes, look: Look, courses: Sequence[Course], steps: Sequence[int]) -> None:
    """Over records, not steps: those of the first epochs would else lie on each other."""
    place = {step: number for number, step in enumerate(steps)}
    axes.set_yscale("log")
    if not courses:
        blank(axes, look, "no records")
        return
    for name in _LAWS:
        gaps = np.full((len(courses), len(steps)), np.nan)
        for row, course in enumerate(courses):
            for record in course:
                gaps[row, place[record.step]] = _gap(record, name)
        known = np.isfinite(gaps).any(0)
        if known.any():
            middle = np.maximum(np.nanmedian(gaps[:, known], axis=0), _FLOOR)
            width = 1.9 if name == LOGNORMAL.name else 1.1
            style = family_line(name)._asdict()
            axes.plot(np.flatnonzero(known), middle, **style, linewidth=width)


def _winners(axes: Axes, look: Look, courses: Sequence[Course], steps: Sequence[int]) -> None:
    place = {step: number for number, step in enumerate(steps)}
    best = np.full((len(courses), len(steps)), np.nan)
    for row, course in enumerate(courses):
        for record in course:
            if record.best_family in _LAWS:
                best[row, place[record.step]] = _LAWS.index(record.best_family)
    if not np.isfinite(best).any():
        blank(axes, look, "no fits")
        return
    colors = ListedColormap([family_line(name).color for name in _LAWS])
    axes.imshow(
        best, aspect="auto", cmap=colors, vmin=-0.5, vmax=len(_LAWS) - 0.5, interpolation="none"
    )
    axes.grid(visible=False)
    name_rows(axes, [course[0] for course in courses])


def step_ticks(axes: Axes, steps: Sequence[int]) -> None:
    """Some records' steps, below the last of the rows; they need not be evenly spaced."""
    shown = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
    axes.set_xticks(shown, [f"{steps[number]:,}" for number in shown])


def _gap(record: Record, name: str) -> float:
    return record.gap if name == LOGNORMAL.name else record.rival_gaps.get(name, np.nan)


def _entries(history: Sequence[Record]) -> list[tuple[Artist, str]]:
    """The laws that are best anywhere, then the others that have a line."""
    best = {record.best_family for record in history}
    tried = {name for record in history for name in (*record.rival_gaps, LOGNORMAL.name)}
    return [
        (Patch(color=family_line(name).color), name.replace("_", "-"))
        for name in _LAWS
        if name in best | tried
    ]
