import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.summaries.runs import found
from experiments.summaries.tables import Study, layers, relation, summary

MakeRun = Callable[..., Path]


@pytest.fixture
def made(make_run: MakeRun, tmp_path: Path) -> Study:
    """Two conditions, of three seeds and of one; two layers of weights and one of neurons."""
    ends = {1: 0.10, 2: 0.12, 3: 0.17}
    for seed, end in ends.items():
        gaps = {"a.weight": (0.4, end), "b.weight": (0.2, end + 0.1), "relu": (0.15, 0.14)}
        make_run(
            f"x{seed}", gaps, seed=seed, accuracy=0.9 + 0.01 * seed,
            verdict="emerged" if seed == 1 else "approaching", choices={"init": "laplace"},
        )  # fmt: skip
    make_run("y", {"a.weight": (0.5, 0.5)}, verdict="not emerging", choices={"init": "default"})
    runs, unfinished = found([tmp_path / "runs"])
    assert unfinished == []
    return Study(runs)


def test_means_and_deviations_over_seeds(made: Study) -> None:
    rows = summary(made).set_index(["kind", "condition"])
    row = rows.loc[("weight", "laplace")]
    ends = np.array([0.15, 0.17, 0.22])
    assert (row["runs"], row["streams"]) == (3, 6)
    assert row["gap_start"] == pytest.approx(0.3)
    assert row["gap_start_sd"] == pytest.approx(0)
    assert row["gap_end"] == pytest.approx(ends.mean())
    assert row["gap_end_sd"] == pytest.approx(ends.std(ddof=1))
    assert row["accuracy"] == pytest.approx(0.92)
    assert row["accuracy_sd"] == pytest.approx(0.01)
    assert row["emerged"] == pytest.approx(1 / 3)
    assert row["approaching"] == pytest.approx(2 / 3)
    assert row["families"] == "Weibull 6"
    assert row["r2_passes_start"] == 0
    assert row["r2_passes_end"] == 1
    alone = rows.loc[("weight", "default")]
    assert math.isnan(alone["gap_end_sd"])
    assert alone["not emerging"] == 1


def test_neurons_have_the_law_of_z(made: Study) -> None:
    rows = summary(made).set_index(["kind", "condition"])
    assert rows.loc[("iota", "laplace"), "z_exponential"] > 0
    assert math.isnan(rows.loc[("weight", "laplace"), "z_exponential"])


def test_every_layer_has_a_row(made: Study) -> None:
    rows = layers(made).set_index(["condition", "name"])
    row = rows.loc[("laplace", "b.weight")]
    assert row["gap_end"] == pytest.approx(np.mean([0.2, 0.22, 0.27]))
    assert row["verdicts"] == "approaching 2, emerged 1"
    assert len(rows) == 4


def test_ranks_of_accuracy_and_gap(made: Study) -> None:
    rows = relation(made).set_index("kind")
    # Accuracies .91, .92, .93, .90 with gaps .15, .17, .22, .50: ranks 2 3 4 1 and 1 2 3 4.
    assert rows.loc["weight", "spearman"] == pytest.approx(-0.2)
    assert rows.loc["weight", "runs"] == 4
    assert math.isnan(rows.loc["iota", "spearman"])


def test_streams_without_a_verdict_are_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("few", {"a.weight": (0.4, 9.0)}, seed=1, verdict="undetermined")
    make_run("many", {"a.weight": (0.4, 0.1)}, seed=2)
    study = Study(found([tmp_path / "runs"])[0])
    assert study.left_out == 1
    (row,) = summary(study).to_dict("records")
    assert (row["condition"], row["runs"], row["gap_end"]) == ("all runs", 1, pytest.approx(0.1))


def test_numbers_are_ordered_by_size(make_run: MakeRun, tmp_path: Path) -> None:
    for width in (64, 4096, 256):
        config = {"model": {"net": {"width": width}}}
        make_run(f"w{width}", {"a.weight": (0.4, 0.3)}, config=config)
    rows = summary(Study(found([tmp_path / "runs"])[0]))
    assert rows["condition"].tolist() == ["width 64", "width 256", "width 4096"]


def test_runs_that_were_not_scored_have_no_accuracy(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("one", {"a.weight": (0.4, 0.3)}, accuracy=None)
    study = Study(found([tmp_path / "runs"])[0])
    assert math.isnan(summary(study)["accuracy"][0])
    assert relation(study).empty


def test_what_was_near_and_left_is_not_near_at_the_end(make_run: MakeRun, tmp_path: Path) -> None:
    gaps = {"a.weight": (0.001, 0.13), "b.weight": (0.004, 0.01)}
    make_run("left", gaps, verdict="present from the start")
    (row,) = summary(Study(found([tmp_path / "runs"])[0])).to_dict("records")
    assert row["present from the start"] == 1
    assert (row["near_start"], row["near_end"]) == (1, 0.5)
