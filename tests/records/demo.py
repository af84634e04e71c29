"""A table of every type of column, for the tests of this room."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import (
    ColumnType,
    Integers,
    Key,
    Row,
    Schema,
    column,
    counts_column,
    group,
)

#: Names that a stream may have, whoever made the model: each is data and nothing else.
HOSTILE = [
    "",
    "nul\0byte",
    "../x",
    "a,b;\"c'",
    "line\nbreak\rcarriage",
    "层.权重",
    "=1+1",
    "x" * 9999,
]
#: Half of a surrogate pair, which has no place in UTF-8, and how it is spelled out in files.
LONE, SPELLED = "lone\ud83dsurrogate", "lone\\ud83dsurrogate"


@dataclass(frozen=True, eq=False)
class Demo(Row):
    """One row."""

    size: int = column("values", "how many", 7)
    value: float = column(
        "nats", "how much", curve=True, label="the value", digits=1, tag="v/{kind}"
    )
    note: str = column("", "why", "nothing to say", shown=True)
    shape: tuple[int, ...] = column("", "of the parameter", ())
    shares: dict[str, float] = group("share_", "1", "share of {}")
    codes: Integers = counts_column("code", "occupied", ColumnType.CODES)
    counts: Integers = counts_column("values", "in each")


DEMO: Schema[Demo] = Schema(
    Demo, "demo", "Demonstration", keys={"shares": {"a": Key("A"), "b": Key("B")}}
)


def demo(step: int = 0, name: str = "w", **columns: Any) -> Demo:
    """A row with a few counts."""
    counts = {"codes": np.array([1, 5]), "counts": np.array([2, step + 1])}
    return Demo(step=step, name=name, kind="weight", **{**counts, **columns})


def record(step: int, streams: int = 3, value: float | None = None) -> Frame[Demo]:
    """All streams' rows of one step, the values told by step and stream."""
    values = [step + i / 10 if value is None else value for i in range(streams)]
    rows = [demo(step, f"layer{i}", value=values[i]) for i in range(streams)]
    return Frame.from_rows(DEMO, rows)
