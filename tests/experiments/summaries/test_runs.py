import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.summaries.runs import Run, found, streams
from jaynes_callbacks import Record, Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

MakeRun = Callable[..., Path]


def test_start_and_end_stand_side_by_side(make_run: MakeRun) -> None:
    folder = make_run("one", {"a.weight": (0.4, 0.1), "relu": (0.2, 0.3)})
    frame = streams([Run.read(folder)]).set_index("name")
    assert frame.loc["a.weight", ["gap_start", "gap_end"]].tolist() == [0.4, 0.1]
    assert frame.loc["relu", ["best_family_start", "best_family_end"]].tolist() == [
        "uniform",
        "weibull",
    ]
    assert frame.loc["relu", "verdict"] == "approaching"
    assert frame.loc["a.weight", "gap_half_normal"] > 0


def test_of_a_long_run_the_last_record_alone_is_the_end(make_run: MakeRun) -> None:
    folder = make_run("one", {"a.weight": (0.4, 0.1)})
    sink = DatasetSink()
    shutil.rmtree(folder / "jaynes")
    sink.open(RunContext(directory=folder))
    for step in range(100):
        sink.write(Records([Record(name="a.weight", step=step, gap=step / 100)]), [])
    assert len(list((folder / "jaynes").iterdir())) < 100, "its last part holds several records"
    run = Run.read(folder)
    assert [(each.step, each.gap) for each in (*run.start, *run.end)] == [(0, 0.0), (99, 0.99)]


def test_unfinished_runs_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("one", {"a.weight": (0.4, 0.1)})
    killed = make_run("two", {"a.weight": (0.4, 0.1)})
    (killed / "result.json").unlink()
    runs, unfinished = found([tmp_path])
    assert [run.folder.name for run in runs] == ["one"]
    assert unfinished == [killed]


def test_a_folder_named_twice_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("one", {"a.weight": (0.4, 0.1)})
    assert len(found([tmp_path, folder])[0]) == 1


def test_nothing_finished_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder"):
        found([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"no finished run \(result\.json\) below"):
        found([tmp_path])


def test_a_run_without_its_records_is_named(make_run: MakeRun) -> None:
    folder = make_run("one", {"a.weight": (0.4, 0.1)})
    shutil.rmtree(folder / "jaynes")
    with pytest.raises(FileNotFoundError, match=r"jaynes is gone, or empty: run it again"):
        Run.read(folder)
