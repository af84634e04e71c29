"""The map of strong coalitions over a sample."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.look import LIGHT, Look, blank, canvas, heading, legend, printable

__all__ = ["coalition_map"]

#: Most streams that are drawn, from the network's first to its last.
_MOST = 6
#: Places between two channels, and inches of a row's title.
_GAP, _TITLE = 1, 0.35
_WIDTH = 4.6
_LEVELS = ("weak", "strong", "in a winning 2 × 2", "in a winning 3 × 3")


def coalition_map(records: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw where strong neurons stand together in one sample's activation maps.

    A row is a stream, each square one of its channels.  A place is strong if its contribution to
    the energy of its map reaches the first quartile of the map's positive ones; a neighbourhood
    wins if all of its places are strong.

    Args:
        records: of the instrument ``coalitions`` with their pictures, see `inputs.Rows`: a frame of
            a record, or the path of its folder in a dataset.  Each stream's last one is drawn.
        look: of the page, `LIGHT` or `DARK`.
    """
    frame = as_frame(records, counts=True)
    rows: list[Any] = [
        row
        for row in frame.by_stream().values()
        if len(getattr(row, "picture", ())) == np.prod(getattr(row, "picture_shape", ()) or (-1,))
    ]
    if len(rows) > _MOST:
        rows = [rows[place] for place in np.linspace(0, len(rows) - 1, _MOST).round().astype(int)]
    images = [_side_by_side(row) for row in rows]
    heights = [_TITLE + _WIDTH * each.shape[0] / each.shape[1] for each in images]
    figure, axes = canvas(look, heights or [1.2], sharex=False)
    if not rows:
        heading(axes[0], look, "Coalitions in maps")
        blank(axes[0], look, "no picture of a map")
        return figure
    colors = [look.grid, look.muted, "#e69f00", "#d55e00"]
    for own, row, image in zip(axes, rows, images, strict=True):
        _draw(own, look, image, colors)
        heading(own, look, f"{printable(row.name)}, step {row.step}")
    entries = zip(colors, _LEVELS, strict=True)
    legend(figure, look, [(Patch(facecolor=color), label) for color, label in entries])
    return figure


def _side_by_side(row: Any) -> Array:
    """Return the channels of a picture beside each other; nan between them."""
    channels, height, width = row.picture_shape
    levels = np.asarray(row.picture, dtype=float).reshape(channels, height, width)
    framed = np.pad(levels, ((0, 0), (0, 0), (0, _GAP)), constant_values=np.nan)
    return np.concatenate(list(framed), axis=1)[:, :-_GAP]


def _draw(axes: Axes, look: Look, image: Array, colors: list[str]) -> None:
    palette = ListedColormap(colors).with_extremes(bad=look.page)
    axes.imshow(
        np.ma.masked_invalid(image),
        cmap=palette,
        vmin=-0.5,
        vmax=len(colors) - 0.5,
        interpolation="nearest",
    )
    axes.set_axis_off()
