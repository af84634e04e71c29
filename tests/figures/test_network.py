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
    columns_over_steps,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    microstructure_map,
    rendered,
    statistics_map,
)
from jaynes_callbacks.instruments.gradients import GRADIENT, UPDATE
from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.records.history import History

OF_HISTORY = (
    gap_over_steps,
    gap_map,
    laws_over_steps,
    microstructure_map,
    columns_over_steps,
)
ALL = (*OF_HISTORY, statistics_map, exponents_over_layers)
EVIL = ["$\\frac{1}$", "层.权重", "new\nline\0", "a" * 300, "%s {0}", ""]

Draw = Callable[..., Figure]

of_all = pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
of_history = pytest.mark.parametrize("draw", OF_HISTORY, ids=lambda draw: draw.__name__)


@of_all
@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.sampled(3)
def test_a_run_is_drawn_on_its_page(draw: Draw, look: Look, snapshots: list[Records]) -> None:
    figure = draw(sum(snapshots, Records()), look=look)
    image = rendered(figure)
    ground = np.array([int(look.page[part : part + 2], 16) for part in (1, 3, 5)])
    assert (image[0, 0] == ground).all()
    assert (image[-1, -1] == ground).all()
    assert np.ptp(image) > 150


@of_all
@pytest.mark.parametrize("rows", [[], [Record()], [Record(name="a", gap=0.1, best_family="gamma")]])
@pytest.mark.sampled(4)
def test_little_is_drawn_too(draw: Draw, rows: list[Record]) -> None:
    rendered(draw(rows))


@of_all
@pytest.mark.sampled(3)
def test_any_kind_is_drawn_under_its_name(draw: Draw, snapshots: list[Records]) -> None:
    weights = [records[0] for records in snapshots]
    figure = draw([row.replace(kind=kind) for kind in (UPDATE, GRADIENT) for row in weights])
    rendered(figure)
    said = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    for kind in (UPDATE, GRADIENT):
        assert any(kind in text for text in said)
    assert not any("weights" in text for text in said if "Gaussian weights" not in text)


@of_history
@pytest.mark.sampled(2)
def test_rows_frames_and_histories_are_drawn_alike(draw: Draw, snapshots: list[Records]) -> None:
    history = History(SCHEMA)
    for records in snapshots:
        history.append(records)
    expected = rendered(draw(history.frame()))
    assert (rendered(draw(history)) == expected).all()
    if draw is not columns_over_steps:  # whose title rows do not know
        assert (rendered(draw(list(history))) == expected).all()


@of_history
def test_of_a_history_no_row_is_made(
    draw: Draw, snapshots: list[Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(SCHEMA)
    for records in snapshots:
        history.append(records)

    def fails(*_: object) -> None:
        raise AssertionError("a row was made")

    monkeypatch.setattr(type(SCHEMA), "row_of", fails)
    with pytest.raises(AssertionError, match="a row was made"):
        list(history)
    draw(history)


@of_all
@pytest.mark.sampled(3)
def test_names_are_no_formulas_and_stay_on_the_page(draw: Draw, snapshots: list[Records]) -> None:
    rows = [snapshots[0][0].replace(name=name) for name in EVIL]
    figure = draw([*rows, *(row.replace(step=5) for row in rows)])
    rendered(figure)
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert not any("\n\0" in text.get_text() for text in shown if isinstance(text, Text))


@of_all
@pytest.mark.sampled(3)
def test_a_thousand_streams_are_drawn_in_seconds(
    draw: Draw, course: Callable[..., list[Record]]
) -> None:
    rows = [row for number in range(1000) for row in course(f"layers.{number}", [0.4, 0.2, 0.05])]
    since = time.process_time()
    rendered(draw(rows))
    assert time.process_time() - since < 10
