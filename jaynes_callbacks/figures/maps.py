"""Maps of the whole network: gaps over steps, and every statistic of every stream."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.layers import (
    name_rows,
    over_steps,
    real_column,
    step_ticks,
    streams_by_kind,
)
from jaynes_callbacks.figures.look import LIGHT, Look, blank, canvas, heading, printable
from jaynes_callbacks.instruments.record import BANDS, Record
from jaynes_callbacks.instruments.verdict import rival_gaps
from jaynes_callbacks.records.stream import kind_label
from jaynes_callbacks.records.text import number_text
from jaynes_callbacks.statistics.landmarks import GAUSSIAN_GAP

__all__ = ["gap_map", "statistics_map"]

_COLORS = "cividis"
#: Height of a stream's row, and of all rows at the most, in inches.
_ROW, _TALLEST = 0.16, 5.0
#: Most rows in which there is room for numbers.
_READABLE = 40


class _Column(NamedTuple):
    """A statistic in the map.

    Attributes:
        heading: of its column.
        value: returns it of a record.
        low: value that is drawn darkest: that of a lognormal.
        high: value that is drawn lightest: about that of Gaussian weights.
        digits: decimals of the numbers in the cells.
    """

    heading: str
    value: Callable[[Record], float]
    low: float
    high: float
    digits: int


_COLUMNS = (
    _Column("gap", lambda row: row.gap, 0.0, 0.2, 3),
    _Column("best\nrival", lambda row: min(rival_gaps(row).values(), default=np.nan), 0.0, 0.2, 3),
    _Column("q", lambda row: row.q, 0.0, 1.5, 2),
    _Column("skew", lambda row: row.log_skew, 0.0, -2.0, 2),
    _Column("sd of\nln w", lambda row: row.log_std, 0.5, 1.5, 2),
    _Column("TV", lambda row: row.tv, 0.0, 0.2, 3),
    _Column("KS", lambda row: row.ks, 0.0, 0.2, 3),
    _Column("R²", lambda row: row.paper_r2, 1.0, 0.8, 2),
    _Column("R² of\nGauss", lambda row: row.paper_r2_gaussian, 1.0, 0.8, 2),
    _Column("moved", lambda row: row.moved, 0.0, 2.0, 2),
)


def gap_map(history: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw the gap of every stream at every record: rows are streams, columns are records.

    Colours are logarithmic, dark near the lognormal and light far from it; the ticks at their side
    are the limits of `instruments.record.BANDS` and 0.163, the gap of Gaussian weights.  Where
    there is no gap the map is blank.

    Args:
        history: records of many steps, see `inputs.Rows`; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> rows = [Record(name="fc", step=step, gap=0.2 / (1 + step)) for step in range(3)]
        >>> gap_map(rows).axes[0].images[0].get_array().shape
        (1, 3)
    """
    frame = as_frame(history)
    values = real_column(frame, "gap")
    by_kind = streams_by_kind(frame)
    steps = np.unique(frame["step"])
    figure, rows = canvas(look, [_height(len(streams)) for streams in by_kind.values()])
    scale = LogNorm(BANDS["lognormal-like"], 0.5, clip=True)
    image = None
    for axes, (kind, streams) in zip(rows, by_kind.items(), strict=True):
        gaps = over_steps(frame, streams, values, steps)
        if not np.isfinite(gaps).any():
            blank(axes, look, "no gaps" if streams else "no records")
            continue
        image = axes.imshow(
            np.maximum(gaps, 1e-9), aspect="auto", cmap=_COLORS, norm=scale, interpolation="none"
        )
        axes.grid(visible=False)
        name_rows(axes, [stream.name for stream in streams])
        axes.set_ylabel(printable(kind_label(kind)))
    heading(rows[0], look, "Arbitrage gap of every stream at every record (nats)")
    rows[-1].set_xlabel("optimizer step")
    step_ticks(rows[-1], steps)
    if image is not None:
        bar = figure.colorbar(image, ax=rows, aspect=40, pad=0.02)
        limits = [*(limit for limit in BANDS.values() if np.isfinite(limit)), GAUSSIAN_GAP, 0.5]
        bar.set_ticks(limits, labels=[f"{limit:g}" for limit in limits])
        bar.ax.tick_params(colors=look.ink, labelsize=8, which="both")
        bar.ax.minorticks_off()
    return figure


def statistics_map(records: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw every stream's statistics at one moment: rows are streams, columns are statistics.

    Dark is the value of a lognormal, light that of Gaussian weights or one beyond.  Up to 40
    streams the numbers are written into the cells.

    Args:
        records: one record of each stream, see `inputs.Rows`; of several the last.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> statistics_map([Record(name="fc", gap=0.1)]).axes[0].get_xticklabels()[0].get_text()
        'gap'
    """
    rows = list(as_frame(records).by_stream().values())
    figure, (axes,) = canvas(look, [_height(len(rows)) + 0.3], width=6.4)
    if not rows:
        blank(axes, look, "no records")
        return figure
    values = np.array([[column.value(row) for column in _COLUMNS] for row in rows], float)
    shares = np.stack(
        [
            np.clip((values[:, number] - column.low) / (column.high - column.low), 0, 1)
            for number, column in enumerate(_COLUMNS)
        ],
        axis=1,
    )
    axes.imshow(shares, aspect="auto", cmap=_COLORS, norm=Normalize(0, 1), interpolation="none")
    axes.grid(visible=False)
    name_rows(axes, _names(rows))
    axes.set_xticks(range(len(_COLUMNS)), [column.heading for column in _COLUMNS])
    if len(rows) <= _READABLE:
        _numbers(axes, values, shares)
    step = max(row.step for row in rows)
    heading(
        axes, look, f"All statistics at step {step:,}: dark lognormal, light Gaussian or farther"
    )
    return figure


def _names(rows: Sequence[Record]) -> list[str]:
    """Return the streams' names, with their kinds where kinds share names, as gradients do."""
    names = [row.name for row in rows]
    if len(set(names)) == len({row.key for row in rows}):
        return names
    return [f"{row.kind}  {row.name}" for row in rows]


def _numbers(axes: Axes, values: Array, shares: Array) -> None:
    """Write the numbers into the cells, light on dark and dark on light."""
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            axes.text(
                column, row, number_text(float(values[row, column]), _COLUMNS[column].digits),
                ha="center", va="center", fontsize=6.5,
                color="#16181d" if shares[row, column] > 0.5 else "#f5f7f9",
            )  # fmt: skip


def _height(rows: int) -> float:
    """Return the height of axes of so many rows, in inches."""
    return min(0.6 + _ROW * max(rows, 1), _TALLEST)
