import dataclasses
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.dataset import DatasetSink, read_records


def assert_equal(ours: Records, theirs: Records) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_equal(dataclasses.asdict(one), dataclasses.asdict(other))


def written(sink: DatasetSink, snapshots: list[Records], context: RunContext) -> Path:
    sink.open(context)
    for records in snapshots:
        sink.write(records, Records())
    sink.close(snapshots[0], snapshots[-1], Records())
    assert sink.directory is not None
    return sink.directory


def steps(directory: Path) -> list[int]:
    return sorted(pd.read_parquet(directory).step.unique().tolist())


def test_it_is_a_sink() -> None:
    assert isinstance(DatasetSink(), Sink)


def test_pandas_reads_what_was_recorded(snapshots: list[Records], tmp_path: Path) -> None:
    directory = written(DatasetSink(), snapshots, RunContext(directory=tmp_path))
    assert directory == tmp_path / "jaynes"
    assert [path.name for path in sorted(directory.iterdir())] == [
        f"part-{step:012d}.parquet" for step in (0, 10, 20)
    ]
    frame = pd.read_parquet(directory)
    everything = sum(snapshots, Records())
    expected = everything.to_pandas(counts=True)
    # One family's column may be missing in every row; no column may be lost.
    assert set(expected.columns) <= set(frame.columns)
    np.testing.assert_array_equal(frame.gap, expected.gap)
    assert frame.name.tolist() == expected.name.tolist()
    assert frame["shape"].iloc[0].tolist() == [100, 200]


def test_round_trip(snapshots: list[Records], tmp_path: Path) -> None:
    directory = written(DatasetSink(), snapshots, RunContext(directory=tmp_path))
    assert_equal(read_records(directory), sum(snapshots, Records()))
    assert_equal(read_records(directory / "part-000000000010.parquet"), snapshots[1])


def test_reading_without_counts(snapshots: list[Records], tmp_path: Path) -> None:
    directory = written(DatasetSink(), snapshots, RunContext(directory=tmp_path))
    assert_equal(read_records(directory, counts=False), sum(snapshots, Records()).without_counts())


def test_columns_do_not_depend_on_the_rows(
    snapshots: list[Records], bare: Record, tmp_path: Path
) -> None:
    sink = DatasetSink()
    directory = written(sink, [Records([bare])], RunContext(directory=tmp_path))
    sink.write(snapshots[1], Records())
    first, second = (pq.read_schema(path) for path in sorted(directory.iterdir()))
    assert first.equals(second, check_metadata=True)
    assert "gap_exponential" in first.names
    frame = pd.read_parquet(directory)
    assert np.isnan(frame.gap_exponential.iloc[0])
    assert not frame.gap_exponential.iloc[1:].isna().any()
    assert read_records(directory)[0].rival_gaps == {}


def test_types_units_and_version(snapshots: list[Records], tmp_path: Path) -> None:
    directory = written(DatasetSink(), snapshots, RunContext(directory=tmp_path, run_id="abc"))
    schema = pq.read_schema(next(iter(directory.iterdir())))
    assert schema.field("codes").type == pa.list_(pa.int16())
    assert schema.field("counts").type == pa.list_(pa.int64())
    assert schema.field("gap").type == pa.float64()
    assert schema.field("step").type == pa.int64()
    assert schema.field("gap").metadata[b"unit"] == b"nats"
    assert b"meaning" in schema.field("gap_exponential").metadata
    names = ("version", "run_id", "schema_version")
    assert set(schema.metadata) == {f"jaynes_callbacks.{name}".encode() for name in names}


def test_families_of_other_versions_are_kept(bare: Record, tmp_path: Path) -> None:
    odd = bare.replace(rival_gaps={"kumaraswamy": 0.5}, vuong_z={"kumaraswamy": np.nan})
    directory = written(DatasetSink(), [Records([odd])], RunContext(directory=tmp_path))
    assert_equal(read_records(directory), Records([odd]))


def test_a_killed_run_leaves_whole_parts_only(
    snapshots: list[Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    context = RunContext(directory=tmp_path)
    sink = DatasetSink()
    directory = written(sink, snapshots[:1], context)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            sink.write(snapshots[1], Records())
    assert len(list(directory.iterdir())) == 2, "the kill came after writing, before renaming"
    assert steps(directory) == [0]
    assert_equal(read_records(directory), snapshots[0])
    DatasetSink().open(dataclasses.replace(context, resumed_step=0))
    assert [path.name for path in directory.iterdir()] == ["part-000000000000.parquet"]


def test_a_repeated_step_replaces_its_part(snapshots: list[Records], tmp_path: Path) -> None:
    sink = DatasetSink()
    directory = written(sink, snapshots, RunContext(directory=tmp_path))
    again = Records(record.replace(run="again") for record in snapshots[1])
    sink.write(again, Records())
    frame = pd.read_parquet(directory)
    assert len(frame) == sum(map(len, snapshots))
    assert set(frame.run[frame.step == 10]) == {"again"}


def test_a_fresh_run_spares_another_run_s_dataset(snapshots: list[Records], tmp_path: Path) -> None:
    first = written(DatasetSink(), snapshots, RunContext(directory=tmp_path))
    with pytest.warns(UserWarning, match=r"jaynes holds another run's records; .*jaynes-1$"):
        second = written(DatasetSink(), snapshots[:1], RunContext(directory=tmp_path))
    with pytest.warns(UserWarning, match="jaynes-2"):
        third = written(DatasetSink(), snapshots[:2], RunContext(directory=tmp_path))
    assert (second.name, third.name) == ("jaynes-1", "jaynes-2")
    assert [steps(path) for path in (first, second, third)] == [[0, 10, 20], [0], [0, 10]]


def test_a_resumed_run_finds_its_own_dataset(snapshots: list[Records], tmp_path: Path) -> None:
    written(DatasetSink(), snapshots, RunContext(directory=tmp_path, run_id="other"))
    context = RunContext(directory=tmp_path, run_id="ours")
    with pytest.warns(UserWarning, match="jaynes-1"):
        ours = written(DatasetSink(), snapshots[:2], context)
    resumed = dataclasses.replace(context, resumed_step=10, resumed_directory=tmp_path)
    assert written(DatasetSink(), snapshots[2:], resumed) == ours
    assert_equal(read_records(ours), sum(snapshots, Records()))


def test_a_resumed_run_replaces_what_lay_beyond_its_checkpoint(
    snapshots: list[Records], tmp_path: Path
) -> None:
    context = RunContext(directory=tmp_path)
    directory = written(DatasetSink(), snapshots, context)
    late = Records(record.replace(step=15) for record in snapshots[2])
    resumed = dataclasses.replace(context, resumed_step=10, resumed_directory=tmp_path)
    sink = DatasetSink()
    sink.open(resumed)
    assert steps(directory) == [0, 10, 20], "nothing is lost before something new is recorded"
    sink.write(late, Records())
    sink.write(Records(record.replace(step=25) for record in late), Records())
    assert steps(directory) == [0, 10, 15, 25]


def test_a_run_resumed_elsewhere_carries_its_records_over(
    snapshots: list[Records], tmp_path: Path
) -> None:
    before = RunContext(directory=tmp_path / "version_0")
    old = written(DatasetSink(), snapshots, before)
    after = RunContext(
        directory=tmp_path / "version_1",
        run_id=before.run_id,
        resumed_step=10,
        resumed_directory=before.directory,
    )
    DatasetSink().open(after)
    assert steps(tmp_path / "version_1" / "jaynes") == [0, 10], "what comes again is left behind"
    new = written(DatasetSink(), snapshots[2:], after)
    assert_equal(read_records(new), sum(snapshots, Records()))
    assert steps(old) == [0, 10, 20], "the run that was continued keeps its own"
    again = dataclasses.replace(after, resumed_step=0, resumed_directory=after.directory)
    assert written(DatasetSink(), snapshots[1:2], again) == new
    assert steps(new) == [0, 10]


def test_a_run_resumed_where_another_run_was_goes_beside_it(
    snapshots: list[Records], tmp_path: Path
) -> None:
    theirs = written(DatasetSink(), snapshots[:1], RunContext(directory=tmp_path / "b"))
    ours = RunContext(directory=tmp_path / "a")
    written(DatasetSink(), snapshots[:2], ours)
    resumed = RunContext(
        directory=tmp_path / "b",
        run_id=ours.run_id,
        resumed_step=10,
        resumed_directory=ours.directory,
    )
    new = written(DatasetSink(), snapshots[2:], resumed)
    assert new == tmp_path / "b" / "jaynes-1"
    assert steps(theirs) == [0]
    assert steps(new) == [0, 10, 20]


def test_without_a_directory_nothing_is_written(snapshots: list[Records]) -> None:
    sink = DatasetSink()
    sink.open(RunContext())
    sink.write(snapshots[0], Records())
    assert sink.directory is None


def test_an_empty_snapshot_writes_no_part(tmp_path: Path) -> None:
    directory = written(DatasetSink(), [Records()], RunContext(directory=tmp_path))
    assert list(directory.iterdir()) == []


def test_a_place_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write the dataset to .*file.jaynes .*dirpath="):
        DatasetSink().open(RunContext(directory=tmp_path / "file"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OSError, match="cannot write the dataset"):
            DatasetSink().open(RunContext(directory=tmp_path))
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_full_disk_is_said_and_leaves_no_litter(
    snapshots: list[Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    sink = DatasetSink()
    directory = written(sink, snapshots[:1], RunContext(directory=tmp_path))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"cannot write .*000010.parquet \(No space left on device"):
        sink.write(snapshots[1], Records())
    assert [path.name for path in directory.iterdir()] == ["part-000000000000.parquet"]


def test_hostile_names_are_data_and_never_paths(snapshots: list[Records], tmp_path: Path) -> None:
    names = ["../x", "a/b", "/etc/passwd", "层.权重", "\U0001f600" * 75, "x" * 300, "nul\0", ""]
    row = snapshots[0][0]
    hostile = Records(row.replace(name=name, run="../../run") for name in names)
    directory = written(DatasetSink(), [hostile], RunContext(directory=tmp_path))
    assert [record.name for record in read_records(directory)] == names
    assert pd.read_parquet(directory).name.tolist() == names
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "jaynes",
        "part-000000000000.parquet",
    ]


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*nowhere: there is no such path"):
        read_records(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"it has no part-\*\.parquet; expected"):
        read_records(tmp_path)
    foreign = tmp_path / "part-000000000001.parquet"
    pd.DataFrame({"step": [1], "loss": [2.0]}).to_parquet(foreign)
    with pytest.raises(ValueError, match=r"no part of a jaynes_callbacks dataset.*no column.*gap"):
        read_records(tmp_path)
    foreign.write_bytes(b"not Parquet at all")
    with pytest.raises(ValueError, match="no readable Parquet"):
        read_records(tmp_path)


def test_unknown_columns_and_missing_ones_are_no_error(
    snapshots: list[Records], tmp_path: Path
) -> None:
    directory = written(DatasetSink(), snapshots[:1], RunContext(directory=tmp_path))
    part = next(iter(directory.iterdir()))
    table = pq.read_table(part)
    newer = table.append_column("of_a_later_version", pa.array([1] * len(table)))
    pq.write_table(newer.drop_columns(["entropy"]), part)
    (record, *_) = read_records(directory)
    assert np.isnan(record.entropy)
    assert record.gap == snapshots[0][0].gap
