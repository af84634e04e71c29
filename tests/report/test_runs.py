import os
import re
from collections.abc import Callable
from pathlib import Path
from shutil import copy2

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.records.parts import PartWriter
from jaynes_callbacks.report import Run, find_datasets, newest_part, read_run


def test_datasets_are_found_at_and_below_paths_each_once(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    second, first = write_run("sweep/2"), write_run("sweep/1")
    assert find_datasets([tmp_path]) == [first, second]
    assert find_datasets([second, tmp_path / "sweep", first]) == [second, first]


@pytest.mark.parametrize(("made", "state"), [(True, "it holds no dataset"), (False, "no such")])
def test_a_path_without_a_run_is_told(made: bool, state: str, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    if made:
        path.mkdir()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(path))}: .*{state}"):
        find_datasets([path])


def test_a_run_is_its_history_and_its_two_ends(run: Run, snapshots: list[Records]) -> None:
    assert run.name == "run"
    assert len(run.history) == sum(map(len, snapshots))
    assert not any(record.counts.size for record in run.history)
    for ours, theirs in ((run.start, snapshots[0]), (run.end, snapshots[-1])):
        assert [row.gap for row in ours] == [row.gap for row in theirs]
        assert [row.counts.sum() for row in ours] == [row.counts.sum() for row in theirs]
    assert run.is_trained
    rows = run.rows_by_stream["weight", "net.0.weight"]
    assert run.history["step"][rows].tolist() == [0, 10, 20]
    assert set(run.history["name"][rows]) == {"net.0.weight"}


def test_each_stream_has_ends_of_its_own(write_run: Callable[..., Path]) -> None:
    def row(name: str, step: int) -> Record:
        return Record(name=name, step=step, gap=step / 100)

    steps = ((0, ["a"]), (10, ["a", "late"]), (20, ["late"]))
    found = read_run(write_run(records=[Records(row(n, s) for n in names) for s, names in steps]))
    assert {row.name: row.step for row in found.start} == {"a": 0, "late": 10}
    assert {row.name: row.step for row in found.end} == {"a": 10, "late": 20}


def test_one_record_is_no_training(write_run: Callable[..., Path]) -> None:
    assert not read_run(write_run(records=[Records([Record(name="a")])])).is_trained


def test_a_new_record_is_seen(write_run: Callable[..., Path], snapshots: list[Records]) -> None:
    dataset, whole = write_run(records=snapshots[:2]), write_run("whole")
    before = newest_part(dataset)
    assert newest_part(dataset) == before
    copy2(whole / "part-000000000020.parquet", dataset)
    assert newest_part(dataset) > before


def test_a_record_that_joins_a_part_is_seen(tmp_path: Path) -> None:
    """From the 66th record on a record joins the newest part."""
    dataset = tmp_path / "jaynes"
    dataset.mkdir()
    writer = PartWriter(dataset, "id")

    def write(step: int) -> None:
        writer.write(Records([Record(name="a", step=step, gap=step / 100)]))

    for step in range(65):
        write(step)
    names, before = sorted(dataset.iterdir()), newest_part(dataset)
    write(65)
    assert sorted(dataset.iterdir()) == names
    assert newest_part(dataset) > before
    found = read_run(dataset)
    assert found.history["step"].tolist() == list(range(66))
    assert (found.start["step"].tolist(), found.end["step"].tolist()) == ([0], [65])
    assert found.end["gap"].tolist() == [0.65]


def test_a_record_of_another_instrument_is_seen(
    write_run: Callable[..., Path], snapshots: list[Records]
) -> None:
    dataset = write_run()
    before = newest_part(dataset)
    (folder := dataset / "_norms").mkdir()
    PartWriter(folder, "id").write(snapshots[0])
    assert newest_part(dataset) != before


def test_another_instruments_folder_belongs_to_its_dataset(
    write_run: Callable[..., Path], snapshots: list[Records], tmp_path: Path
) -> None:
    dataset = write_run()
    (folder := dataset / "_norms").mkdir()
    PartWriter(folder, "id").write(snapshots[0])
    assert find_datasets([tmp_path]) == find_datasets([folder]) == [dataset]
    assert read_run(dataset).instruments == {"norms": folder}


def test_a_run_may_have_other_instruments_alone(snapshots: list[Records], tmp_path: Path) -> None:
    (folder := tmp_path / "mine" / "jaynes" / "_norms").mkdir(parents=True)
    PartWriter(folder, "id").write(snapshots[0])
    (dataset,) = find_datasets([tmp_path])
    assert find_datasets([dataset]) == [dataset]
    found = read_run(dataset)
    assert (found.name, len(found.history), list(found.instruments)) == ("mine", 0, ["norms"])
    assert newest_part(dataset)


def test_a_folder_without_any_part_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"part-\*\.parquet"):
        read_run(tmp_path)
    with pytest.raises(IndexError):
        newest_part(tmp_path)


def test_a_broken_part_is_told(write_run: Callable[..., Path]) -> None:
    dataset = write_run()
    (dataset / "part-000000000010.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="part-000000000010"):
        read_run(dataset)


@pytest.mark.timeout(30)
def test_pipes_among_the_files_are_told(write_run: Callable[..., Path]) -> None:
    dataset = write_run()
    (dataset / "_run.json").unlink(missing_ok=True)
    os.mkfifo(dataset / "_run.json")
    assert read_run(dataset).description == {}
    os.mkfifo(dataset / "part-000000000099.parquet")
    with pytest.raises(ValueError, match=r"part-000000000099.*no regular file"):
        read_run(dataset)
