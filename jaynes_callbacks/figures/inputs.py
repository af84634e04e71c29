"""What figure functions take: records in any of the forms in which users have them."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from jaynes_callbacks.instruments import KNOWN, made
from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.probes.selection import shorten
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.history import History
from jaynes_callbacks.records.parts import parts, read_parts
from jaynes_callbacks.records.schema import Array, ColumnType, Schema

__all__ = ["Rows", "RowsOfStream", "as_frame", "end_and_start"]

#: Rows of many streams or steps: a frame, a history, a list of rows or of frames such as a loop
#: makes, the data frame of ``monitor.history``, or the path of a dataset (``…/jaynes``).
Rows: TypeAlias = Sequence[Any] | pd.DataFrame | str | PathLike[str]
#: One record, or rows of one stream in any of these forms.
RowsOfStream: TypeAlias = Record | Rows

_DTYPES = {ColumnType.INTEGER: np.int64, ColumnType.REAL: np.float64}


def as_frame(rows: Rows, schema: Schema[Any] | None = None, *, counts: bool = False) -> Frame[Any]:
    """Return rows as columns, so that a figure reads a long history once.

    Args:
        rows: see `Rows`; a frame is returned as it is.
        schema: of the columns, where neither the rows nor their columns' names tell it; by default
            that of magnitudes.
        counts: whether counts are read from a dataset.

    Raises:
        FileNotFoundError: for a path without a dataset.
        TypeError: for anything else than rows.
        ValueError: for a data frame without the columns ``step``, ``kind`` and ``name``.
    """
    if isinstance(rows, Frame):
        return rows
    if isinstance(rows, History):
        return rows.frame()
    if isinstance(rows, str | PathLike):
        return _read(Path(rows), counts=counts)
    if isinstance(rows, pd.DataFrame):
        return _of_pandas(rows, schema)
    if not isinstance(rows, Sequence):
        raise TypeError(
            "a figure takes records: a frame such as Records, a list of rows or frames, a "
            f"DataFrame such as monitor.history, or a dataset's path, got {type(rows).__name__}"
        )
    if frames := [each for each in rows if isinstance(each, Frame)]:
        if len(frames) < len(rows):
            raise TypeError("a list holds either frames or rows, got both")
        return Frame.concatenated(frames)
    return Frame.from_rows(schema or _schema_of(rows), rows)


def end_and_start(
    records: RowsOfStream, start: RowsOfStream | None, name: str | None
) -> tuple[Record, Record | None]:
    """Return the record of one stream to draw, and the earlier one to draw it against.

    Args:
        records: a record; or rows of which the last one is drawn, against the first one where no
            other `start` is given.
        start: an earlier record of the same stream, or rows of which the first one is taken.
        name: of the stream, where the rows have several.

    Raises:
        ValueError: for two different streams, rows of several streams without a name, or rows
            without counts.
    """
    rows = _of_one_stream(records, name, "records")
    now, before = rows[len(rows) - 1], rows[0]
    if start is not None:
        before = _of_one_stream(start, name, "start")[0]
    if before.key != now.key:
        raise ValueError(
            f"record and start must be of one stream, got {_label(now.key)} and "
            f"{_label(before.key)}; take both with .select(name={now.name!r})"
        )
    return now, before if start is not None or before.step != now.step else None


def _of_one_stream(records: RowsOfStream, name: str | None, what: str) -> Sequence[Record]:
    if isinstance(records, Record):
        return [records]
    frame = as_frame(records, counts=True)
    chosen = frame if name is None else frame.select(name=name)
    streams = [*chosen.rows_by_stream()]
    if not streams:
        known = shorten([_label(key) for key in frame.rows_by_stream()] or ["none"])
        raise ValueError(f"{what} must have a stream {name or ''!r}, got {known}")
    if len(streams) > 1:
        known = shorten([_label(key) for key in streams])
        raise ValueError(
            f"{what} must be of one stream, got {len(streams)} ({known}); choose one with name=..."
        )
    if "counts" not in chosen.columns:
        raise ValueError(
            f"{what} must have counts, which a DataFrame and a history do not keep; take "
            "monitor.records, Recorder's records, or the dataset's path"
        )
    return chosen


def _read(path: Path, *, counts: bool) -> Frame[Any]:
    if path.is_file():
        path = path.parent
    if not parts(path):
        raise FileNotFoundError(
            f"no dataset at {path}: expected a folder jaynes/ with part-*.parquet files, or an "
            "instrument's folder below it"
        )
    main = not path.name.startswith("_")
    frame = read_parts(path, SCHEMA if main else None, counts=counts)
    return Records(frame) if main else frame


def _of_pandas(table: pd.DataFrame, schema: Schema[Any] | None) -> Frame[Any]:
    """Make a frame of a data frame, under the known schema that has most of its columns.

    Columns that the schema does not have, such as a user's own, are left out.
    """
    names = [str(name) for name in table.columns]
    if missing := [name for name in ("step", "kind", "name") if name not in names]:
        raise ValueError(
            f"a DataFrame must have the columns of monitor.history, and lacks {', '.join(missing)}"
        )
    known = [schema] if schema is not None else [each.schema for each in made(list(KNOWN), {})]
    described = [each.with_names(names) for each in known]
    best = max(described, key=lambda each: sum(name in each.by_name for name in names))
    columns: dict[str, Array] = {
        name: table[name].to_numpy(_DTYPES.get(best.by_name[name].type, object))
        for name in names
        if name in best.by_name
    }
    return Frame(best, columns)


def _schema_of(rows: Sequence[Any]) -> Schema[Any]:
    """Return the schema of some rows, which they declare by their class."""
    kind = type(rows[0]) if len(rows) else Record
    if issubclass(kind, Record):
        return SCHEMA if kind is Record else Schema(kind, keys=SCHEMA.keys)
    return Schema(kind)


def _label(key: tuple[str, str]) -> str:
    kind, name = key
    return f"{kind} {name}"
