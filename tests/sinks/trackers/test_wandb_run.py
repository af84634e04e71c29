"""What stands in the file of a W&B run that a user has made, and logs into."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.summary import final_numbers
from jaynes_callbacks.sinks.trackers import WandbRun, active_trackers, trackers_of
from tests.sinks.run_files import File

wandb = pytest.importorskip("wandb")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An offline run of a user's."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield wandb.init(project="test", dir=tmp_path)
    wandb.teardown()


def read(folder: Path) -> File:
    """`finish` does not wait until W&B's process has closed the file."""
    wandb.finish()
    wandb.teardown()
    return File(folder)


def test_a_run_has_what_it_has_through_lightning(
    run: Any, snapshots: list[Records], deliver: Callable[..., Any], tmp_path: Path
) -> None:
    deliver(snapshots, run)
    file, last = read(tmp_path), snapshots[-1]
    gaps = [(records[0].step, pytest.approx(records[0].gap)) for records in snapshots]
    assert file.curve("gap_weight/net.0.weight") == gaps
    histograms = file.curve("ln_magnitude_weight/net.0.weight")
    assert [step for step, _ in histograms] == [0, 10, 20]
    assert sum(histograms[-1][1]["values"]) == last[0].n
    ((step, image),) = file.curve("equilibrium/gap_map")
    assert (step, image["_type"]) == (20, "images/separated")
    ((step, table),) = file.curve("equilibrium/records")
    assert (step, table["nrows"]) == (20, 3)
    assert file.summary.items() >= final_numbers(last).items()
    for group in ("equilibrium/*", "gap_*", "ln_magnitude_*"):
        assert file.axes[group] == "trainer/global_step"


@pytest.mark.parametrize("own_step", [False, True], ids=["counted by W&B", "with step="])
@pytest.mark.parametrize("every", [1, 4])
def test_a_users_own_rows_are_as_before(
    run: Any, own_step: bool, every: int, tmp_path: Path
) -> None:
    """Records come at every second step, before and after the user's own row of the step."""
    (tracker,) = active_trackers()
    assert isinstance(tracker, WandbRun)
    tracker.log_scalars({"gap": 0.0}, 0)
    for step in range(1, 13):
        if step % every == 0:
            run.log({"loss": 1.0 / step}, **({"step": step} if own_step else {}))
        if step % 2 == 0:
            tracker.log_scalars({"gap": float(step)}, step)
            tracker.log_histograms({}, step)
        if own_step and step % every == 0:
            run.log({"accuracy": float(step)}, step=step)
    file = read(tmp_path)
    logged = range(every, 13, every)
    assert [row["loss"] for row in file.rows if "loss" in row] == [1.0 / step for step in logged]
    assert file.curve("gap") == [(step, float(step)) for step in range(0, 13, 2)]
    if own_step:
        rows = [(row["_step"], row["accuracy"]) for row in file.rows if "accuracy" in row]
        assert rows == [(step, float(step)) for step in logged], "none is refused"
        assert [row["_step"] for row in file.rows if "loss" in row] == list(logged)
    elif every == 1:
        assert [row["_step"] for row in file.rows if "loss" in row] == list(range(12))


def test_a_run_that_nobody_else_logs_into_has_every_record(run: Any, tmp_path: Path) -> None:
    (tracker,) = trackers_of([run])
    for step in range(5):
        tracker.log_scalars({"gap": float(step)}, step)
        tracker.log_scalars({"q": float(step)}, step)
    file = read(tmp_path)
    assert file.curve("gap") == file.curve("q") == [(step, float(step)) for step in range(5)]
    assert len(file.rows) == 5


def test_rows_slower_than_steps_stay_whole_if_ours_may_not_close_them(
    run: Any, tmp_path: Path
) -> None:
    tracker = WandbRun(run, own_rows=False)
    for epoch in range(3):
        for step in range(10 * epoch, 10 * epoch + 10):
            tracker.log_scalars({"gap": float(step)}, step)
        run.log({"loss": float(epoch)}, step=epoch)
    file = read(tmp_path)
    assert [(row["_step"], row["loss"]) for row in file.rows] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert file.curve("gap")[-1][0] > 10
