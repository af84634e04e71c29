"""Frames in Parquet files, by pandas and pyarrow as oracles; and files that are damaged."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import (
    FrameWriter,
    read_frame,
    read_frames,
    read_run_id,
    read_table,
    write_frame,
)
from jaynes_callbacks.records.schema import Column, ColumnType
from tests.records.demo import DEMO, HOSTILE, LONE, SPELLED, demo, record
from tests.records.strategies import demos


def put(path: Path, **columns: pa.Array) -> Path:
    """A file with some columns changed, added, or by None left out."""
    write_frame(record(3), path)
    table = read_table(path)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, values)
    pq.write_table(table, path)
    return path


# There and back ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(rows=st.lists(demos(), max_size=6))
def test_round_trip(rows: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trip") / "rows.parquet"
    write_frame(Frame.from_rows(DEMO, rows), path)
    assert list(read_frame(path, DEMO)) == rows
    frame = pd.read_parquet(path)
    for name in ("run", "step", "epoch", "name", "size", "note"):
        assert frame[name].tolist() == [getattr(row, name) for row in rows]
    np.testing.assert_array_equal(frame.value, [row.value for row in rows])
    for name in ("shape", "codes", "counts"):
        ours = [list(getattr(row, name)) for row in rows]
        assert [each.tolist() for each in frame[name]] == ours
    without = read_frame(path, DEMO, counts=False)
    assert list(without) == [row.replace(codes=_none(), counts=_none()) for row in rows]


def _none() -> Any:
    return np.zeros(0, dtype=np.int64)


def test_null_is_no_entry_and_nan_an_undefined_one(tmp_path: Path) -> None:
    rows = [demo(shares={"a": np.nan}), demo(shares={"b": 1.0}), demo()]
    write_frame(Frame.from_rows(DEMO, rows), tmp_path / "x.parquet")
    column = pq.read_table(tmp_path / "x.parquet")["share_a"]
    assert column.is_null().to_pylist() == [False, True, True]
    assert column.is_null(nan_is_null=True).to_pylist() == [True, True, True]
    back = list(read_frame(tmp_path / "x.parquet", DEMO))
    assert [list(row.shares) for row in back] == [["a"], ["b"], []]
    assert back == rows


def test_frames_of_other_families_go_into_one(tmp_path: Path) -> None:
    shares = [{"a": 1.0}, {"c": 2.0}, {}, {"b": np.nan, "d": 3.0}]
    paths = [tmp_path / f"{number}.parquet" for number in range(4)]
    for path, each in zip(paths, shares, strict=True):
        write_frame(Frame.from_rows(DEMO, [demo(shares=each)]), path)
    frame = read_frames(paths, DEMO)
    np.testing.assert_equal([row.shares for row in frame], shares)
    oracle = pa.concat_tables([pq.read_table(path) for path in paths], promote_options="default")
    assert set(frame.columns) == set(oracle.column_names)
    for name in ("share_a", "share_b", "share_c", "share_d"):
        assert np.ma.getmaskarray(frame[name]).tolist() == oracle[name].is_null().to_pylist()


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_any_name_is_data(name: str, tmp_path: Path) -> None:
    write_frame(Frame.from_rows(DEMO, [demo(name=name, run=name)]), tmp_path / "x.parquet")
    (row,) = read_frame(tmp_path / "x.parquet", DEMO)
    assert (row.name, row.run) == (name, name)
    assert pd.read_parquet(tmp_path / "x.parquet").name.tolist() == [name]


def test_half_a_surrogate_pair_is_spelled_out(tmp_path: Path) -> None:
    rows = [demo(name=LONE), demo(name="fine")]
    write_frame(Frame.from_rows(DEMO, rows), tmp_path / "x.parquet")
    assert [row.name for row in read_frame(tmp_path / "x.parquet", DEMO)] == [SPELLED, "fine"]


def test_frames_of_some_rows_and_of_none(tmp_path: Path) -> None:
    whole = Frame.from_rows(DEMO, [demo(step, shape=(step, 2)) for step in range(9)])
    for number, part in enumerate([whole[2:7:2], whole.take(np.arange(9) > 6), whole[3:3]]):
        write_frame(part, tmp_path / f"{number}.parquet")
        assert list(read_frame(tmp_path / f"{number}.parquet", DEMO)) == list(part)
    write_frame(Frame(DEMO, {}), tmp_path / "none.parquet")
    assert len(read_frame(tmp_path / "none.parquet", DEMO)) == 0
    assert len(pd.read_parquet(tmp_path / "none.parquet")) == 0


def test_frames_are_written_as_they_come(tmp_path: Path) -> None:
    writer = FrameWriter(tmp_path / "x.parquet", DEMO)
    for step in range(3):
        writer.write(record(step))
    writer.close()
    assert list(read_frame(tmp_path / "x.parquet", DEMO)) == [
        row for step in range(3) for row in record(step)
    ]


def test_folders_named_like_partitions_add_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1" / "step=77"
    folder.mkdir(parents=True)
    write_frame(record(3), folder / "x.parquet")
    assert "lr" not in read_table(folder / "x.parquet").column_names
    assert read_frame(folder / "x.parquet", DEMO)["step"].tolist() == [3, 3, 3]


def test_the_run_s_id(tmp_path: Path) -> None:
    write_frame(record(3), tmp_path / "x.parquet", run_id="abc")
    assert read_run_id(tmp_path / "x.parquet") == "abc"
    pd.DataFrame({"step": [1]}).to_parquet(tmp_path / "y.parquet")
    assert read_run_id(tmp_path / "y.parquet") == ""
    (tmp_path / "z.parquet").write_bytes(b"no")
    assert read_run_id(tmp_path / "z.parquet") is None
    assert read_run_id(tmp_path / "nowhere.parquet") is None


# Without the instrument's code -------------------------------------------------------------------


def test_a_file_says_what_its_columns_are(tmp_path: Path) -> None:
    write_frame(record(3), tmp_path / "x.parquet")
    frame = read_frame(tmp_path / "x.parquet")
    assert (frame.schema.instrument, frame.schema.title) == ("demo", "Demonstration")
    ours = {**DEMO.by_name}
    for name, found in frame.schema.by_name.items():
        # A file does not tell a column's default, and its groups are columns like any other.
        expected: Column = replace(ours[name], default=found.default, title="")
        assert replace(found, default=found.default) == expected
    assert frame.schema.by_name["codes"].type is ColumnType.CODES
    assert frame.schema.by_name["counts"].type is ColumnType.COUNTS
    assert [column.name for column in frame.schema.curves] == ["value"]
    assert "counts" not in read_frame(tmp_path / "x.parquet", counts=False).columns
    assert [row.value for row in frame] == [row.value for row in record(3)]


def test_files_of_several_versions_have_the_columns_of_all(tmp_path: Path) -> None:
    old = put(tmp_path / "old.parquet", value=None, older=pa.array([1.0, 2.0, 3.0]))
    new = put(tmp_path / "new.parquet", newer=pa.array(["a", "b", "c"]))
    frame = read_frames([old, new])
    np.testing.assert_array_equal(frame["older"], [1.0, 2.0, 3.0, *[np.nan] * 3])
    assert frame["newer"].tolist() == ["", "", "", "a", "b", "c"]
    assert frame.schema.by_name["value"].curve, "the newest file's description counts"
    with pytest.raises(ValueError, match="do not go together"):
        read_frames([new, put(tmp_path / "odd.parquet", newer=pa.array([1.0, 2.0, 3.0]))])


@pytest.mark.parametrize(
    "name", ["__class__", "__init__", "__reduce__", "key", "replace", "_x", "a b"]
)
def test_a_column_cannot_take_the_place_of_code(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x.parquet", **{name: pa.array([1, 2, 3])})
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_frame(path)
    assert len(read_frame(path, DEMO)) == 3, "with a schema it is not read at all"


# Files that are not as they should --------------------------------------------------------------


def test_null_in_a_plain_column_is_its_default(tmp_path: Path) -> None:
    path = put(
        tmp_path / "x.parquet",
        step=pa.array([1, None, 3]),
        value=pa.array([None, 2.0, np.nan]),
        size=pa.array([None, None, 5]),
        note=pa.array([None, "x", ""]),
        shape=pa.array([None, [1], []], pa.list_(pa.int64())),
        counts=pa.array([[1, 2], None, [3]], pa.list_(pa.int64())),
    )
    frame = read_frame(path, DEMO)
    assert frame["step"].tolist() == [1, 0, 3]
    np.testing.assert_array_equal(frame["value"], [np.nan, 2.0, np.nan])
    assert frame["size"].tolist() == [7, 7, 5]
    assert frame["note"].tolist() == ["nothing to say", "x", ""]
    assert frame["shape"].tolist() == [(), (1,), ()]
    assert [each.tolist() for each in frame["counts"]] == [[1, 2], [], [3]]
    assert not any(isinstance(frame[name], np.ma.MaskedArray) for name in ("step", "value", "size"))
    assert [row.size for row in frame] == [7, 7, 5]


def test_columns_of_kindred_types_are_read(tmp_path: Path) -> None:
    path = put(
        tmp_path / "x.parquet",
        step=pa.array([3, 3, 3], pa.int32()),
        value=pa.array([1, 2, 3], pa.int8()),
        name=pa.array(["a", "b", "c"]).dictionary_encode(),
        note=pa.array(["a", "b", "c"], pa.large_string()),
        counts=pa.array([[1], [2], []], pa.large_list(pa.int32())),
    )
    frame = read_frame(path, DEMO)
    assert frame["step"].dtype == np.int64
    assert frame["value"].tolist() == [1.0, 2.0, 3.0]
    assert frame["name"].tolist() == frame["note"].tolist() == ["a", "b", "c"]
    assert [each.tolist() for each in frame["counts"]] == [[1], [2], []]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("step", pa.array(["one", "two", "three"])),
        ("value", pa.array([[1.0], [2.0], []])),
        ("counts", pa.array([1, 2, 3])),
        ("size", pa.array([1.5, 2.5, 3.5])),
        ("name", pa.array([{"a": 1}, {"a": 2}, {"a": 3}])),
        ("codes", pa.array([[70_000], [], []], pa.list_(pa.int64()))),
    ],
)
def test_a_column_of_another_type_is_said(column: str, values: pa.Array, tmp_path: Path) -> None:
    path = put(tmp_path / "x.parquet", **{column: values})
    with pytest.raises(ValueError, match=r"x\.parquet is no readable Parquet file of a jaynes"):
        read_frame(path, DEMO)


@pytest.mark.parametrize("column", ["run", "step", "epoch", "kind", "name"])
def test_a_missing_column_is_said(column: str, tmp_path: Path) -> None:
    path = put(tmp_path / "x.parquet", **{column: None})
    for schema in (DEMO, None):
        with pytest.raises(ValueError, match=f"no part of a jaynes.*no column {column}"):
            read_frame(path, schema)


def test_other_missing_columns_have_their_defaults(tmp_path: Path) -> None:
    frame = read_frame(put(tmp_path / "x.parquet", size=None, shape=None, counts=None), DEMO)
    assert [(row.size, row.shape, len(row.counts)) for row in frame] == [(7, (), 0)] * 3


def test_arrays_are_asked_for_only_if_they_are_read(tmp_path: Path) -> None:
    needs_counts = replace(DEMO, required=DEMO.required | {"counts"})
    path = put(tmp_path / "x.parquet", counts=None)
    assert len(read_frame(path, needs_counts, counts=False)) == 3
    with pytest.raises(ValueError, match="no column counts"):
        read_frame(path, needs_counts)


def test_a_column_twice_is_said(tmp_path: Path) -> None:
    write_frame(record(3), tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet")
    pq.write_table(table.append_column("value", pa.array([1.0, 2.0, 3.0])), tmp_path / "x.parquet")
    for schema in (DEMO, None):
        with pytest.raises(ValueError, match=r"more than one column value|duplicated: 'value'"):
            read_frame(tmp_path / "x.parquet", schema)


def test_empty_and_foreign_files_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1", b"PAR1PAR1", b"step,name\n1,w\n", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.parquet is no readable Parquet"):
            read_frame(path, DEMO)
    with pytest.raises(FileNotFoundError):
        read_frame(tmp_path / "nowhere.parquet", DEMO)


def test_damaged_files_are_an_error_or_rows_and_never_worse(tmp_path: Path) -> None:
    path, chance = tmp_path / "x.parquet", random.Random(5)
    write_frame(record(3), path)
    whole = path.read_bytes()
    errors = 0
    for _ in range(200):
        damaged = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        for schema in (DEMO, None):
            try:
                list(read_frame(path, schema))
            except ValueError:
                errors += 1
    assert errors > 100
