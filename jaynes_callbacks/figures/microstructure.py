"""The microstructure map: training as a path among known laws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.layers import (
    FEW,
    StreamRows,
    layer_colors,
    real_column,
    stream_legend,
    streams_by_kind,
)
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    canvas,
    family_style,
    heading,
    legend,
    note,
    printable,
)
from jaynes_callbacks.records.stream import kind_label
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    GENERALIZED_GAMMA,
    LOGNORMAL,
    generalized_gamma_shape,
    half_student_t_shape,
    landmarks,
)

__all__ = ["microstructure_map"]

_STUDENT_T = FAMILY_BY_NAME["half_student_t"]


class _Mark(NamedTuple):
    """How a landmark is drawn.

    Attributes:
        color: that of the family it is a member of.
        offset: of its name from the mark, in points.
    """

    color: str
    offset: tuple[int, int]


_MARKS = {
    "lognormal": _Mark(LOGNORMAL.color, (8, -3)),
    "Laplace": _Mark(FAMILY_BY_NAME["exponential"].color, (8, -2)),
    "Gaussian": _Mark(FAMILY_BY_NAME["half_normal"].color, (8, 1)),
    "uniform": _Mark(FAMILY_BY_NAME["uniform"].color, (8, 1)),
    "Cauchy": _Mark(_STUDENT_T.color, (7, 2)),
}


class _Window(NamedTuple):
    """Limits of the axes: by default they hold all landmarks."""

    left: float = -2.3
    right: float = 0.75
    bottom: float = -0.6
    top: float = 6.8

    def widened(self, places: Array) -> "_Window":
        """Return a window that holds the places ``[rows, 2]`` too, up to fixed limits."""
        if not len(places):
            return self
        skew, kurtosis = places.T
        return _Window(
            max(min(self.left, skew.min() - 0.1), -4.0),
            min(max(self.right, skew.max() + 0.1), 2.5),
            max(min(self.bottom, kurtosis.min() - 0.2), -2.0),
            min(max(self.top, kurtosis.max() + 0.3), 16.0),
        )

    def clamped(self, places: Array) -> Array:
        """Return the places, those outside moved to the nearest edge."""
        return places.clip([self.left, self.bottom], [self.right, self.top])


def microstructure_map(history: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw the paths of all streams in the plane of skewness and excess kurtosis of ln w.

    An open circle is a stream's first record, a filled one its last; the colours run from the
    network's first layer to its last.  Diamonds are laws without a shape parameter, lines are
    families with one.  The lognormal, the law of equilibrium, is the diamond at zero; other laws
    have that place too, and only the gap tells them apart.  What lies beyond the axes is drawn at
    their edge.

    Args:
        history: records of many steps, see `inputs.Rows`; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> start = Record(name="fc.weight", log_skew=-2.0, log_kurtosis=6.0)
        >>> end = Record(name="fc.weight", step=100, log_skew=-1.5, log_kurtosis=4.0)
        >>> microstructure_map([start, end]).axes[0].get_xlabel()
        'skewness of ln magnitude'
    """
    frame = as_frame(history)
    places = np.stack([real_column(frame, name) for name in ("log_skew", "log_kurtosis")], -1)
    window = _Window().widened(_known(places))
    by_kind = streams_by_kind(frame)
    figure, rows = canvas(look, [3.3] if len(by_kind) == 1 else [3.0] * len(by_kind))
    entries: list[tuple[Artist, str]] = []
    for axes, (kind, streams) in zip(rows, by_kind.items(), strict=True):
        entries = [*entries, *_paths(axes, look, streams, window.clamped(places))]
        curves = _curves(axes)
        _marks(axes, look)
        axes.set_xlim(window.left, window.right)
        axes.set_ylim(window.bottom, window.top)
        axes.set_ylabel(f"excess kurtosis, {printable(kind_label(kind))}")
    heading(rows[0], look, "Microstructure map: open circle start, filled circle end")
    rows[-1].set_xlabel("skewness of ln magnitude")
    legend(figure, look, [*entries, *curves])
    return figure


def _known(places: Array) -> Array:
    """Return those of the places whose coordinates are finite."""
    return places[np.isfinite(places).all(-1)]


def _paths(
    axes: Axes, look: Look, streams: Sequence[StreamRows], places: Array
) -> list[tuple[Artist, str]]:
    """Draw all paths as one artist, all starts and all ends as one each; return legend entries."""
    placed = [_known(places[stream.rows]) for stream in streams]
    colors = layer_colors(look, len(streams))
    shown = [number for number, path in enumerate(placed) if len(path)]
    if not shown:
        note(axes, look, "nothing measured" if streams else "no records")
        return []
    few = len(streams) <= FEW
    paths, inks = [placed[number] for number in shown], list(map(tuple, colors[shown]))
    axes.add_collection(
        LineCollection(paths, colors=inks, linewidths=1.5 if few else 0.7, zorder=4)
    )
    size = 26 if few else 11
    for moment, faces, order in ((0, look.page, 5), (-1, inks, 6)):
        skew, kurtosis = np.stack([path[moment] for path in paths]).T
        axes.scatter(
            skew, kurtosis, s=size, facecolors=faces, edgecolors=inks, zorder=order, clip_on=False
        )
    return stream_legend(streams, colors)


def _curves(axes: Axes) -> list[tuple[Artist, str]]:
    """Draw the families of one shape parameter; return legend entries."""
    q = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64).sinh()
    dof = torch.logspace(-0.8, 4, 200, dtype=torch.float64)
    entries: list[tuple[Artist, str]] = []
    for family, shape, label in (
        (GENERALIZED_GAMMA, generalized_gamma_shape(q), f"{GENERALIZED_GAMMA.label}, Weibull"),
        (_STUDENT_T, half_student_t_shape(dof), _STUDENT_T.label),
    ):
        (line,) = axes.plot(*shape, **family_style(family), linewidth=1.1)
        entries.append((line, label))
    return entries


def _marks(axes: Axes, look: Look) -> None:
    """Draw the laws without a shape parameter, with their names."""
    for name, place in landmarks().items():
        mark = _MARKS[name]
        axes.plot(*place, marker="D", markersize=6, color=mark.color, zorder=3)
        axes.annotate(
            name,
            place,
            mark.offset,
            textcoords="offset points",
            color=look.ink,
            fontsize=8,
            ha="left",
            va="center",
        )
