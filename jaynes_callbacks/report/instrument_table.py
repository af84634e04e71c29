"""The tables of a run's other instruments, made of what their files say of their own columns.

Every part of an instrument names unit, meaning, heading and decimals of its columns.  That is all
that is needed for a table of its streams: no instrument is known here.
"""

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaynes_callbacks.instruments.record import family_label
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parts import read_parts
from jaynes_callbacks.records.schema import Array, Column, ColumnType
from jaynes_callbacks.records.stream import in_order
from jaynes_callbacks.records.text import cell_text
from jaynes_callbacks.report.table import (
    SPARK_HEIGHT,
    Cell,
    Heading,
    StreamRow,
    sort_key,
    sparkline,
)

__all__ = ["InstrumentTable", "Unreadable", "instrument_table", "read_instruments"]

#: Columns that the first cell of a row shows together.
_NAMES = ("name", "kind")


class InstrumentTable(NamedTuple):
    """The last record of each stream of an instrument, and the course of its curves.

    Attributes:
        title: what the table shows.
        records: number of steps at which something was recorded.
        steps: the first and the last of them.
        kinds: of the streams, each once.
        headings: of the columns.
        rows: one for each stream.
    """

    title: str
    records: int
    steps: tuple[int, int]
    kinds: Sequence[str]
    headings: Sequence[Heading]
    rows: Sequence[StreamRow]


class Unreadable(NamedTuple):
    """An instrument whose records cannot be shown.

    Attributes:
        name: of the instrument.
        reason: why its records cannot be read.
    """

    name: str
    reason: str


def read_instruments(
    folders: Mapping[str, Path],
) -> tuple[list[InstrumentTable], list[Unreadable]]:
    """Read instruments' folders and make a table of each.

    Args:
        folders: with parts, by the names of the instruments.

    Returns:
        The tables, and the instruments that cannot be read.
    """
    tables, failures = [], []
    for name, folder in folders.items():
        try:
            tables.append(instrument_table(read_parts(folder, counts=False), name))
        # A damaged file may also describe a column in a way in which no value can be printed.
        except (OSError, ValueError, TypeError) as error:
            failures.append(Unreadable(name, str(error)))
    return tables, failures


def instrument_table(frame: Frame[Any], name: str) -> InstrumentTable:
    """Make the table of an instrument's streams.

    Each stream has the columns that the schema marks as shown, as they are in its last record.  A
    curve's cell shows the first value as well, and a sparkline over the steps.

    Args:
        frame: all rows of the instrument, ordered by step.
        name: of the instrument, which stands in for a missing title.
    """
    places = frame.rows_by_stream()
    columns = [each for each in frame.schema.shown if each.name not in _NAMES]
    needed = Frame(frame.schema, {each.name: frame[each.name] for each in frame.schema.shown})
    ends = needed.take(np.array([rows[-1] for rows in places.values()], dtype=np.int64))
    starts = needed.take(np.array([rows[0] for rows in places.values()], dtype=np.int64))
    columns = [each for each in columns if not _is_void(each, ends)]
    rows = [
        StreamRow(
            number,
            end.kind,
            end.name,
            (
                Cell(end.name, number),
                *(_cell(each, start, end, frame, chosen) for each in columns),
            ),
        )
        for number, (start, end, chosen) in enumerate(
            zip(starts, ends, places.values(), strict=True)
        )
    ]
    steps = np.unique(frame["step"])
    return InstrumentTable(
        frame.schema.title or name,
        len(steps),
        (int(steps[0]), int(steps[-1])),
        in_order(frame["kind"].tolist()),
        [
            Heading("stream", frame.schema.by_name["name"].meaning),
            *(Heading(each.heading, _meaning(each)) for each in columns),
        ],
        rows,
    )


def _is_void(column: Column, rows: Frame[Any]) -> bool:
    """Tell whether a column says nothing in any row, such as verdicts that nobody passed."""
    values = rows[column.name]
    if column.type is ColumnType.REAL and not column.curve:
        return not np.isfinite(np.ma.filled(values, nan)).any()
    return column.type is ColumnType.TEXT and not any(values)


def _meaning(column: Column) -> str:
    """Return the tooltip of a heading: the meaning and the unit."""
    unit = f"in {column.unit}" if column.unit not in ("", "1") else ""
    return ", ".join(part for part in (column.meaning, unit) if part)


def _cell(column: Column, start: Any, end: Any, frame: Frame[Any], rows: Array) -> Cell:
    """Make a cell of a stream's first and last row and, for a curve, of all its rows."""
    text = cell_text(end, column)
    if column.type in (ColumnType.TEXT, ColumnType.SHAPE):
        label = family_label(text)
        return Cell(label, label)
    key = sort_key(getattr(end, column.name))
    if not column.curve:
        return Cell(text, key, is_number=True)
    steps, values = frame["step"][rows], np.ma.filled(frame[column.name][rows].astype(float), nan)
    if start.step != end.step and np.isfinite(values).any():
        text = f"{cell_text(start, column)} → {text}"
    return Cell(text, key, is_number=True, spark=_spark(steps, values))


def _spark(steps: Array, values: Array) -> str:
    """Return a sparkline whose box reaches from the least to the greatest of the known values."""
    known = np.isfinite(values)
    if not known.any():
        return ""
    # Halves: the difference of two large numbers is finite.
    halves, steps = values[known] / 2, steps[known]
    low, high = halves.min(), halves.max()
    share = (high - halves) / (high - low) if high > low else np.full(len(halves), 0.5)
    return sparkline(steps, SPARK_HEIGHT * share)
