"""How figures look: paper, ink, colours, and names that are safe to print.

Line colours are those of M. Okabe & K. Ito, *Color Universal Design* (2008), which every colour
vision can tell apart; lines differ in their dashes too.  Nothing is taken from or written to
matplotlib's global settings, but for the user's own choice of font.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from textwrap import wrap
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.statistics import FAMILIES, LOGNORMAL

__all__ = [
    "DARK",
    "LIGHT",
    "Line",
    "Look",
    "blank",
    "canvas",
    "family_line",
    "heading",
    "legend",
    "printable",
    "title",
]

#: Inches × dots per inch: 800 pixels wide, and the smallest letters 9 pixels high at half of that.
_WIDTH, _DPI = 5.0, 160
_TITLE, _LABEL, _TICK = 9.5, 9.0, 8.0
_LONGEST_NAME = 52
_LONGEST_LINE = 60
#: Longest label of a legend in two columns, and the height of one of its rows in inches.
_LONGEST_OF_TWO = 32
_LEGEND_ROW = 0.165


@dataclass(frozen=True)
class Look:
    """Colours of a page.

    Attributes:
        page: behind everything.
        ink: text and the main line.
        muted: what stands back: axes, the start.
        grid: barely seen.
        data: area of the data.
        colormap: from the first layer to the last, and the part of it that this page can show.
    """

    page: str
    ink: str
    muted: str
    grid: str
    data: str
    colormap: tuple[str, float, float]


LIGHT = Look("#ffffff", "#1f2328", "#6e7781", "#e4e7eb", "#c3ccd6", ("viridis", 0.0, 0.88))
DARK = Look("#16181d", "#e6e8eb", "#9aa4af", "#2b3038", "#3d4753", ("viridis", 0.22, 1.0))


class Line(NamedTuple):
    """How one family is drawn."""

    color: str
    linestyle: str | tuple[int, tuple[float, ...]]


_LOGNORMAL = Line("#d55e00", "-")
_RIVALS = (
    Line("#009e73", "--"),
    Line("#cc79a7", ":"),
    Line("#e69f00", "-."),
    Line("#3a8fd6", (0, (5, 1))),
    Line("#8a8f2a", (0, (3, 1, 1, 1))),
    Line("#7f6fc9", (0, (1, 1))),
    Line("#8c8c8c", (0, (6, 2, 1, 2))),
)


def family_line(name: str) -> Line:
    """The family's own colour and dashes, the same in every figure."""
    if name == LOGNORMAL.name:
        return _LOGNORMAL
    rivals = [family.name for family in FAMILIES if family is not LOGNORMAL]
    return _RIVALS[rivals.index(name) % len(_RIVALS)]


def canvas(
    look: Look, heights: Sequence[float], *, width: float = _WIDTH, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of rows of axes in the page's colours.

    Args:
        look: of the page.
        heights: of the rows, in inches.
        width: in inches.
        sharex: whether the rows share their x axis.
    """
    figure = Figure(figsize=(width, sum(heights)), dpi=_DPI, layout="constrained")
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
    """Stream, size and steps above the axes, and one line of what was found."""
    first = record.step if start is None else start.step
    steps = f"step {record.step}" if first == record.step else f"step {first} to {record.step}"
    kind = "activations" if record.kind == "iota" else "weights"
    lines = (printable(record.name), f"{record.n:,} {kind}, {steps}", *wrap(note, _LONGEST_LINE))
    heading(axes, look, "\n".join(line for line in lines if line))


def heading(axes: Axes, look: Look, text: str) -> None:
    """What the figure shows, above the axes at the left."""
    axes.set_title(text, loc="left", color=look.ink, fontsize=_TITLE)


def legend(figure: Figure, look: Look, entries: Sequence[tuple[Artist, str]]) -> None:
    """All entries below the axes, where they hide no data; the figure grows by their height."""
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
    """Say in the axes' midst why nothing is drawn there."""
    axes.set_xticks([])
    axes.text(
        0.5, 0.5, reason, transform=axes.transAxes, color=look.muted, fontsize=_LABEL, ha="center"
    )


def printable(name: str, longest: int = _LONGEST_NAME) -> str:
    """A stream's name as text that any figure can hold.

    Characters that the font lacks or that are no text are spelled out, formulas are not
    interpreted, and a long name loses its middle.

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
    font = get_font(findfont(FontProperties()))
    if character.isprintable() and font.get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode()
