import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.report import Run
from jaynes_callbacks.report.compare import Spread, compare
from jaynes_callbacks.report.page import page


@pytest.fixture
def make(invented: Callable[..., Record]) -> Callable[..., Run]:
    def run(
        name: str,
        parameters: Mapping[str, Any],
        gap: float,
        choices: Mapping[str, Any] | None = None,
        description: Mapping[str, Any] | None = None,
        start: float = 0.2,
    ) -> Run:
        first = Records([invented(1, 0).replace(gap=start)])
        last = Records([invented(1, 9, "approaching").replace(gap=gap, best_family="gamma")])
        return Run(name, first + last, first, last, parameters, choices or {}, description or {})

    return run


def test_seeds_repeat_a_condition(make: Callable[..., Run]) -> None:
    runs = [
        make(f"{rate}-{seed}", {"optimizer.lr": rate, "seed": seed, "model.width": 64}, gap)
        for rate, seed, gap in ((0.1, 1, 0.10), (0.1, 2, 0.14), (0.2, 1, 0.05))
    ]
    found = compare(runs)
    assert found.parameters == ("lr",)
    assert [(each.values, each.runs) for each in found.conditions] == [(("0.1",), 2), (("0.2",), 1)]
    first, second = found.conditions
    assert first.end == pytest.approx((0.12, 0.02 * math.sqrt(2)))
    assert str(second.end) == "0.050"
    assert first.verdicts == {"approaching": 2}
    assert first.best == "gamma"


def test_cores_stand_beside_the_gaps_where_they_were_measured(make: Callable[..., Run]) -> None:
    plain = [make(f"{seed}", {"lr": 0.1 * seed}, 0.1) for seed in (1, 2)]
    assert not compare(plain).has_cores
    assert "core (Gauss)" not in page(plain)
    known = Records([plain[0].end[0].replace(core_gap=0.151, core_gap_gaussian=0.162)])
    runs = [replace(plain[0], end=known), plain[1]]
    first, second = compare(runs).conditions
    assert (str(first.core), str(first.core_gaussian), str(second.core)) == ("0.151", "0.162", "–")
    assert '<td class="number" data-key="0.151">0.151 (0.162)</td>' in page(runs)


def test_runs_of_which_nothing_is_known_are_no_repetitions(make: Callable[..., Run]) -> None:
    found = compare([make("one", {}, 0.1), make("two", {}, 0.2)])
    assert found.parameters == ("run",)
    assert [(each.values, each.runs) for each in found.conditions] == [(("one",), 1), (("two",), 1)]


def test_names_are_as_short_as_they_can_be(make: Callable[..., Run]) -> None:
    one = {"model.net.width": 1, "data.width": 3, "optimizer.lr": 0.1}
    two = {"model.net.width": 2, "data.width": 4, "optimizer.lr": 0.2}
    assert compare([make("a", one, 0.1), make("b", two, 0.1)]).parameters == (
        "net.width",
        "data.width",
        "lr",
    )


def test_each_kind_has_a_row_of_its_own(run: Run) -> None:
    assert [each.kind for each in compare([run, run]).conditions] == ["weights", "activations"]


def test_what_is_not_finite_does_not_count() -> None:
    assert Spread.of([0.1, math.nan, 0.3]).mean == pytest.approx(0.2)
    assert str(Spread.of([math.nan])) == "–"


def test_conditions_have_the_names_of_the_command_line(make: Callable[..., Run]) -> None:
    runs = [
        make(law, {"init.law": f"experiments.{law}", "init.df": df}, 0.1, {"init": law, "seed": 1})
        for law, df in (("laplace", None), ("student", 4))
    ]
    found = compare(runs)
    assert found.parameters == ("init",)
    assert [each.values for each in found.conditions] == [("laplace",), ("student",)]


def test_a_command_line_that_hides_a_difference_is_not_enough(make: Callable[..., Run]) -> None:
    runs = [make(f"{lr}", {"lr": lr, "seed": 1}, 0.1, {"init": "laplace"}) for lr in (0.1, 0.2)]
    found = compare(runs)
    assert found.parameters == ("lr",)
    assert [each.runs for each in found.conditions] == [1, 1]


def test_a_run_that_has_not_finished_is_no_repetition(make: Callable[..., Run]) -> None:
    finished = make("one", {"lr": 0.1}, 0.1)
    broken = make("two", {"lr": 0.1}, 0.3, None, {"outcome": "interrupted"})
    found = compare([finished, finished, broken])
    assert found.unfinished == 1
    assert [(each.runs, str(each.end)) for each in found.conditions] == [(2, "0.100 ± 0.000")]
    assert compare([broken, broken]).conditions[0].runs == 2
