from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.summaries.figures import draw
from experiments.summaries.runs import found
from experiments.summaries.tables import Study, summary

MakeRun = Callable[..., Path]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that is written, by its file's name, as it is drawn."""
    figures: dict[str, Figure] = {}

    def keep(self: Figure, path: Path) -> None:
        self.canvas.draw()
        figures[path.stem] = self

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def study(folder: Path) -> Study:
    return Study(found([folder / "runs"])[0])


def labels(figure: Figure, axis: str) -> list[str]:
    return [tick.get_text() for tick in getattr(figure.axes[0], f"get_{axis}ticklabels")()]


def test_gaps_go_from_start_to_end_and_none_below_the_floor(
    make_run: MakeRun, drawn: dict[str, Figure], tmp_path: Path
) -> None:
    make_run("a", {"a.weight": (0.4, 0.1)}, choices={"init": "default"})
    make_run("b", {"a.weight": (0.0001, 0.2)}, choices={"init": "lognormal"})
    made = study(tmp_path)
    names = draw(made, summary(made), tmp_path)
    assert [name.stem for name in names] == list(drawn)
    figure = drawn["gaps"]
    assert labels(figure, "y") == ["default", "lognormal"]
    start = np.asarray(figure.axes[0].collections[1].get_offsets())
    assert start[:, 0] == pytest.approx([0.4, 0.001])
    assert "≤ 0.001" in labels(figure, "x")
    assert "0.1" in labels(figure, "x")


@pytest.mark.parametrize(("values", "scale"), [((64, 256), "log"), ((0.0, 0.01, 1.0), "symlog")])
def test_a_number_that_was_varied_has_an_axis(
    values: tuple[float, ...],
    scale: str,
    make_run: MakeRun,
    drawn: dict[str, Figure],
    tmp_path: Path,
) -> None:
    for number, value in enumerate(values):
        gaps = {"a.weight": (0.4, 0.1 + 0.01 * number)}
        make_run(f"run{number}", gaps, config={"optimizer": {"weight_decay": value}})
    made = study(tmp_path)
    draw(made, summary(made), tmp_path)
    axes = drawn["gap_along_weight_decay"].axes[0]
    assert axes.get_xscale() == scale
    assert labels(drawn["gap_along_weight_decay"], "x") == [f"{value:g}" for value in values]
