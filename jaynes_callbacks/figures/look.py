"""How figures look: page, colours, titles and legends, names that are safe to print, pixels.

Each family of laws brings the colour and the dashes of its own line.  Nothing is taken from or
written to matplotlib's global settings, but for the user's own choice of font.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.stream import kind_label
from jaynes_callbacks.statistics import Family

__all__ = [
    "DARK",
    "LIGHT",
    "Look",
    "NotebookFigure",
    "Pixels",
    "blank",
    "canvas",
    "family_style",
    "heading",
    "legend",
    "note",
    "printable",
    "rendered",
    "title",
]

#: Height × width × RGB.
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: Width in inches and dots per inch make 800 pixels; at half of that the smallest letters are
#: 9 pixels high.
_WIDTH, _DPI = 5.0, 160
_TITLE, _LABEL, _TICK = 9.5, 9.0, 8.0
_LONGEST_NAME = 52
_LONGEST_LINE = 60
#: Characters of the longest label in a legend of two columns; height of a row of it in inches.
_LONGEST_OF_TWO = 32
_LEGEND_ROW = 0.165


@dataclass(frozen=True)
class Look:
    """Colours of a page.

    Attributes:
        page: background.
        ink: text and the main line.
        muted: axes, the start of training, and other things of less weight.
        grid: grid lines.
        data: area under the data.
        colormap: name of the colour map from the first layer to the last, and the lower and upper
            end of the part of it that can be seen on this page.
    """

    page: str
    ink: str
    muted: str
    grid: str
    data: str
    colormap: tuple[str, float, float]


LIGHT = Look("#ffffff", "#1f2328", "#6e7781", "#e4e7eb", "#c3ccd6", ("viridis", 0.0, 0.88))
DARK = Look("#16181d", "#e6e8eb", "#9aa4af", "#2b3038", "#3d4753", ("viridis", 0.22, 1.0))


class NotebookFigure(Figure):
    """A figure that a notebook shows as the value of a cell, as it shows figures of pyplot."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        FigureCanvasAgg(self).print_png(png)  # type: ignore[no-untyped-call]
        return png.getvalue()


def family_style(family: Family) -> dict[str, Any]:
    """Return a family's colour and dashes as matplotlib's lines take them."""
    return {"color": family.color, "linestyle": family.dashes}


def canvas(
    look: Look, heights: Sequence[float], *, width: float = _WIDTH, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """Make a figure of rows of axes in the page's colours.

    Args:
        look: colours of the page.
        heights: height of each row, in inches.
        width: width of the figure, in inches.
        sharex: whether the rows share their x axis.
    """
    figure = NotebookFigure(figsize=(width, sum(heights)), dpi=_DPI, layout="constrained")
    figure.set_facecolor(look.page)
    grid = figure.subplots(
        len(heights), 1, sharex=sharex, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    rows: list[Axes] = list(grid[:, 0])
    for axes in rows:
        axes.set_facecolor(look.page)
        axes.tick_params(colors=look.muted, labelcolor=look.ink, labelsize=_TICK, which="both")
        axes.grid(color=look.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_color(look.muted)
            spine.set_visible(side in ("left", "bottom"))
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=look.ink, fontsize=_LABEL)
    return figure, rows


def title(axes: Axes, look: Look, record: Record, start: Record | None, note: str) -> None:
    """Write the stream's name, size and steps above the axes, and below them what was found.

    Args:
        axes: the figure's first axes.
        look: colours of the page.
        record: the stream's record.
        start: an earlier record of the stream, if one is drawn.
        note: what was found; wrapped if it is long.
    """
    first = record.step if start is None else start.step
    steps = f"step {record.step}" if first == record.step else f"step {first} to {record.step}"
    values = f"{record.n:,} {printable(kind_label(record.kind))}"
    lines = (printable(record.name), f"{values}, {steps}", *wrap(note, _LONGEST_LINE))
    heading(axes, look, "\n".join(line for line in lines if line))


def heading(axes: Axes, look: Look, text: str) -> None:
    """Write what the figure shows above the axes, at the left."""
    axes.set_title(text, loc="left", color=look.ink, fontsize=_TITLE)


def legend(figure: Figure, look: Look, entries: Sequence[tuple[Artist, str]]) -> None:
    """Put a legend below the axes, where it hides no data; the figure grows by its height."""
    if not entries:
        return
    columns = 2 if max(len(label) for _, label in entries) <= _LONGEST_OF_TWO else 1
    rows = -(-len(entries) // columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + _LEGEND_ROW * (rows + 1))
    figure.legend(
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="outside lower left",
        ncols=columns,
        fontsize=_TICK,
        labelcolor=look.ink,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.2,
    )


def blank(axes: Axes, look: Look, reason: str) -> None:
    """Remove the ticks of the x axis and say why nothing is drawn.

    Axes that share their x axis lose its ticks together; where others of them show data, use
    `note`.
    """
    axes.set_xticks([])
    note(axes, look, reason)


def note(axes: Axes, look: Look, text: str) -> None:
    """Write a text into the middle of the axes."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, color=look.muted, fontsize=_LABEL, ha="center"
    )


def rendered(figure: Figure) -> Pixels:
    """Return a figure's pixels, drawn without a window and without pyplot."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgba = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(rgba[..., :3])


def printable(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a stream's name as text that any figure can show.

    Characters that the font lacks, and those that cannot be printed, are written as escape
    sequences; formulas are not interpreted, and a long name loses its middle.

    Args:
        name: of a stream, or any other text that comes from a user or a file.
        longest: most characters of the result, before the escape of ``$``.

    >>> printable("a" * 30 + "b" * 30, longest=21)
    'aaaaaaaaaa…bbbbbbbbbb'
    """
    spelled = "".join(_spelled(character) for character in name[: 4 * longest])
    half = (longest - 1) // 2
    tail = "".join(_spelled(character) for character in name[-4 * longest :])[-half:]
    short = spelled if len(spelled) <= longest else f"{spelled[:half]}…{tail}"
    return short.replace("$", r"\$")


@lru_cache(maxsize=4096)
def _spelled(character: str) -> str:
    """Return the character, or its escape sequence where the font has no glyph for it."""
    font = get_font(findfont(FontProperties()))
    if character.isprintable() and font.get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode()
