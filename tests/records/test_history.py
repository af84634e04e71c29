"""The history: a list of rows for whoever reads it, with what is old in temporary files."""

import copy
import gc
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaynes_callbacks.records import history as module
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.history import History
from tests.records.demo import DEMO, Demo, demo, record


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders are made here, and rows move there soon."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "_IN_MEMORY", 10 * 3 * len(DEMO.columns))
    monkeypatch.setattr(module, "_APART", 4)
    return tmp_path


def filled(records: int) -> tuple[History[Demo], list[Demo]]:
    history, rows = History(DEMO), []
    for step in range(records):
        history.append(record(step))
        rows += record(step).without_counts()
    return history, rows


def files(place: Path) -> int:
    return len(list(place.glob("jaynes-history-*/*.parquet")))


@pytest.mark.parametrize("records", [0, 1, 3, 4, 5, 10, 11, 12, 40])
def test_it_is_a_list_of_all_rows(records: int, place: Path) -> None:
    history, rows = filled(records)
    assert files(place) == records // 11
    assert len(history) == len(rows)
    assert list(history) == rows
    assert list(history.frame()) == rows
    assert history.last_step == records - 1
    for index in range(-len(rows), len(rows)):
        assert history[index] == rows[index]
    for index in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            history[index]


@settings(max_examples=30)
@given(
    records=st.integers(0, 30),
    ends=st.tuples(*[st.none() | st.integers(-100, 100)] * 2),
    stride=st.none() | st.integers(-7, 7).filter(bool),
)
def test_slices_are_those_of_a_list(
    records: int, ends: tuple[int | None, int | None], stride: int | None
) -> None:
    history, rows = filled(records)
    chosen = slice(*ends, stride)
    assert list(history[chosen]) == rows[chosen]


def test_memory_holds_a_bounded_number_of_rows_and_frames(place: Path) -> None:
    history = History(DEMO)
    for step in range(300):
        history.append(record(step))
        assert len(history._in_memory) <= 4 + 3
        assert sum(map(len, history._in_memory)) <= 30
    assert files(place) == 27


def test_one_row_is_read_from_one_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, rows = filled(40)
    read: list[str] = []
    reader = module.read_frame

    def told(path: Path, *args: object, **options: object) -> Frame[Demo]:
        read.append(path.name)
        return reader(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_frame", told)
    assert history[-1] == rows[-1]
    assert list(history[-5:]) == rows[-5:]
    assert not read
    assert history[40] == rows[40]
    assert read == ["rows-000001.parquet"]


def test_rows_of_other_families_and_missing_figures_come_back(place: Path) -> None:
    history = History(DEMO)
    rows = [
        demo(step, value=np.nan if step % 3 else 1.0, shares={"abcd"[step % 4]: float(step)})
        for step in range(40)
    ]
    rows[7] = rows[7].replace(shares={})
    for row in rows:
        history.append(Frame.from_rows(DEMO, [row]))
    assert files(place)
    expected = [row for each in rows for row in Frame.from_rows(DEMO, [each]).without_counts()]
    assert list(history) == expected
    assert list(history.frame()) == expected


@pytest.mark.parametrize("until", [-1, 0, 5, 9, 10, 25, 38, 39, 100])
def test_truncated_it_goes_on_like_a_shorter_one(until: int) -> None:
    history, rows = filled(40)
    history.truncate(until)
    kept = [row for row in rows if row.step <= until]
    assert list(history) == kept
    assert history.last_step == min(until, 39)
    for step in range(50, 65):
        history.append(record(step))
        kept += record(step).without_counts()
    assert list(history) == kept


def test_an_empty_frame_is_no_record() -> None:
    history = History(DEMO)
    history.append(Frame(DEMO, {}))
    assert len(history) == 0
    assert history.last_step == -1
    assert list(history[:]) == []
    assert len(history.frame()) == 0


@pytest.mark.parametrize(
    "of", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_copy_owns_no_file_of_the_original_s(of: object, place: Path) -> None:
    history, rows = filled(40)
    twin = of(history)  # type: ignore[operator]
    history.append(record(99))
    assert list(twin) == rows
    folder = next(place.glob("jaynes-history-*"))
    del history
    gc.collect()
    assert not folder.exists()
    assert list(twin) == rows
    twin.append(record(100))
    assert list(twin)[:-3] == rows
    assert twin.last_step == 100


def test_its_files_vanish_with_it(place: Path) -> None:
    history, _ = filled(40)
    assert files(place) == 3
    history.clear()
    assert not list(place.iterdir())
    assert len(history) == 0
    history.append(record(0))
    assert list(history) == list(record(0).without_counts())
    del history
    again, _ = filled(40)
    assert files(place) == 3
    del again
    gc.collect()
    assert not list(place.iterdir())


def test_without_a_place_for_files_it_stays_in_memory_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.warns(UserWarning, match=r"history of demo stays in memory.*set TMPDIR") as said:
        history, rows = filled(60)
    assert len(said) == 1
    assert list(history) == rows
    assert len(history._in_memory) <= 60 // 4 + 3
    assert history[-1] == rows[-1]
    history.truncate(7)
    assert list(history) == rows[: 8 * 3]


def test_a_disk_that_fills_up_costs_no_row(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    history, rows = filled(20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def go_on() -> None:
        for step in range(20, 60):
            history.append(record(step))
            rows.extend(record(step).without_counts())

    monkeypatch.setattr(module, "write_frame", full)
    with pytest.warns(UserWarning, match="No space left"):
        go_on()
    assert list(history) == rows
