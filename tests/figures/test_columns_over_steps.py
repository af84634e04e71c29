from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from jaynes_callbacks.figures import DARK, LIGHT, Look, columns_over_steps, rendered
from jaynes_callbacks.figures.layers import layer_colors
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.history import History
from jaynes_callbacks.records.schema import Row, Schema, column

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class NormRow(Row):
    """A table that no figure knows."""

    norm: float = column("w", "Euclidean norm", label="‖w‖", curve=True)
    rank: int = column("1", "numerical rank", 0, curve=True)
    hidden: float = column("", "nobody wants a curve of it")


SCHEMA = Schema(NormRow, "norms", "Norms of the weights")


def course(name: str, norms: list[float], kind: str = "weight", rank: int = 3) -> list[NormRow]:
    return [
        NormRow(kind=kind, name=name, step=10 * number, norm=norm, rank=rank + number)
        for number, norm in enumerate(norms)
    ]


def lines(figure: Figure, row: int) -> list[LineCollection]:
    return [part for part in figure.axes[row].collections if isinstance(part, LineCollection)]


def paths(figure: Figure, row: int) -> list[list[list[float]]]:
    return [
        np.asarray(path).tolist() for part in lines(figure, row) for path in part.get_segments()
    ]


ROWS = [*course("a", [1.0, 2.0, 4.0]), *course("b", [3.0, 2.0, 1.0])]


def test_each_curve_has_a_row_of_axes_with_its_label_and_unit() -> None:
    figure = columns_over_steps(Frame.from_rows(SCHEMA, ROWS))
    assert [axes.get_ylabel() for axes in figure.axes] == ["‖w‖ (w)", "rank"]
    assert figure.axes[0].get_title(loc="left") == "Norms of the weights"
    assert figure.axes[-1].get_xlabel() == "optimizer step"


def test_each_stream_is_a_line_over_steps() -> None:
    figure = columns_over_steps(ROWS)
    assert paths(figure, 0) == [[[0, 1], [10, 2], [20, 4]], [[0, 3], [10, 2], [20, 1]]]
    assert paths(figure, 1) == [[[0, 3], [10, 4], [20, 5]]] * 2
    np.testing.assert_allclose(lines(figure, 0)[0].get_edgecolor(), layer_colors(LIGHT, 2))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["weight  a", "weight  b"]


def test_circles_mark_the_first_value_of_each_stream() -> None:
    rows = [*course("a", [NAN, 2.0, 4.0]), *course("b", [NAN] * 3), *course("c", [3.0])]
    starts = columns_over_steps(rows).axes[0].collections[-1]
    assert np.asarray(starts.get_offsets()).tolist() == [[10, 2], [0, 3]]
    np.testing.assert_allclose(starts.get_edgecolor(), layer_colors(LIGHT, 3)[[0, 2]])


def test_kinds_share_their_layers_colours_and_differ_in_dashes() -> None:
    rows = [*course("a", [1.0, 2.0], "gradient"), *course("a", [2.0, 3.0], "update")]
    figure = columns_over_steps(rows)
    gradients, updates = lines(figure, 0)
    assert gradients.get_linestyle() != updates.get_linestyle()
    assert (gradients.get_edgecolor() == updates.get_edgecolor()).all()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["gradient  a", "update  a"]
    assert len({line.get_linestyle() for line in legend.get_lines()}) == 2
    assert {to_rgba(line.get_color()) for line in legend.get_lines()} == {
        tuple(gradients.get_edgecolor()[0])
    }


@pytest.mark.parametrize(
    ("norms", "scale"),
    [
        ([0.1, 0.2, 9.0], "linear"),
        ([0.1, 0.2, 11.0], "log"),
        ([0.0, 0.2, 1e9], "linear"),
        ([-1.0, 0.2, 1e9], "linear"),
        ([NAN, 1e-6, 1.0], "log"),
        ([float("inf"), 0.5, 1.0], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_two_decades_of_positive_values_are(
    norms: list[float], scale: str
) -> None:
    axes = columns_over_steps(course("a", norms)).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    finite = [norm for norm in norms if np.isfinite(norm)]
    assert low < min(finite)
    assert max(finite) < high


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_any_holder_of_rows_is_drawn_alike(look: Look) -> None:
    history = History(SCHEMA)
    for step in (0, 10, 20):
        history.append(Frame.from_rows(SCHEMA, [row for row in ROWS if row.step == step]))
    images = [
        rendered(columns_over_steps(rows, look=look))
        for rows in (history, history.frame(), Frame.from_rows(SCHEMA, ROWS))
    ]
    assert (images[0] == images[1]).all()
    assert (images[0] == images[2]).all()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no records"),
        (Frame(SCHEMA, {}), "no records"),
        (History(SCHEMA), "no records"),
        ([Row(name="a")], "no curves"),
        (course("a", [NAN, NAN]), "no values"),
    ],
)
def test_what_is_missing_is_said(rows: list[NormRow], said: str) -> None:
    figure = columns_over_steps(rows)
    rendered(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == [said]


def test_a_column_without_values_leaves_the_steps_of_the_others() -> None:
    figure = columns_over_steps(course("a", [NAN, NAN, NAN]))
    assert len(figure.axes[1].get_xticks()) > 1
    assert paths(figure, 1) == [[[0, 3], [10, 4], [20, 5]]]


def test_texts_of_files_are_no_formulas() -> None:
    @dataclass(frozen=True, eq=False)
    class OddRow(Row):
        odd: float = column("$\\frac{1}$", "", label="$x$ " * 9, curve=True)

    schema = Schema(OddRow, "odd", "$\\bad{$")
    rows = [OddRow(kind="$k$", name="\n\0", step=step, odd=step) for step in range(2)]
    rendered(columns_over_steps(Frame.from_rows(schema, rows)))


def test_a_thousand_streams_are_one_artist_a_column() -> None:
    rows = [row for number in range(1000) for row in course(f"layers.{number}", [1.0, 2.0])]
    figure = columns_over_steps(rows)
    assert len(lines(figure, 0)) == 1
    assert len(figure.legends[0].get_texts()) == 3
