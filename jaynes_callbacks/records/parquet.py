"""Frames as Parquet files and back.

The columns of a file do not depend on its rows: a part whose gaps are all nan, or in which only
some families were fitted, has the same columns and types as any other.  Unit, meaning and display
of each column stand in the file, so that a reader without the instrument's code can show it.  In a
column of a group null means that the row has no such entry, nan that it is undefined.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import make_dataclass
from functools import lru_cache, partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jaynes_callbacks._version import __version__
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.regular import require_regular
from jaynes_callbacks.records.schema import (
    Array,
    Column,
    ColumnType,
    Integers,
    Row,
    Schema,
    column,
    counts_column,
)

__all__ = [
    "RUN_ID",
    "FrameWriter",
    "arrow_table",
    "read_frame",
    "read_frames",
    "read_run_id",
    "read_table",
    "write_frame",
    "write_table",
]

#: Key of the run's id in the metadata of a file's schema.
RUN_ID = b"jaynes_callbacks.run_id"
_VERSION, _INSTRUMENT = b"jaynes_callbacks.version", b"jaynes_callbacks.instrument"
#: Version of what the columns mean (`Schema.version`); files of version 0.1 have none: 1.
_SCHEMA_VERSION = b"jaynes_callbacks.schema_version"

#: Files that are read at once: while one is decoded Python can open the next.
_READERS = 4

_ARROW_TYPES: Mapping[ColumnType, pa.DataType] = {
    ColumnType.INTEGER: pa.int64(),
    ColumnType.REAL: pa.float64(),
    ColumnType.TEXT: pa.string(),
    ColumnType.SHAPE: pa.list_(pa.int64()),
    ColumnType.COUNTS: pa.list_(pa.int64()),
    ColumnType.CODES: pa.list_(pa.int16()),
}
_PYTHON_TYPES: Mapping[ColumnType, Any] = {
    ColumnType.INTEGER: int,
    ColumnType.REAL: float,
    ColumnType.TEXT: str,
    ColumnType.SHAPE: tuple[int, ...],
}
#: Decimals where a file says none, and the most that one may ask for: a double has no more.
_DIGITS, _MOST_DIGITS = Column("").digits, 17
_DEFAULTS: Mapping[ColumnType, Any] = {
    ColumnType.INTEGER: 0,
    ColumnType.REAL: np.nan,
    ColumnType.TEXT: "",
    ColumnType.SHAPE: (),
}


# Writing ------------------------------------------------------------------------------------


def write_frame(frame: Frame[Any], path: Path, run_id: str = "") -> None:
    """Write a frame's columns to one Parquet file."""
    write_table(arrow_table(frame, run_id), path)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of `arrow_table`, or several joined, to one Parquet file."""
    pq.write_table(table, path, **_encoding(table.schema))


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are written: dictionaries where values repeat, extrema of steps alone.

    That is a third faster than dictionaries and extrema of every column, and as small.
    """
    repeated = (pa.string(), pa.list_(pa.int64()))
    return {
        "compression": "zstd",
        "use_dictionary": [_leaf(each) for each in schema if each.type in repeated],
        "write_statistics": ["step"],
    }


def _leaf(each: pa.Field) -> str:
    """Return the path of a column's values in a file."""
    return f"{each.name}.list.element" if pa.types.is_list(each.type) else str(each.name)


class FrameWriter:
    """Writes frames of one schema to one Parquet file as they come.

    Args:
        path: of the file, which can be read once the writer is closed.
        schema: of the frames.
    """

    def __init__(self, path: Path, schema: Schema[Any]) -> None:
        self._columns = schema.columns
        self._schema = _arrow_schema(schema, schema.columns, "")
        self._file = pq.ParquetWriter(path, self._schema, **_encoding(self._schema))

    def write(self, frame: Frame[Any]) -> None:
        """Add some rows."""
        arrays = [_to_arrow(each, frame[each.name]) for each in self._columns]
        self._file.write_table(pa.table(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def arrow_table(frame: Frame[Any], run_id: str = "") -> pa.Table:
    """Return a frame as an Arrow table with its schema's description in the metadata."""
    columns = [
        each
        for each in frame.schema.columns
        if each.name in frame.columns or not each.type.is_array
    ]
    arrays = [_to_arrow(each, frame[each.name]) for each in columns]
    return pa.table(arrays, schema=_arrow_schema(frame.schema, columns, run_id))


def _arrow_schema(schema: Schema[Any], columns: Iterable[Column], run_id: str) -> pa.Schema:
    metadata = {
        _VERSION: __version__.encode(),
        RUN_ID: run_id.encode(),
        _SCHEMA_VERSION: str(schema.version).encode(),
    }
    if not schema.main:
        about = {"instrument": schema.instrument, "title": schema.title}
        metadata[_INSTRUMENT] = json.dumps(about).encode()
    return pa.schema([_field(each) for each in columns], metadata=metadata)


def _field(described: Column) -> pa.Field:
    notes = {"unit": described.unit, "meaning": described.meaning}
    # Every part bears these notes: what is as it is by default is left out.
    marks = {
        # Shapes and counts are lists of the same type.
        "type": described.type.value if described.type.is_array else "",
        "label": described.label,
        "digits": str(described.digits) if described.digits != _DIGITS else "",
        "curve": "1" if described.curve else "",
        "shown": "1" if described.shown else "",
        "tag": described.tag,
        "title": described.title,
    }
    notes |= {name: text for name, text in marks.items() if text}
    return pa.field(described.name, _ARROW_TYPES[described.type], metadata=notes)


def _to_arrow(described: Column, values: Array) -> pa.Array:
    type_ = _ARROW_TYPES[described.type]
    if described.type.is_array:
        ends = np.cumsum([0, *(len(each) for each in values)], dtype=np.int32)
        flat = np.concatenate([*values, np.zeros(0, dtype=np.int64)])
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat, type_.value_type))
    if described.type is ColumnType.SHAPE:
        return pa.array(values.tolist(), type_)
    if described.type is ColumnType.TEXT:
        return pa.array(_encodable(values.tolist()), type_)
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    return pa.array(np.ma.getdata(values), type_, mask=mask, from_pandas=False)


def _encodable(texts: list[Any]) -> list[Any]:
    """Return the texts; what has no place in UTF-8, half of a surrogate pair, is spelled out."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [text.encode(errors="backslashreplace").decode() for text in texts]
    return texts


# Reading ------------------------------------------------------------------------------------


def read_frame(path: Path, schema: Schema[Any] | None = None, *, counts: bool = True) -> Frame[Any]:
    """Read one file; see `read_frames`."""
    return read_frames([path], schema, counts=counts)


def read_frames(
    paths: Sequence[Path],
    schema: Schema[Any] | None = None,
    *,
    counts: bool = True,
    steps: Collection[int] | None = None,
) -> Frame[Any]:
    """Read some files, one after the other, into one frame.

    Columns that the schema does not know are left out.  What is null in a column of a group is
    masked; anywhere else it is the column's default.

    Args:
        paths: of the files, at least one.
        schema: of the frame; by default what the files say of their own columns.
        counts: whether to read the columns of arrays; without them the files need not have any.
        steps: keep the rows of these steps only; all by default.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if one is no Parquet, is damaged, lacks a column that such a table must have, or
            has a column twice or of another type.
    """
    with ThreadPoolExecutor(_READERS, "jaynes-parquet") as pool:
        read = partial(_read_table, schema=schema, counts=counts, steps=steps)
        tables = list(pool.map(read, paths))
    if schema is None:
        schema = _schema_of(_united(tables, paths), paths[0])
    frames = [
        _frame_of(pa.concat_tables(list(alike), promote_options="default"), schema, version)
        for version, alike in groupby(tables, _schema_version)
    ]
    return frames[0] if len(frames) == 1 else Frame.concatenated(frames)


def _frame_of(table: pa.Table, schema: Schema[Any], version: int) -> Frame[Any]:
    """Return a table's columns in today's units.

    Args:
        table: of one or several files.
        schema: of the frame.
        version: of the schema under which the files were written.
    """
    schema = schema.with_names(table.column_names)
    columns = {
        name: _from_arrow(schema.by_name[name], table.column(name), default=name in schema.plain)
        for name in table.column_names
    }
    return Frame(schema, schema.upgrade(columns, version))


def _schema_version(table: pa.Table) -> int:
    text = (table.schema.metadata or {}).get(_SCHEMA_VERSION, b"1")
    return int(text) if text.isdigit() else 1


def read_run_id(path: Path) -> str | None:
    """Return the id of the run that wrote a file; None where the file cannot be read."""
    try:
        require_regular(path)
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return metadata.get(RUN_ID, b"").decode()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file's columns as they are, whatever the folders above it are called."""
    require_regular(path)
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def _read_table(
    path: Path, schema: Schema[Any] | None, *, counts: bool, steps: Collection[int] | None
) -> pa.Table:
    """Read the known columns of one file, each in the type that it is written in."""
    try:
        require_regular(path)
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow
            known = (schema or _schema_of(found, path)).with_names(found.names)
            names = _names(found.names, known, path, counts=counts)
            # Parts are small: threads would cost more than they save.
            table = file.read(columns=names, use_threads=False)
        if list(table.column_names) != names:
            table = table.select(names)
        types = [_ARROW_TYPES[known.by_name[name].type] for name in names]
        if table.schema.types != types:
            pairs = zip(names, types, strict=True)
            wanted = [found.field(name).with_type(type_) for name, type_ in pairs]
            table = table.cast(pa.schema(wanted, found.metadata))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is no readable Parquet file of a jaynes_callbacks dataset: {error}"
        ) from error
    if steps is not None:
        table = table.filter(pc.is_in(table["step"], pa.array(list(steps), pa.int64())))
    return table


def _names(present: list[str], known: Schema[Any], path: Path, *, counts: bool) -> list[str]:
    """Return the columns of a file that are read."""
    arrays = {each.name for each in known.columns if each.type.is_array}
    unread = set() if counts else arrays
    if missing := known.required - set(present) - unread:
        raise ValueError(
            f"{path} is no part of a jaynes_callbacks dataset: it has no column "
            f"{', '.join(sorted(missing))}, but {', '.join(present[:8]) or 'none at all'}"
        )
    names = [name for name in present if name in known.by_name and name not in unread]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"{path} is no part of a jaynes_callbacks dataset: it has more than one column "
            f"{', '.join(twice)}"
        )
    return names


def _united(tables: Sequence[pa.Table], paths: Sequence[Path]) -> pa.Schema:
    """Return the columns of all tables, as the last one that has a column describes it."""
    try:
        return pa.unify_schemas([table.schema for table in reversed(tables)])
    except pa.ArrowException as error:
        raise ValueError(f"the parts of {paths[0].parent} do not go together: {error}") from error


def _schema_of(found: pa.Schema, path: Path) -> Schema[Any]:
    """Make a schema of what a file says of its columns."""
    try:
        return _declared_schema(found.serialize().to_pybytes())
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is no part of a jaynes_callbacks dataset: its columns cannot be read as a "
            f"table ({error})"
        ) from error


@lru_cache(maxsize=16)
def _declared_schema(serialized: bytes) -> Schema[Any]:
    """Make a schema of a serialized one of Arrow's; of the many parts of a run only once."""
    found = pa.ipc.read_schema(pa.py_buffer(serialized))
    inherited = set(Schema(Row).names)
    about = json.loads((found.metadata or {}).get(_INSTRUMENT, b"{}"))
    row = make_dataclass(
        "FileRow",
        [_declared(each) for each in found if each.name not in inherited],
        bases=(Row,),
        frozen=True,
        eq=False,
    )
    return Schema(row, str(about.get("instrument", "")), str(about.get("title", "")))


def _declared(each: pa.Field) -> tuple[str, Any, Any]:
    """Return name, type and field of one column of a file, which is not trusted."""
    if each.name.startswith("_") or hasattr(Row, each.name):
        raise ValueError(f"no column may be called {each.name}")
    notes = {key.decode(): value.decode() for key, value in (each.metadata or {}).items()}
    fitting = [type_ for type_, arrow in _ARROW_TYPES.items() if arrow == each.type]
    if not fitting:
        raise TypeError(f"column {each.name} has type {each.type}")
    type_ = next((type_ for type_ in fitting if type_.value == notes.get("type")), fitting[0])
    unit, meaning = notes.get("unit", ""), notes.get("meaning", "")
    if type_.is_array:
        return each.name, Integers, counts_column(unit, meaning, type_)
    declared = column(
        unit,
        meaning,
        _DEFAULTS[type_],
        label=notes.get("label", ""),
        digits=min(max(int(notes.get("digits", _DIGITS)), 0), _MOST_DIGITS),
        curve=notes.get("curve") == "1",
        tag=notes.get("tag", ""),
        title=notes.get("title", ""),
        shown=notes.get("shown") == "1",
    )
    return each.name, _PYTHON_TYPES[type_], declared


def _from_arrow(described: Column, values: pa.ChunkedArray, *, default: bool) -> Array:
    """Return a column's values.

    Args:
        described: the column.
        values: of it.
        default: whether null is the column's default; else it is masked.
    """
    if described.type.is_array or described.type is ColumnType.SHAPE:
        return _lists(values, as_tuples=described.type is ColumnType.SHAPE)
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if described.type is ColumnType.TEXT:
        texts: Array = array.fill_null(described.default if default else "").to_numpy(
            zero_copy_only=False
        )
        return texts
    mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if mask is not None:
        array = array.fill_null(described.default if default else 0)
    # A copy: the memory of a file's other columns is free once they are read.
    numbers = array.to_numpy(zero_copy_only=False).copy()
    return numbers if mask is None or default else np.ma.MaskedArray(numbers, mask)


def _lists(values: pa.ChunkedArray, *, as_tuples: bool) -> Array:
    """Return the lists as views of each file's values, or as tuples; null is an empty list."""
    found = np.empty(len(values), dtype=object)
    # Few shapes recur in many rows: each is made once.
    tuples: dict[bytes, tuple[int, ...]] = {}
    place = 0
    for chunk in values.chunks:
        flat = np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)).astype(np.int64)
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        for start, end in pairwise([0, *np.cumsum(lengths).tolist()]):
            one = flat[start:end]
            if as_tuples and (key := one.tobytes()) not in tuples:
                tuples[key] = tuple(one.tolist())
            found[place] = tuples[key] if as_tuples else one
            place += 1
    return found
