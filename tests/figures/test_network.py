"""What the figures of the whole network have in common."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from jaynes_callbacks.figures import (
    DARK,
    LIGHT,
    Look,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    microstructure_map,
    statistics_map,
)
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.sinks.images import rendered

ALL = (
    gap_over_steps,
    gap_map,
    laws_over_steps,
    microstructure_map,
    statistics_map,
    exponents_over_layers,
)
EVIL = ["$\\frac{1}$", "层.权重", "new\nline\0", "a" * 300, "%s {0}", ""]

pytestmark = pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)

Draw = Callable[..., Figure]


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_a_run_is_drawn_on_its_page(draw: Draw, look: Look, snapshots: list[Records]) -> None:
    figure = draw(sum(snapshots, Records()), look=look)
    image = rendered(figure)
    ground = np.array([int(look.page[part : part + 2], 16) for part in (1, 3, 5)])
    assert (image[0, 0] == ground).all()
    assert (image[-1, -1] == ground).all()
    assert np.ptp(image) > 150


@pytest.mark.parametrize("rows", [[], [Record()], [Record(name="a", gap=0.1, best_family="gamma")]])
def test_little_is_drawn_too(draw: Draw, rows: list[Record]) -> None:
    rendered(draw(rows))


def test_names_are_no_formulas_and_stay_on_the_page(draw: Draw, snapshots: list[Records]) -> None:
    rows = [snapshots[0][0].replace(name=name) for name in EVIL]
    figure = draw([*rows, *(row.replace(step=5) for row in rows)])
    rendered(figure)
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert not any("\n\0" in text.get_text() for text in shown if isinstance(text, Text))


def test_a_thousand_streams_are_drawn_in_seconds(
    draw: Draw, course: Callable[..., list[Record]]
) -> None:
    rows = [row for number in range(1000) for row in course(f"layers.{number}", [0.4, 0.2, 0.05])]
    since = time.process_time()
    rendered(draw(rows))
    assert time.process_time() - since < 10
