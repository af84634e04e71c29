"""Which law fits best, and when."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.layers import (
    StreamRows,
    name_rows,
    over_steps,
    real_column,
    step_ticks,
    streams_by_kind,
)
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    family_style,
    heading,
    legend,
    printable,
)
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import kind_label
from jaynes_callbacks.statistics import LOGNORMAL, RIVALS, Family

__all__ = ["laws_over_steps"]

#: The families that can be a stream's best, in the order of the legend.
_LAWS = (LOGNORMAL, *RIVALS)
#: Median gaps below this are drawn at it.
_FLOOR = 1e-4
#: Height of a stream's row, and of all rows at the most, in inches.
_ROW, _TALLEST = 0.16, 3.2


def laws_over_steps(history: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw the laws' median gaps, and which law describes each stream best at each record.

    The upper axes of a kind show the median of every law's gap over its streams.  The lower axes
    have one row for each stream, in the colour of its `Record.best_family`; where there is no fit
    they are blank.  The generalized gamma, which contains the lognormal, is not compared.

    Args:
        history: records of many steps, see `inputs.Rows`; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> rows = [Record(name="fc", step=step, best_family="gamma") for step in range(3)]
        >>> len(laws_over_steps(rows).axes)
        2
    """
    frame = as_frame(history)
    gaps = _gaps(frame)
    best = _best(frame)
    by_kind = streams_by_kind(frame)
    steps = np.unique(frame["step"])
    heights = [
        height
        for streams in by_kind.values()
        for height in (1.5, min(0.5 + _ROW * len(streams), _TALLEST))
    ]
    figure, axes = canvas(look, heights)
    for number, (kind, streams) in enumerate(by_kind.items()):
        upper, lower = axes[2 * number : 2 * number + 2]
        tables = {law: over_steps(frame, streams, gaps[law], steps) for law in gaps}
        _medians(upper, look, tables)
        _winners(lower, look, over_steps(frame, streams, best, steps), streams)
        upper.set_ylabel(f"median gap,\n{printable(kind_label(kind))}")
    heading(axes[0], look, "The law that fits best, record by record")
    axes[-1].set_xlabel("optimizer step")
    step_ticks(axes[-1], steps)
    legend(figure, look, _entries(gaps, best))
    return figure


def _gaps(frame: Frame[Record]) -> dict[Family, Array]:
    """Return every law's gap in each row; nan where it was not compared."""
    return {
        law: real_column(frame, "gap" if law is LOGNORMAL else f"gap_{law.name}") for law in _LAWS
    }


def _best(frame: Frame[Record]) -> Array:
    """Return the place of each row's best family in `_LAWS`; nan where there is none."""
    places = {law.name: place for place, law in enumerate(_LAWS)}
    return np.array([places.get(name, np.nan) for name in frame["best_family"]], dtype=np.float64)


def _medians(axes: Axes, look: Look, gaps: dict[Family, Array]) -> None:
    """Draw each law's median gap over records.

    Records are evenly spaced: over steps, those of the first epochs would lie on each other.
    """
    axes.set_yscale("log")
    if not any(len(table) for table in gaps.values()):
        blank(axes, look, "no records")
    for law, table in gaps.items():
        known = np.isfinite(table).any(0)
        if known.any():
            middle = np.maximum(np.nanmedian(table[:, known], axis=0), _FLOOR)
            width = 1.9 if law is LOGNORMAL else 1.1
            axes.plot(np.flatnonzero(known), middle, **family_style(law), linewidth=width)


def _winners(axes: Axes, look: Look, best: Array, streams: Sequence[StreamRows]) -> None:
    """Colour each stream and record by the best law."""
    if not np.isfinite(best).any():
        blank(axes, look, "no fits")
        return
    colors = ListedColormap([law.color for law in _LAWS])
    axes.imshow(
        best, aspect="auto", cmap=colors, vmin=-0.5, vmax=len(_LAWS) - 0.5, interpolation="none"
    )
    axes.grid(visible=False)
    name_rows(axes, [stream.name for stream in streams])


def _entries(gaps: dict[Family, Array], best: Array) -> list[tuple[Artist, str]]:
    """Return the legend's entries: laws that are best anywhere, or have a line."""
    return [
        (Patch(color=law.color), law.label)
        for place, law in enumerate(_LAWS)
        if (best == place).any() or np.isfinite(gaps[law]).any()
    ]
