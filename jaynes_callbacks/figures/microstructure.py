"""The microstructure map: training as paths among known laws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaynes_callbacks.figures.layers import (
    FEW,
    HEADINGS,
    Course,
    layer_colors,
    paths_by_kind,
    stream_legend,
)
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
from jaynes_callbacks.statistics import (
    GENERALIZED_GAMMA,
    LOGNORMAL,
    generalized_gamma_shape,
    half_student_t_shape,
    landmarks,
)

__all__ = ["microstructure_map"]

#: Landmarks by the family whose colour they have; where the name stands, in points from the mark.
_MARKS = {
    "lognormal": (LOGNORMAL.name, (8, -3), "left"),
    "Laplace": ("exponential", (8, -2), "left"),
    "Gaussian": ("half_normal", (8, 1), "left"),
    "uniform": ("uniform", (8, 1), "left"),
    "Cauchy": ("half_student_t", (7, 2), "left"),
}
_STUDENT = "half_student_t"


class _Window(NamedTuple):
    """What is shown: all landmarks, and of the paths what is not absurdly far."""

    left: float = -2.3
    right: float = 0.75
    bottom: float = -0.6
    top: float = 6.8

    def widened(self, places: "Sequence[tuple[float, float]]") -> "_Window":
        """Wide enough for the places, within limits."""
        if not places:
            return self
        skew, kurtosis = np.transpose(places)
        return _Window(
            max(min(self.left, skew.min() - 0.1), -4.0),
            min(max(self.right, skew.max() + 0.1), 2.5),
            max(min(self.bottom, kurtosis.min() - 0.2), -2.0),
            min(max(self.top, kurtosis.max() + 0.3), 16.0),
        )

    def held(self, place: tuple[float, float]) -> tuple[float, float]:
        """The place, or the nearest one in sight."""
        skew, kurtosis = place
        return min(max(skew, self.left), self.right), min(max(kurtosis, self.bottom), self.top)


def microstructure_map(history: Sequence[Record], *, look: Look = LIGHT) -> Figure:
    """Paths of all streams in the plane of skewness and excess kurtosis of ln w (THEORY §3).

    An open circle is a stream's first record, a filled one its last; the colours run from the
    network's first layer to its last.  Diamonds are laws without a shape parameter, lines are
    families with one.  Equilibrium is the lognormal's diamond, at zero; but other laws have that
    place too, and only the gap tells them apart.  What lies beyond the picture is drawn at its
    edge.

    Args:
        history: rows of many steps; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> start = Record(name="fc.weight", log_skew=-2.0, log_kurtosis=6.0)
        >>> end = Record(name="fc.weight", step=100, log_skew=-1.5, log_kurtosis=4.0)
        >>> microstructure_map([start, end]).axes[0].get_xlabel()
        'skewness of ln magnitude'
    """
    streams = paths_by_kind(history) or {"weight": []}
    figure, rows = canvas(look, [3.3] if len(streams) == 1 else [3.0] * len(streams))
    window = _Window().widened([_place(row) for row in history if _is_placed(row)])
    entries: list[tuple[Artist, str]] = []
    for axes, (kind, courses) in zip(rows, streams.items(), strict=True):
        entries = [*entries, *_paths(axes, look, courses, window)]
        curves = _curves(axes)
        _marks(axes, look)
        axes.set_xlim(window.left, window.right)
        axes.set_ylim(window.bottom, window.top)
        axes.set_ylabel(f"excess kurtosis, {HEADINGS[kind]}")
    heading(rows[0], look, "Microstructure map: open circle start, filled circle end")
    rows[-1].set_xlabel("skewness of ln magnitude")
    legend(figure, look, [*entries, *curves])
    return figure


def _is_placed(record: Record) -> bool:
    return bool(np.isfinite(record.log_skew) and np.isfinite(record.log_kurtosis))


def _place(record: Record) -> tuple[float, float]:
    return record.log_skew, record.log_kurtosis


def _paths(
    axes: Axes, look: Look, courses: Sequence[Course], window: _Window
) -> list[tuple[Artist, str]]:
    """All paths as one artist, all starts and all ends as one each."""
    placed = [[window.held(_place(row)) for row in rows if _is_placed(row)] for rows in courses]
    colors = layer_colors(look, len(courses))
    shown = [number for number, path in enumerate(placed) if path]
    if not shown:
        blank(axes, look, "nothing measured" if courses else "no records")
        return []
    few = len(courses) <= FEW
    paths, inks = [placed[number] for number in shown], list(map(tuple, colors[shown]))
    axes.add_collection(
        LineCollection(paths, colors=inks, linewidths=1.5 if few else 0.7, zorder=4)
    )
    size = 26 if few else 11
    for moment, faces, order in ((0, look.page, 5), (-1, inks, 6)):
        skew, kurtosis = zip(*(path[moment] for path in paths), strict=True)
        axes.scatter(
            skew, kurtosis, s=size, facecolors=faces, edgecolors=inks, zorder=order, clip_on=False
        )
    return stream_legend(courses, colors)


def _curves(axes: Axes) -> list[tuple[Artist, str]]:
    """Families of one shape parameter."""
    q = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64).sinh()
    dof = torch.logspace(-0.8, 4, 200, dtype=torch.float64)
    entries: list[tuple[Artist, str]] = []
    for name, shape, label in (
        (GENERALIZED_GAMMA.name, generalized_gamma_shape(q), "generalized gamma, Weibull"),
        (_STUDENT, half_student_t_shape(dof), "Student t"),
    ):
        style = family_line(name)
        (line,) = axes.plot(*shape, color=style.color, linestyle=style.linestyle, linewidth=1.1)
        entries.append((line, label))
    return entries


def _marks(axes: Axes, look: Look) -> None:
    for name, place in landmarks().items():
        family, offset, align = _MARKS[name]
        axes.plot(*place, marker="D", markersize=6, color=family_line(family).color, zorder=3)
        axes.annotate(
            name,
            place,
            offset,
            textcoords="offset points",
            color=look.ink,
            fontsize=8,
            ha=align,
            va="center",
        )
