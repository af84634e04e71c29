"""Draw the figures of the whole network as images that lie in the page itself."""

import base64
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from jaynes_callbacks.figures import (
    DARK,
    LIGHT,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    microstructure_map,
    rendered,
    statistics_map,
)
from jaynes_callbacks.report.runs import Run

__all__ = ["Chart", "charts"]

#: Colours of an image: lines and letters need no more, and its size is a third.
_COLOURS = 64

#: Draws a figure; takes its look by name.
_Draw = Callable[..., Figure]


class Chart(NamedTuple):
    """A figure on light and on dark paper.

    Attributes:
        title: what it shows.
        light: the image on light paper, as a data URI.
        dark: the same on dark paper.
        width: in pixels.
        height: in pixels.
    """

    title: str
    light: str
    dark: str
    width: int
    height: int


def charts(run: Run, *, all_of_them: bool = True) -> list[Chart]:
    """Draw the figures that a run's records allow.

    Args:
        run: the run.
        all_of_them: whether to draw all; else the first only, which answers the question.
    """
    figures = [*_of_history(run), *_of_moment(run)]
    return [_chart(title, draw) for title, draw in figures[: None if all_of_them else 1]]


def _of_history(run: Run) -> Sequence[tuple[str, _Draw]]:
    drawn = (
        ("The gap of every stream through training", gap_over_steps),
        ("The gap of every stream as a map", gap_map),
        ("The law that fits best, record by record", laws_over_steps),
        ("Training as paths among known laws", microstructure_map),
    )
    return [(title, partial(draw, run.history)) for title, draw in drawn if run.is_trained]


def _of_moment(run: Run) -> Sequence[tuple[str, _Draw]]:
    drawn = (
        ("Exponents: the data, chance and the paper’s networks", exponents_over_layers),
        ("Every statistic of every stream", statistics_map),
    )
    return [(title, partial(draw, run.end)) for title, draw in drawn if len(run.end)]


def _chart(title: str, draw: _Draw) -> Chart:
    light, dark = (Image.fromarray(rendered(draw(look=look))) for look in (LIGHT, DARK))
    return Chart(title, _uri(light), _uri(dark), *light.size)


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
