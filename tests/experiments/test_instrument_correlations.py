"""Correlations between curves: exact on synthetic datasets, with intervals that cover."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.instrument_correlations import (
    REFERENCES,
    Run,
    course,
    course_means,
    curves,
    ends,
    main,
    nearest,
    outcomes,
    read,
)
from experiments.result import Result
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

GAP = REFERENCES["gap"]
STEPS = tuple(range(1, 21))


@dataclass(frozen=True, eq=False)
class OwnRow(Row):
    """What an instrument of somebody's own writes; nothing here knows its name."""

    follows: float = column("1", "what goes with the gap", curve=True)
    against: float = column("1", "what goes against it", curve=True)
    chance: float = column("1", "what has nothing to do with it", curve=True)
    silent: float = column("1", "never finite", curve=True)
    hidden: float = column("1", "no curve", 1.0)


OWN = Schema(OwnRow, "own_thing", "Somebody's own")


def gaps(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).permutation(20) / 100


def write_run(
    folder: Path, seed: int, *, choices: Mapping[str, str], metrics: Mapping[str, float]
) -> Path:
    """A run whose gap is a random walk through 20 values, in two streams beside each other."""
    (folder / ".hydra").mkdir(parents=True)
    sink = DatasetSink()
    sink.open(RunContext(directory=folder))
    chance = np.random.default_rng(1000 + seed).normal(size=20)
    for step, gap, noise in zip(STEPS, gaps(seed), chance, strict=True):
        records = [
            Record(kind="weight", name=name, step=step, n=9, gap=gap + off, q=math.nan)
            for name, off in (("a", 0.0), ("b", 0.002), ("c", 5.0))
        ]
        sink.write(Records(records), Records())
        rows = [
            OwnRow(
                kind="weight", name=name, step=step,
                follows=math.exp(9 * gap), against=-(gap**3), chance=noise,
            )
            for name in ("a", "b")
        ]  # fmt: skip
        sink.write(Frame.from_rows(OWN, rows), [])
    sink.close(Records(), Records(), Records())
    config = {"seed": seed, "name": "test"}
    Result(config, dict(choices), dict(metrics), "jaynes", 1.0, {}).write(folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of two conditions."""
    home = tmp_path_factory.mktemp("study")
    for number, model in enumerate(("mlp", "mlp", "cnn", "cnn", "mlp", "cnn")):
        write_run(
            home / f"model={model},seed={number}", number,
            choices={"model": model},
            metrics={
                "test/accuracy": 0.5 + number / 100, "robust/plain": 0.5,
                "robust/noise_0.5": 0.2, "robust/occlusion_0.5": 0.4 + number / 100,
                "robust/pruned_0.9": 0.3 - number / 100, "robust/bits_4": 0.1,
            },
        )  # fmt: skip
    return home


@pytest.fixture(scope="module")
def runs(study: Path) -> list[Run]:
    return read([study])


# Reading --------------------------------------------------------------------------------------


def test_the_curves_of_any_instrument_are_found_by_its_schema(study: Path) -> None:
    table = curves(study / "model=mlp,seed=0" / "jaynes")
    own = {f"own_thing/weight/{name}" for name in ("follows", "against", "chance")}
    assert {name for name in table if name.startswith("own_thing/")} == own
    assert GAP in table
    assert table.index.tolist() == list(STEPS)
    # The median of three streams, of which one is far off.
    np.testing.assert_allclose(table[GAP], gaps(0) + 0.002)


def test_outcomes_are_means_of_kinds_of_damage(runs: list[Run]) -> None:
    (first, *others) = runs
    assert {run.condition for run in (first, *others)} == {"mlp", "cnn"}
    found = outcomes(
        {"test/accuracy": 0.8, "robust/noise_1": 0.1, "robust/noise_0.5": 0.3,
         "robust/contrast_0.8": 0.6, "robust/pruned_0.5": 0.4, "robust/plain": 1.0,
         "train/loss": 3.0}
    )  # fmt: skip
    # Shares of the accuracy; the two strengths of one kind count as one.
    assert found == pytest.approx({"accuracy": 0.8, "corrupted": 0.5, "pruned": 0.5})
    assert outcomes({}) == {}


# Course ---------------------------------------------------------------------------------------


def test_known_correlations_over_the_course_are_found(runs: list[Run]) -> None:
    means = course_means(course(runs)).set_index("curve")
    assert means.loc["own_thing/weight/follows", "gap, course"] == pytest.approx(1.0)
    assert means.loc["own_thing/weight/against", "gap, course"] == pytest.approx(-1.0)
    by_scipy = [
        stats.spearmanr(gaps(seed), np.random.default_rng(1000 + seed).normal(size=20)).statistic
        for seed in range(6)
    ]
    found = means.loc["own_thing/weight/chance"]
    # Seeds are averaged within the two conditions.
    by_condition = [np.mean([by_scipy[run] for run in own]) for own in ((0, 1, 4), (2, 3, 5))]
    assert found["gap, course"] == pytest.approx(np.mean(by_condition))
    interval = stats.t.interval(0.95, 1, np.mean(by_condition), stats.sem(by_condition))
    assert found["gap, course ±"] == pytest.approx((interval[1] - interval[0]) / 2)
    assert found["runs"] == 6


def test_changes_of_curves_that_only_rise_may_go_apart() -> None:
    """Two curves that only rise agree in course; of their changes one is the other reversed."""
    steps = np.arange(30.0)
    wiggle = np.random.default_rng(0).uniform(0.2, 0.8, 30)
    table = pd.DataFrame({GAP: steps + wiggle, "b/weight/x": steps - wiggle})
    (row,) = (
        course_means(course([Run("", table, {})])).query("curve == 'b/weight/x'").to_dict("records")
    )
    assert row["gap, course"] == pytest.approx(1.0, abs=0.01)
    assert row["gap, changes"] == pytest.approx(-1.0)
    assert math.isnan(row["gap, chance"])


def test_a_common_slow_down_is_told_by_runs_of_other_conditions() -> None:
    """Curves that settle have changes that shrink together, though they are independent."""
    steps, source = np.arange(30.0), np.random.default_rng(0)

    def settling(condition: str) -> Run:
        noise = source.normal(scale=0.002, size=(2, 30))
        gap, other = np.exp(-steps / 8) + noise
        return Run(condition, pd.DataFrame({GAP: gap, "b/weight/x": other}), {})

    pairs = course([settling(condition) for condition in "aabbcc"])
    (row,) = course_means(pairs).query("curve == 'b/weight/x'").to_dict("records")
    assert row["gap, changes"] > 0.5
    assert row["gap, chance"] == pytest.approx(row["gap, changes"], abs=0.15)
    (best,) = nearest(pairs).query("curve == 'b/weight/x'").to_dict("records")
    assert best["chance"] == pytest.approx(best["rho"], abs=0.15)


def test_curves_of_few_runs_are_not_the_nearest() -> None:
    source = np.random.default_rng(0)
    runs = []
    for number in range(6):
        own = source.normal(size=40)
        table = pd.DataFrame({"a/weight/x": own, "b/weight/y": own + source.normal(size=40)})
        if number == 0:
            table["c/weight/rare"] = own
        runs.append(Run("mn"[number % 2], table, {}))
    best = nearest(course(runs)).set_index("curve")["nearest"]
    assert best["a/weight/x"] == "b/weight/y"
    # A rare one may have a nearest itself.
    assert best["c/weight/rare"] == "a/weight/x"


def test_by_condition_the_runs_of_each_are_averaged(runs: list[Run]) -> None:
    pairs = course(runs)
    table = course_means(pairs, by=["condition"]).set_index(["condition", "curve"])
    of_mlp = pairs[
        (pairs["condition"] == "mlp")
        & (pairs["curve"] == "own_thing/weight/chance")
        & (pairs["other"] == GAP)
    ]
    found = table.loc[("mlp", "own_thing/weight/chance")]
    assert found["gap, changes"] == pytest.approx(of_mlp["changes"].mean())
    assert found["runs"] == 3


def test_the_nearest_is_of_another_instrument(runs: list[Run]) -> None:
    table = nearest(course(runs)).set_index("curve")
    assert table.loc["own_thing/weight/follows", "nearest"] == GAP
    assert table.loc["own_thing/weight/follows", "rho"] > 0.9
    assert abs(table.loc["own_thing/weight/chance", "rho"]) < 0.6


def test_few_steps_give_no_correlation() -> None:
    table = pd.DataFrame({GAP: [1.0, 2.0, 3.0], "b/weight/x": [1.0, 2.0, 3.0]})
    assert course([Run("", table, {})]).empty


# Ends -----------------------------------------------------------------------------------------


def run_of(condition: str, value: float, accuracy: float) -> Run:
    return Run(condition, pd.DataFrame({"a/weight/x": [0.0, value]}), {"accuracy": accuracy})


def test_a_difference_between_conditions_is_no_correlation_within_them() -> None:
    """Simpson: within both conditions the accuracy falls with x, between them it rises."""
    runs = [run_of("a", x, 0.5 - x / 10) for x in (1.0, 2.0, 3.0)]
    runs += [run_of("b", x, 1.5 - x / 10) for x in (4.0, 5.0, 6.0)]
    (within,) = ends(runs, within=True).itertuples()
    (pooled,) = ends(runs, within=False).itertuples()
    assert within.rho == pytest.approx(-1.0)
    assert pooled.rho > 0.5
    accuracies = [run.outcomes["accuracy"] for run in runs]
    expected = stats.spearmanr(range(6), accuracies).statistic
    assert pooled.rho == pytest.approx(expected)


def test_a_condition_of_one_run_says_nothing_of_what_is_within() -> None:
    runs = [run_of(str(number), number, number) for number in range(6)]
    assert ends(runs, within=True).empty
    assert len(ends(runs, within=False)) == 1


@pytest.mark.parametrize("within", [False, True])
def test_the_interval_covers_what_it_says(within: bool) -> None:
    """Of pairs without any relation it leaves out 0 in one of twenty."""
    source = np.random.default_rng(0)
    names = [f"a/weight/{number}" for number in range(300)]
    runs = [
        Run(
            condition,
            pd.DataFrame([source.normal(size=300) + shift * within], columns=names),
            {"accuracy": source.normal() + shift * within},
        )
        for condition, shift in (("a", 0.0), ("b", 9.0), ("c", -9.0))
        for _ in range(8)
    ]
    table = ends(runs, within=within)
    outside = (table["low"] > 0) | (table["high"] < 0)
    assert len(table) == 300
    assert 5 <= outside.sum() <= 26


def test_too_few_runs_have_no_interval() -> None:
    runs = [run_of(c, x, x) for c in "ab" for x in (1.0, 2.0)]
    assert ends(runs, within=True).empty
    more = [*runs, run_of("a", 3.0, 1.5), run_of("c", 1.0, 1.0), run_of("c", 2.0, 1.5)]
    (row,) = ends(more, within=True).itertuples()
    assert row.runs == 7
    assert math.isfinite(row.low)
    (row,) = ends(more[:5], within=True).itertuples()
    assert math.isfinite(row.low)
    # Ranks in one order throughout have no spread to judge by.
    same = [run_of("a", float(x), float(x)) for x in range(9)]
    (row,) = ends(same, within=True).itertuples()
    assert (row.rho, math.isnan(row.low)) == (pytest.approx(1.0), True)
    assert ends([run_of("a", 1.0, x) for x in range(9)], within=True).empty


# The command ----------------------------------------------------------------------------------


def test_the_tables_fit_100_columns_and_are_written(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(study), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "Ends, within condition (6 runs)" in printed
    assert "weight follows" in printed
    assert "chance" in printed
    page = (tmp_path / "out" / "correlations.md").read_text()
    assert "| `own_thing/weight/against` | " in page
    assert f"`python -m experiments.instrument_correlations {study}`: 6 runs." in page
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    assert set(pairs["run"]) == set(range(6))
    assert (tmp_path / "out" / "ends_within_condition.csv").is_file()


def test_nothing_to_read_is_told(
    tmp_path: Path, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no finished run (result.json) below" in capsys.readouterr().err
    folder = make_run("one", {"fc.weight": (0.1, 0.2)})
    Result({}, {}, {}, None, 1.0, {}).write(folder)
    assert main([str(folder)]) == 1
    assert "has no dataset of a monitor" in capsys.readouterr().err
