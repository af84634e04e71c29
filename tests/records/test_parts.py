"""The folder of parts: whole after any kill, read while it is written, each step in it once."""

import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.records import parts as module
from jaynes_callbacks.records.parquet import arrow_table, write_table
from jaynes_callbacks.records.parts import PartWriter, part_name, parts, read_parts
from jaynes_callbacks.records.schema import Schema
from tests.records.demo import DEMO, record
from tests.records.writing import writing


def steps_of(folder: Path) -> list[int]:
    """The oracle's view: every step as often as a stream has it, which must be once."""
    frame = pd.read_parquet(folder)
    for _, of_stream in frame.groupby("name"):
        assert of_stream.step.is_unique
        assert of_stream.step.tolist() == frame.step.unique().tolist(), "each step has all streams"
    return [int(step) for step in frame.step.unique()]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records have a part each; from then on four share one."""
    monkeypatch.setattr(module, "_ALONE", 2)
    monkeypatch.setattr(module, "_TOGETHER", 4)


def written(folder: Path, steps: range, run_id: str = "id") -> PartWriter:
    writer = PartWriter(folder, run_id)
    for step in steps:
        writer.write(record(step))
    return writer


def firsts(folder: Path) -> list[int]:
    return list(parts(folder))


# Joining --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("together")
def test_later_records_share_parts(tmp_path: Path) -> None:
    written(tmp_path, range(12))
    assert firsts(tmp_path) == [0, 1, 2, 6, 10]
    assert steps_of(tmp_path) == list(range(12))
    frame = read_parts(tmp_path, DEMO)
    assert frame["value"].tolist() == [s + i / 10 for s in range(12) for i in range(3)]
    assert [row.counts.tolist() for row in frame][::3] == [[2, step + 1] for step in range(12)]


def test_large_records_do_not_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ALONE", 0)
    monkeypatch.setattr(module, "_BYTES", 3 * record(0).take(slice(None)).to_pandas().size * 8)
    written(tmp_path, range(20))
    sizes = [len(pd.read_parquet(part)) // 3 for part in parts(tmp_path).values()]
    assert sum(sizes) == 20
    assert max(sizes) < 10


def test_ten_thousand_records_do_not_become_ten_thousand_files() -> None:
    most = module._ALONE + -(-(10_000 - module._ALONE) // module._TOGETHER)
    assert most < 400


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("step", [0, 1, 2, 4, 5, 9])
def test_a_repeated_step_is_replaced_wherever_it_is(step: int, tmp_path: Path) -> None:
    writer = written(tmp_path, range(10))
    before = firsts(tmp_path)
    writer.write(record(step, value=-1.0))
    writer.write(record(10))
    assert steps_of(tmp_path) == list(range(11))
    frame = pd.read_parquet(tmp_path).drop_duplicates("step").set_index("step")
    assert frame.value[step] == -1.0
    assert sum(frame.value < 0) == 1
    assert firsts(tmp_path) == [*before, 10]


@pytest.mark.usefixtures("together")
def test_a_repeated_step_may_have_other_streams(tmp_path: Path) -> None:
    writer = written(tmp_path, range(6))
    writer.write(record(4, streams=1))
    frame = pd.read_parquet(tmp_path)
    assert frame.step.value_counts().to_dict() == {step: 1 if step == 4 else 3 for step in range(6)}
    assert frame.step.is_monotonic_increasing


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("until", range(-1, 11))
def test_truncating_leaves_the_beginning(until: int, tmp_path: Path) -> None:
    writer = written(tmp_path, range(10))
    writer.truncate(until)
    kept = list(range(min(until, 9) + 1))
    assert (steps_of(tmp_path) if firsts(tmp_path) else []) == kept
    # The run goes on, and what it does anew joins no part of before.
    for step in range(len(kept), len(kept) + 7):
        writer.write(record(step))
    assert steps_of(tmp_path) == list(range(len(kept) + 7))


@pytest.mark.usefixtures("together")
def test_a_resumed_run_goes_on_after_a_joined_part(tmp_path: Path) -> None:
    written(tmp_path, range(8))
    assert firsts(tmp_path)[-1] == 6
    writer = PartWriter(tmp_path, "id")
    writer.truncate(6)
    for step in (7, 8, 9, 8):
        writer.write(record(step))
    assert steps_of(tmp_path) == list(range(10))


@pytest.mark.usefixtures("together")
def test_the_id_and_columns_survive_joining_and_truncating(tmp_path: Path) -> None:
    writer = written(tmp_path, range(9), "abc")
    writer.write(record(7))
    writer.truncate(7)
    schemas = [pq.read_schema(part) for part in parts(tmp_path).values()]
    assert all(each.equals(schemas[0], check_metadata=True) for each in schemas)
    assert schemas[-1].metadata[b"jaynes_callbacks.run_id"] == b"abc"


# Reading ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("together")
def test_some_steps_are_read_from_their_parts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, range(10))
    read: list[str] = []
    of_file = pq.ParquetFile

    class Told(of_file):  # type: ignore[misc, valid-type]
        def __init__(self, path: Path) -> None:
            read.append(path.name)
            super().__init__(path)

    monkeypatch.setattr(pq, "ParquetFile", Told)
    frame = read_parts(tmp_path, DEMO, steps=[0, 4, 5, 400])
    assert frame["step"].tolist() == [0, 0, 0, 4, 4, 4, 5, 5, 5]
    assert read == [part_name(0), part_name(2), part_name(6)]
    assert len(read_parts(tmp_path, DEMO, steps=[-5])) == 0


def test_other_files_are_no_parts(tmp_path: Path) -> None:
    written(tmp_path, range(2))
    for name in (".part-000000000009.parquet.tmp", "part-x.parquet", "_run.json", "part-7.csv"):
        (tmp_path / name).write_text("not ours")
    assert firsts(tmp_path) == [0, 1]


def test_a_part_of_steps_beyond_twelve_digits_sorts_by_number(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, "")
    for step in (999_999_999_999, 1_000_000_000_000):
        writer.write(record(step))
    assert read_parts(tmp_path, DEMO)["step"][::3].tolist() == [10**12 - 1, 10**12]


def test_an_unreadable_part_does_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    written(tmp_path, range(3))
    (tmp_path / part_name(2)).write_bytes(b"PAR1 no more")
    writer = PartWriter(tmp_path, "id")
    writer.write(record(3))
    assert pd.read_parquet(tmp_path / part_name(3)).step.tolist() == [3, 3, 3]


# Killed, and read meanwhile -----------------------------------------------------------------


def test_a_killed_run_loses_no_record_that_was_written(tmp_path: Path) -> None:
    folder, chance = tmp_path / "parts", random.Random(3)
    folder.mkdir()
    first, lengths, amid = 0, [0], 0
    # Twenty times, and then until all that can happen has happened: when depends on the machine.
    while len(lengths) <= 20 or max(lengths) <= 8 or not amid:
        with writing(folder, first) as run:
            time.sleep(chance.uniform(0.0, 0.1))
            run.kill()
        found = steps_of(folder)
        # One more may be there: the kill came between writing and telling.
        assert found in (list(range(run.last + 1)), list(range(run.last + 2)))
        assert read_parts(folder, DEMO)["step"][::3].tolist() == found
        lengths.append(len(found) - first)
        for leftover in folder.glob(".part-*.tmp"):
            leftover.unlink()
            amid += 1
        # As a run does that is resumed from a checkpoint somewhat before its end.
        first = max(0, found[-1] - chance.randrange(12))
    # Some run lived long enough for its records to share parts, and some kill came amid writing.


def test_a_folder_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    found: list[list[int]] = []
    with writing(folder, 0, repeat=True):
        while len(found) < 20 or len(found[-1]) <= len(found[0]):
            found += [steps_of(folder), read_parts(folder, DEMO)["step"][::3].tolist()]
    for before, after in pairwise(found):
        assert after == list(range(len(after)))
        assert len(after) >= len(before)


def _seconds(read: Callable[[], object]) -> float:
    """Processor time of the fastest of some readings."""
    times = []
    for _ in range(4):
        begin = time.process_time()
        read()
        times.append(time.process_time() - begin)
    return min(times)


@pytest.mark.parametrize("schema", [SCHEMA, None], ids=["known", "declared"])
@pytest.mark.sampled(2)
def test_many_parts_cost_little_more_than_their_bytes(
    schema: Schema[Any] | None, tmp_path: Path
) -> None:
    """The columns' descriptions, 95 in each part, are read once and not 24 times."""
    rows = Records([Record(name=f"{number}.weight", step=0) for number in range(8)])
    for step in range(24):
        table = arrow_table(rows.replaced(step=np.full(8, step)))
        write_table(table, tmp_path / part_name(step))
    files = list(parts(tmp_path).values())
    names = [each.name for each in SCHEMA.columns if not each.type.is_array]
    present = set(pq.read_schema(files[0]).names)
    columns = [name for name in names if name in present]

    def of_arrow() -> None:
        for path in files:
            with pq.ParquetFile(path) as file:
                file.read(columns=columns, use_threads=False)

    assert len(read_parts(tmp_path, schema, counts=False)) == 8 * 24
    assert _seconds(lambda: read_parts(tmp_path, schema, counts=False)) < 3 * _seconds(of_arrow)
