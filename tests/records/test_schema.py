"""Schemas: what a declaration of columns promises, and what is refused where it is made."""

import copy
import math
import pickle
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import (
    Column,
    ColumnType,
    Row,
    Schema,
    column,
    group,
    medians,
)
from tests.records.demo import DEMO, Demo, demo
from tests.records.strategies import demos

# Rows are values ------------------------------------------------------------------------------


@given(row=demos(), other=demos())
def test_rows_are_equal_if_their_columns_are(row: Demo, other: Demo) -> None:
    twin = pickle.loads(pickle.dumps(row))
    assert twin == row
    assert hash(twin) == hash(row)
    np.testing.assert_equal(twin.to_dict(), row.to_dict())
    try:
        np.testing.assert_equal(row.to_dict(), other.to_dict())
        equal = True
    except AssertionError:
        equal = False
    # numpy takes 0.0 and -0.0 for equal, as Python does.
    assert (row == other) == equal


def test_nan_equals_itself_and_nothing_else() -> None:
    assert demo(value=math.nan) == demo(value=math.nan)
    assert demo(value=math.nan) != demo(value=0.0)
    assert demo(shares={"a": math.nan}) == demo(shares={"a": math.nan})
    assert demo(shares={"a": math.nan}) != demo(shares={})
    assert demo(counts=np.array([1])) != demo(counts=np.array([1, 2]))
    assert demo() != Row()
    assert demo() != "a row"


@given(row=demos())
def test_a_row_is_its_columns_and_back(row: Demo) -> None:
    flat = row.to_dict()
    assert list(flat)[:5] == ["run", "step", "epoch", "kind", "name"]
    schema = DEMO.with_names(flat)
    assert set(flat) <= set(schema.names)
    assert schema.row_of(flat) == row
    bare = row.to_dict(counts=False)
    assert set(flat) - set(bare) == {"codes", "counts"}
    assert schema.row_of(bare) == row.replace(codes=np.zeros(0), counts=np.zeros(0))


def test_what_is_missing_or_null_takes_its_default() -> None:
    row = DEMO.row_of({"step": 3, "note": None, "share_a": None, "share_b": math.nan})
    assert row == Demo(step=3, shares={"b": math.nan})
    one, other = DEMO.row_of({}), DEMO.row_of({})
    assert one.shares is not other.shares, "no two rows share a mapping"


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        demo().step = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        DEMO.row_of({}).step = 3  # type: ignore[misc]


# Columns ----------------------------------------------------------------------------------------


def test_columns_are_described_once() -> None:
    value = DEMO.by_name["value"]
    assert (value.unit, value.heading, value.digits) == ("nats", "the value", 1)
    assert value.chart_title == "the value, nats"
    assert value.tag_of("weight") == "v/weight"
    assert Column("log_std").heading == "log std"
    assert Column("log_std").tag_of("iota") == "log_std_iota"
    assert Column("a", unit="1").chart_title == "a"
    assert [each.name for each in DEMO.curves] == ["value"]
    assert [each.name for each in DEMO.shown] == ["kind", "name", "step", "value", "note"]
    assert DEMO.by_name["share_a"].meaning == "share of A"
    assert [each.type for each in DEMO.columns if each.type.is_array] == [
        ColumnType.CODES,
        ColumnType.COUNTS,
    ]
    assert DEMO.names == tuple(each.name for each in DEMO.columns)
    # A schema's attributes are the row's fields, one for one, but for groups.
    assert [f.name for f in fields(Demo) if f.name != "shares"] == [
        name for name in DEMO.names if not name.startswith("share_")
    ]


def test_names_of_a_group_are_added_and_others_are_not() -> None:
    more = DEMO.with_names(["share_new", "share_", "loss", "step", "share_a"])
    assert set(more.names) - set(DEMO.names) == {"share_new", "share_"}
    assert more.by_name["share_new"].meaning == "share of new"
    assert DEMO.with_names(["loss", "step"]) is DEMO


def test_a_plain_column_keeps_a_name_that_a_group_could_take() -> None:
    @dataclass(frozen=True, eq=False)
    class Both(Row):
        gap_se: float = column("nats", "standard error")
        gaps: dict[str, float] = group("gap_", "nats", "gap to {}")

    schema = Schema(Both).with_names(["gap_se", "gap_a"])
    row = schema.row_of({"gap_se": 1.0, "gap_a": 2.0})
    assert (row.gap_se, row.gaps) == (1.0, {"a": 2.0})


def test_a_wrong_declaration_raises_where_it_is_made() -> None:
    @dataclass(frozen=True, eq=False)
    class NoColumn(Row):
        extra: float = 0.0

    @dataclass(frozen=True, eq=False)
    class NoType(Row):
        extra: complex = column("1", "of no type that a column has", 0j)

    @dataclass(frozen=True, eq=False)
    class NoMark(Row):
        extra: dict[str, float] = field(default_factory=dict)

    for row in (NoColumn, NoType, NoMark):
        with pytest.raises(TypeError, match=rf"{row.__name__}\.extra must be declared by column"):
            Schema(row)


def test_schemas_are_copied_with_their_functions() -> None:
    for twin in (copy.deepcopy(DEMO), pickle.loads(pickle.dumps(DEMO))):
        assert twin == DEMO
        assert [replace(each, default=0) for each in twin.columns] == [
            replace(each, default=0) for each in DEMO.columns
        ]
        assert twin.aggregate is medians


# Aggregates ---------------------------------------------------------------------------------------


@given(
    values=st.lists(
        st.tuples(
            st.sampled_from(["weight", "iota", "own"]),
            st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf),
        ),
        max_size=9,
    )
)
def test_medians_are_those_of_pandas(values: list[tuple[str, float]]) -> None:
    rows = [demo(value=value).replace(kind=kind) for kind, value in values]
    table = pd.DataFrame({"kind": [kind for kind, _ in values], "value": [v for _, v in values]})
    finite: Any = table[np.isfinite(table["value"].astype(float))]
    expected = {
        f"demo/{kind}/value_median": float(middle)
        for kind, middle in finite.groupby("kind")["value"].median().items()
    }
    assert medians(Frame.from_rows(DEMO, rows)) == pytest.approx(expected)
