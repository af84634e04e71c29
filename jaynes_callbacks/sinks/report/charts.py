"""Figures of the whole network as images that lie in the page itself."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from jaynes_callbacks.sinks.figures import DARK, LIGHT, Look, gap_over_steps
from jaynes_callbacks.sinks.images import rendered
from jaynes_callbacks.sinks.report.runs import Run

__all__ = ["Chart", "charts"]

#: Colours of an image: lines and letters need no more, and its size is a third.
_COLOURS = 64


class Chart(NamedTuple):
    """A figure on light and on dark paper.

    Attributes:
        title: what it shows.
        light: as a data URI.
        dark: likewise.
        width: in pixels.
        height: in pixels.
    """

    title: str
    light: str
    dark: str
    width: int
    height: int


def charts(run: Run) -> list[Chart]:
    """The figures that a run's records allow."""
    return [_chart(title, draw) for title, draw in _figures(run)]


def _figures(run: Run) -> Sequence[tuple[str, Callable[[Look], Figure]]]:
    if not run.is_trained:
        return ()
    return (("The gap of every stream through training", lambda look: _gaps(run, look)),)


def _gaps(run: Run, look: Look) -> Figure:
    return gap_over_steps(run.history, look=look)


def _chart(title: str, draw: Callable[[Look], Figure]) -> Chart:
    light, dark = (Image.fromarray(rendered(draw(look))) for look in (LIGHT, DARK))
    return Chart(title, _uri(light), _uri(dark), *light.size)


def _uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
