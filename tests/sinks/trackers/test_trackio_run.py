"""What trackio's own storage reads back of a local run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.summary import final_numbers
from jaynes_callbacks.sinks.trackers import TrackioRun, active_trackers, trackers_of

trackio = pytest.importorskip("trackio")


@pytest.fixture
def run() -> Iterator[Any]:
    """A local run in a project of its own; no server is started."""
    yield trackio.init(project=f"test-{uuid4().hex}", embed=False, auto_log_cpu=False)
    if active_trackers():
        trackio.finish()


def rows(run: Any) -> list[dict[str, Any]]:
    trackio.finish()
    found: list[dict[str, Any]] = trackio.sqlite_storage.SQLiteStorage.get_logs(
        run.project, run.name
    )
    return found


def curve(found: list[dict[str, Any]], tag: str) -> list[tuple[int, Any]]:
    return [(row["step"], row[tag]) for row in found if tag in row]


def test_a_run_has_all_that_trackio_can_show(
    run: Any, snapshots: list[Records], deliver: Callable[..., Any], tmp_path: Path
) -> None:
    deliver(snapshots, run, directory=tmp_path)
    found, last = rows(run), snapshots[-1]
    gaps = [(records[0].step, pytest.approx(records[0].gap)) for records in snapshots]
    assert curve(found, "gap_weight/net.0.weight") == gaps

    histograms = curve(found, "ln_magnitude_weight/net.0.weight")
    assert [step for step, _ in histograms] == [0, 10, 20]
    assert histograms[-1][1]["_type"] == "trackio.histogram"
    assert sum(histograms[-1][1]["values"]) == last[0].n
    assert len(histograms[-1][1]["bins"]) == len(histograms[-1][1]["values"]) + 1

    ((step, image),) = curve(found, "equilibrium/gap_map")
    assert (step, image["_type"]) == (20, "trackio.image")
    assert (trackio.utils.MEDIA_DIR / image["file_path"]).is_file()

    ((step, table),) = curve(found, "equilibrium/records")
    assert step == 20
    assert [row["name"] for row in table["_value"]] == [record.name for record in last]
    assert table["_value"][0]["shape"] == "100×200"
    ends = [row for row in found if row["step"] == 20]
    assert {tag: row[tag] for row in ends for tag in row}.items() >= final_numbers(last).items()
    assert len(curve(found, "equilibrium/weight/gap_median")) == 3, "no point stands there twice"

    path = f"equilibrium-report-{run.name}"
    manifest = trackio.sqlite_storage.SQLiteStorage.get_artifact_manifest(run.project, path, "v0")
    assert [entry["path"] for entry in manifest["manifest"]] == ["report.html"]


def test_the_active_run_is_found(run: Any) -> None:
    (tracker,) = active_trackers()
    assert isinstance(tracker, TrackioRun)
    tracker.log_scalars({"gap": 0.5}, 7)
    assert curve(rows(run), "gap") == [(7, 0.5)]
    assert active_trackers() == []


def test_a_users_own_rows_are_counted_as_before(run: Any) -> None:
    """A step moves trackio's counter of rows without a step, and ours are far ahead of it."""
    (tracker,) = trackers_of([run])
    for loss in range(3):
        run.log({"loss": float(loss)})
        tracker.log_scalars({"gap": 0.5}, 100 * (loss + 1))
    found = rows(run)
    assert curve(found, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert curve(found, "gap") == [(100, 0.5), (200, 0.5), (300, 0.5)]
