"""Frames: columns that are rows on demand, with lists and pandas as oracles."""

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema
from tests.records.demo import DEMO, HOSTILE, Demo, demo, record
from tests.records.strategies import demos


def of(rows: list[Demo]) -> Frame[Demo]:
    return Frame.from_rows(DEMO, rows)


@settings(max_examples=50)
@given(rows=st.lists(demos(), max_size=5), more=st.lists(demos(), max_size=5), data=st.data())
def test_it_is_a_sequence_of_its_rows(rows: list[Demo], more: list[Demo], data: Any) -> None:
    frame = of(rows)
    assert len(frame) == len(rows)
    assert list(frame) == rows
    assert [frame[place] for place in range(len(rows))] == rows
    chosen = data.draw(st.slices(len(rows))) if rows else slice(None)
    assert list(frame[chosen]) == rows[chosen]
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), bool
    )
    assert list(frame.take(mask)) == [row for row, kept in zip(rows, mask, strict=True) if kept]
    assert list(frame + of(more)) == rows + more
    assert list(Frame.concatenated([frame, Frame(DEMO, {}), of(more), frame])) == rows + more + rows


@settings(max_examples=30)
@given(rows=st.lists(demos(), min_size=1, max_size=5))
def test_data_frames_are_those_of_the_flat_rows(rows: list[Demo]) -> None:
    ours = of(rows).to_pandas(counts=True)
    oracle = pd.DataFrame([row.to_dict() for row in rows])
    assert set(ours.columns) == set(oracle.columns), "columns that no row has are left out"
    for name in oracle.columns:
        for one, other in zip(ours[name], oracle[name], strict=True):
            np.testing.assert_equal(one, other)
    assert not {"codes", "counts"} & set(of(rows).to_pandas())


@settings(max_examples=30)
@given(rows=st.lists(demos(), max_size=4))
def test_copies_are_equal_and_of_the_same_class(rows: list[Demo]) -> None:
    for twin in (copy.deepcopy(of(rows)), pickle.loads(pickle.dumps(of(rows)))):
        assert list(twin) == rows
        assert twin.schema == of(rows).schema
        assert twin.schema.names == of(rows).schema.names


def test_columns_are_arrays_and_absent_ones_full_of_defaults() -> None:
    frame = Frame(DEMO, {"step": np.array([1, 2]), "value": np.array([0.5, np.nan])})
    assert frame["step"].dtype == np.int64
    assert frame["size"].tolist() == [7, 7]
    assert frame["note"].tolist() == ["nothing to say"] * 2
    assert frame["shape"].tolist() == [(), ()]
    assert frame["share_a"].mask.tolist() == [True, True]
    assert [len(each) for each in frame["counts"]] == [0, 0]
    assert [(row.size, row.shares) for row in frame] == [(7, {})] * 2
    with pytest.raises(KeyError, match="no column 'loss'; there are run, step"):
        frame["loss"]


@pytest.mark.parametrize(
    "columns",
    [
        {"step": np.zeros(2), "value": np.zeros(3)},
        {"step": np.zeros(2), "loss": np.zeros(2)},
        {"step": np.zeros(2), "": np.zeros(2)},
    ],
)
def test_columns_of_no_place_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a frame of Demo has columns of one length"):
        Frame(DEMO, columns)


def test_groups_take_new_keys_and_plain_columns_keep_their_names() -> None:
    frame = Frame(DEMO, {"step": np.array([1]), "share_new": np.array([0.5])})
    assert frame[0].shares == {"new": 0.5}
    assert "share_new" not in DEMO.by_name


def test_selecting() -> None:
    rows = [demo(0, "w"), demo(0, "v"), demo(1, "w").replace(kind="iota"), demo(1, "v")]
    frame = of(rows)
    for kind in (None, "weight", "iota", "none"):
        for name in (None, "w", "v", ""):
            expected = [
                row for row in rows if kind in (None, row.kind) and name in (None, row.name)
            ]
            assert list(frame.select(kind=kind, name=name)) == expected


def test_the_last_row_of_a_stream_counts() -> None:
    frame = record(1) + record(2, streams=2)
    assert {key[1]: row.step for key, row in frame.by_stream().items()} == {
        "layer0": 2, "layer1": 2, "layer2": 1,
    }  # fmt: skip


def test_replacing_columns_leaves_the_original() -> None:
    frame = record(1)
    changed = frame.replaced(value=np.zeros(3), share_a=np.ones(3))
    assert [row.value for row in changed] == [0.0] * 3
    assert [row.shares for row in changed] == [{"a": 1.0}] * 3
    assert list(frame) == list(record(1))


def test_without_counts_only_the_arrays_are_gone() -> None:
    bare = record(1).without_counts()
    assert set(record(1).columns) - set(bare.columns) == {"codes", "counts"}
    assert [row.value for row in bare] == [row.value for row in record(1)]


def test_an_empty_frame_is_a_frame() -> None:
    for frame in (Frame(DEMO, {}), of([]), record(1)[:0]):
        assert len(frame) == 0
        assert list(frame) == []
        assert frame["step"].tolist() == []
        assert frame.by_stream() == {}
        assert list(frame.select(kind="weight")) == []
        assert len(frame.to_pandas()) == 0
        assert list(frame + record(1)) == list(record(1))
        with pytest.raises(IndexError):
            frame[0]


def test_hostile_names_are_shown_within_the_table() -> None:
    rows = [Row(kind="weight", name=name) for name in HOSTILE]
    frame = Frame.from_rows(Schema(Row), rows)
    assert max(map(len, repr(frame).split("\n"))) <= 100
    assert frame.to_pandas().name.tolist() == HOSTILE
