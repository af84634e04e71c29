import math
from typing import Any

import pytest

from experiments.result import Result
from experiments.summaries.conditions import conditions, label


def results(*runs: tuple[dict[str, str], dict[str, Any]]) -> list[Result]:
    return [Result({"name": "n", **config}, choices, {}, None, 0.0, {}) for choices, config in runs]


def test_groups_that_were_varied_stand_for_what_they_bring() -> None:
    frame = conditions(
        results(
            *(
                ({"init": init, "model": "mlp"}, {"seed": seed, "init": {"law": init * 2}})
                for init in ("laplace", "normal")
                for seed in (1, 2)
            )
        )
    )
    assert list(frame) == ["init"]
    assert frame["init"].tolist() == ["laplace", "laplace", "normal", "normal"]


def test_a_value_counts_where_runs_of_equal_options_differ_in_it() -> None:
    runs = [
        ({"optimizer": name}, {"seed": 1, "optimizer": {"lr": rate, "target": name}})
        for name, rate in (("sgd", 0.1), ("sgd", 0.2), ("adam", 0.1))
    ]
    frame = conditions(results(*runs))
    assert list(frame) == ["optimizer", "optimizer.lr"]
    assert frame["optimizer.lr"].tolist() == [0.1, 0.2, 0.1]


def test_copies_by_interpolation_count_once() -> None:
    runs = [({}, {"model": {"net": {"in": n}}, "data": {"size": n}, "seed": n}) for n in (1, 2)]
    assert list(conditions(results(*runs))) == ["data.size"]


def test_what_a_control_chooses_is_no_second_column() -> None:
    chosen = [("frozen", "normal"), ("lognormal", "paper"), ("none", "normal")]
    frame = conditions(results(*(({"control": a, "init": b}, {}) for a, b in chosen)))
    assert list(frame) == ["control"]


def test_lists_and_nothing_can_be_varied() -> None:
    frame = conditions(results(({}, {"channels": [1, 2]}), ({}, {"channels": None})))
    assert frame["channels"].tolist() == ["[1, 2]", "null"]


def test_a_group_that_some_runs_lack() -> None:
    frame = conditions(results(({"control": "frozen"}, {}), ({}, {})))
    assert frame["control"].tolist() == ["frozen", "–"]


@pytest.mark.parametrize("number", [1, 3])
def test_nothing_varied_is_one_condition(number: int) -> None:
    frame = conditions(results(*(({"init": "paper"}, {"seed": n}) for n in range(number))))
    assert frame.shape == (number, 0)
    assert label([], []) == "all runs"


def test_a_missing_number_is_no_number_of_its_own() -> None:
    frame = conditions(results(({}, {"x": math.nan}), ({}, {"x": math.nan})))
    assert list(frame) == []
