"""What stands in the run file of W&B, read as W&B's own messages."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.base import RunContext, Sink, sparing
from jaynes_callbacks.sinks.figures import FigureSink
from jaynes_callbacks.sinks.histograms import HistogramSink
from jaynes_callbacks.sinks.loggers import LoggerSink
from jaynes_callbacks.sinks.summary import SummarySink, final_numbers
from tests.sinks.run_files import File

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


def run(snapshots: list[Records], *loggers: Any, figures: int = 1) -> None:
    sinks: list[Sink] = [SummarySink(), LoggerSink(), HistogramSink()]
    sinks.append(FigureSink(max_streams=figures))
    context = RunContext(loggers=loggers)
    history = Records()
    for sink in sinks:
        sink.open(context)
    for records in snapshots:
        history += records.without_counts()
        sparing(sinks, lambda sink: sink.write(records, history))  # noqa: B023
    for sink in sinks:
        sink.close(snapshots[0], snapshots[-1], history)


def end() -> None:
    """`finish` does not wait until W&B's process has closed the file."""
    wandb.finish()
    wandb.teardown()


def offline(directory: Path, **options: Any) -> WandbLogger:
    return WandbLogger(save_dir=directory, offline=True, project="test", **options)


def test_it_is_a_sink() -> None:
    assert isinstance(SummarySink(), Sink)


def test_a_run_has_all_that_w_and_b_can_show(snapshots: list[Records], tmp_path: Path) -> None:
    run(snapshots, offline(tmp_path))
    end()
    file, last = File(tmp_path), snapshots[-1]
    tag = "gap_weight/net.0.weight"
    assert file.curve(tag) == [(s[0].step, pytest.approx(s[0].gap)) for s in snapshots]

    histograms = file.curve("ln_magnitude_weight/net.0.weight")
    assert [step for step, _ in histograms] == [0, 10, 20]
    assert histograms[-1][1]["_type"] == "histogram"
    assert sum(histograms[-1][1]["values"]) == last[0].n
    assert len(histograms[-1][1]["bins"]) == len(histograms[-1][1]["values"]) + 1

    ((step, image),) = file.curve("equilibrium/gap_over_steps")
    assert step == 20
    assert image["_type"] == "images/separated"
    assert any(tag.startswith("log_density_weight/") for row in file.rows for tag in row)

    assert file.summary.items() >= final_numbers(last).items()


def test_the_table_holds_the_final_records(snapshots: list[Records], tmp_path: Path) -> None:
    run(snapshots, offline(tmp_path))
    end()
    ((step, entry),) = File(tmp_path).curve("equilibrium/records")
    assert (step, entry["_type"], entry["nrows"]) == (20, "table-file", 3)
    (path,) = tmp_path.glob("wandb/offline-run-*/files/" + entry["path"])
    table = json.loads(path.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["name"] for row in rows] == [record.name for record in snapshots[-1]]
    assert rows[0]["gap"] == snapshots[-1][0].gap
    assert rows[0]["shape"] == "100×200"
    assert rows[0]["verdict"] == snapshots[-1][0].verdict


@pytest.mark.parametrize("made_by", ["lightning", "user"])
@pytest.mark.sampled(2)
def test_the_axis_is_the_trainer_s_step(
    snapshots: list[Records], tmp_path: Path, made_by: str
) -> None:
    mine = wandb.init(project="test", dir=tmp_path) if made_by == "user" else None
    run(snapshots, offline(tmp_path, experiment=mine), figures=0)
    end()
    axes = File(tmp_path).axes
    for group in ("equilibrium/*", "gap_*", "q_*", "ln_magnitude_*"):
        assert axes[group] == "trainer/global_step"


def test_w_and_b_does_not_warn_of_steps(
    snapshots: list[Records],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It would of a row whose step is behind its own counter, as after many rows of a user's."""
    monkeypatch.setenv("WANDB_SILENT", "false")
    logger = offline(tmp_path)
    for _ in range(50):
        logger.experiment.log({"loss": 1.0})
    run(snapshots, logger)
    end()
    assert [step for step, _ in File(tmp_path).curve("q_iota/net.1")] == [0, 10, 20]
    said = capfd.readouterr().err
    assert "offline" in said, "W&B speaks"
    assert not [line for line in said.splitlines() if "WARNING" in line and "step" in line]


def test_a_resumed_run_goes_on_under_its_id(snapshots: list[Records], tmp_path: Path) -> None:
    for part in (snapshots[:2], snapshots[2:]):
        run(part, offline(tmp_path, id="jaynes1", resume="allow"), figures=0)
        end()
    file = File(tmp_path)
    assert set(file.ids) == {"jaynes1"}
    assert [step for step, _ in file.curve("gap_weight/net.0.weight")] == [0, 10, 20]
    assert file.summary["equilibrium/weight/gap_worst"] == pytest.approx(
        max(record.gap for record in snapshots[-1].select(kind="weight"))
    )


def test_two_loggers_and_more_at_once(snapshots: list[Records], tmp_path: Path) -> None:
    others = [TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "csv")]
    first = offline(tmp_path / "one", reinit="create_new")
    second = offline(tmp_path / "two", reinit="create_new")
    run(snapshots, first, *others, second)
    for logger in (first, second):
        logger.experiment.finish()
    end()
    one, two = File(tmp_path / "one"), File(tmp_path / "two")
    assert set(one.ids).isdisjoint(two.ids)
    for file in (one, two):
        assert [step for step, _ in file.curve("gap_iota/net.1")] == [0, 10, 20]
        assert file.summary["equilibrium/records"]["nrows"] == 3


def test_final_numbers_count_each_verdict(snapshots: list[Records]) -> None:
    numbers = final_numbers(snapshots[-1])
    weights = {
        tag: n for tag, n in numbers.items() if tag.startswith("equilibrium/weight/verdict/")
    }
    assert sum(weights.values()) == 2
    assert weights["equilibrium/weight/verdict/approaching"] == 2
    assert weights["equilibrium/weight/verdict/present_from_the_start"] == 0


def test_other_loggers_are_passed_over(snapshots: list[Records], tmp_path: Path) -> None:
    class Plain:
        def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...

    with warnings.catch_warnings(action="error"):
        run(snapshots, DummyLogger(), Plain(), CSVLogger(tmp_path))
