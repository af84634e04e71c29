"""The whole network at one look: gaps over steps, and every statistic of every layer."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from jaynes_callbacks.figures.layers import HEADINGS, name_rows, paths_by_kind
from jaynes_callbacks.figures.look import LIGHT, Look, blank, canvas, heading
from jaynes_callbacks.figures.winners import step_ticks
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.verdict import BANDS, rival_gaps
from jaynes_callbacks.records.text import number_text

__all__ = ["gap_map", "statistics_map"]

_COLORS = "cividis"
_ROW, _TALLEST = 0.16, 5.0
#: Rows in which there is room for numbers.
_READABLE = 40


class _Column(NamedTuple):
    """A statistic: its heading, its value, and the values that get the ends of the colours."""

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


def gap_map(history: Sequence[Record], *, look: Look = LIGHT) -> Figure:
    """The gap of every stream at every record: rows are streams, columns are records.

    Dark is near equilibrium, light is far, on a logarithmic scale with the bands of the verdict
    rule (THEORY §7) at its side; what has no gap is left blank.

    Args:
        history: rows of many steps; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> rows = [Record(name="fc", step=step, gap=0.2 / (1 + step)) for step in range(3)]
        >>> gap_map(rows).axes[0].images[0].get_array().shape
        (1, 3)
    """
    streams = paths_by_kind(history) or {"weight": []}
    steps = sorted({record.step for record in history})
    place = {step: number for number, step in enumerate(steps)}
    figure, rows = canvas(look, [_height(len(courses)) for courses in streams.values()])
    scale = LogNorm(BANDS["lognormal-like"], 0.5, clip=True)
    image = None
    for axes, (kind, courses) in zip(rows, streams.items(), strict=True):
        gaps = np.full((len(courses), len(steps)), np.nan)
        for row, course in enumerate(courses):
            for record in course:
                gaps[row, place[record.step]] = record.gap
        if not np.isfinite(gaps).any():
            blank(axes, look, "no gaps" if courses else "no records")
            continue
        image = axes.imshow(
            np.maximum(gaps, 1e-9), aspect="auto", cmap=_COLORS, norm=scale, interpolation="none"
        )
        axes.grid(visible=False)
        name_rows(axes, [course[0] for course in courses])
        axes.set_ylabel(HEADINGS[kind])
    heading(rows[0], look, "Arbitrage gap of every stream at every record (nats)")
    rows[-1].set_xlabel("optimizer step")
    step_ticks(rows[-1], steps)
    if image is not None:
        bar = figure.colorbar(image, ax=rows, aspect=40, pad=0.02)
        limits = [*(limit for limit in BANDS.values() if np.isfinite(limit)), 0.163, 0.5]
        bar.set_ticks(limits, labels=[f"{limit:g}" for limit in limits])
        bar.ax.tick_params(colors=look.ink, labelsize=8, which="both")
        bar.ax.minorticks_off()
    return figure


def statistics_map(records: Sequence[Record], *, look: Look = LIGHT) -> Figure:
    """Every stream's statistics at one moment: rows are streams, columns are statistics.

    Dark is what a lognormal has, light what Gaussian weights have, or farther; the numbers stand
    in the cells where there is room for them.

    Args:
        records: one row of each stream.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> statistics_map([Record(name="fc", gap=0.1)]).axes[0].get_xticklabels()[0].get_text()
        'gap'
    """
    figure, (axes,) = canvas(look, [_height(len(records)) + 0.3], width=6.4)
    if not records:
        blank(axes, look, "no records")
        return figure
    values = np.array([[column.value(row) for column in _COLUMNS] for row in records], float)
    shares = np.stack(
        [
            np.clip((values[:, number] - column.low) / (column.high - column.low), 0, 1)
            for number, column in enumerate(_COLUMNS)
        ],
        axis=1,
    )
    axes.imshow(shares, aspect="auto", cmap=_COLORS, norm=Normalize(0, 1), interpolation="none")
    axes.grid(visible=False)
    name_rows(axes, records)
    axes.set_xticks(range(len(_COLUMNS)), [column.heading for column in _COLUMNS])
    if len(records) <= _READABLE:
        _numbers(axes, values, shares)
    step = max(record.step for record in records)
    heading(
        axes, look, f"All statistics at step {step:,}: dark lognormal, light Gaussian or farther"
    )
    return figure


def _numbers(
    axes: Axes,
    values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
    shares: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
) -> None:
    for row, column in np.ndindex(values.shape):
        if np.isfinite(values[row, column]):
            axes.text(
                column, row, number_text(float(values[row, column]), _COLUMNS[column].digits),
                ha="center", va="center", fontsize=6.5,
                color="#16181d" if shares[row, column] > 0.5 else "#f5f7f9",
            )  # fmt: skip


def _height(rows: int) -> float:
    return min(0.6 + _ROW * max(rows, 1), _TALLEST)
