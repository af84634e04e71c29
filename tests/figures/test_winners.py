import numpy as np
from matplotlib.colors import to_rgba

from jaynes_callbacks.figures import laws_over_steps
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.statistics import FAMILY_BY_NAME


def test_each_cell_has_the_colour_of_the_best_law(history: Records) -> None:
    lower = laws_over_steps(history).axes[1]
    (image,) = lower.images
    colors = image.cmap(image.norm(image.get_array()))
    lognormal, gamma = (to_rgba(FAMILY_BY_NAME[name].color) for name in ("lognormal", "gamma"))
    expected = [[gamma, gamma, lognormal], [gamma] * 3]
    np.testing.assert_allclose(colors, expected)
    assert [label.get_text() for label in lower.get_yticklabels()] == ["a.weight", "b.weight"]


def test_medians_are_over_the_streams_of_a_kind(history: Records) -> None:
    upper = laws_over_steps(history).axes[0]
    lines = {line.get_color(): line.get_ydata() for line in upper.lines}
    np.testing.assert_allclose(lines[FAMILY_BY_NAME["lognormal"].color], [0.3, 0.2, 0.125])
    np.testing.assert_allclose(lines[FAMILY_BY_NAME["gamma"].color], [0.1] * 3)
    assert FAMILY_BY_NAME["weibull"].color not in lines


def test_what_has_no_fit_is_blank(history: Records) -> None:
    lower = laws_over_steps(history).axes[3]
    assert not lower.images
    assert [text.get_text() for text in lower.texts] == ["no fits"]


def test_columns_are_records_with_their_steps_below() -> None:
    steps = (0, 1, 10, 1000)
    rows = [Record(name="a", step=step, gap=0.1, best_family="gamma") for step in steps]
    lower = laws_over_steps(rows).axes[1]
    assert lower.get_xticks().tolist() == [0, 1, 2, 3]
    assert [label.get_text() for label in lower.get_xticklabels()] == ["0", "1", "10", "1,000"]
