"""The dataset on disk: the directory ``jaynes/``, one Parquet part per snapshot.

Each part is written to a hidden temporary name and renamed, so that a killed run leaves only whole
parts, and ``pandas.read_parquet(directory)`` reads them all at any moment.  Nothing that another
run has left is ever touched: a fresh run whose directory is taken goes to ``jaynes-1``, and so on;
a resumed one goes on where its checkpoint was.
"""

import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaynes_callbacks._version import __version__
from jaynes_callbacks.record import Record, Records
from jaynes_callbacks.sink import RunContext

__all__ = ["DIRECTORY", "DatasetSink", "read_records"]

#: Name of the dataset's directory below the run's.
DIRECTORY = "jaynes"

_PART = re.compile(r"part-(\d+)\.parquet")
_ARROW_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_ARRAY_TYPES = {
    "shape": pa.list_(pa.int64()),
    "codes": pa.list_(pa.int16()),
    "counts": pa.list_(pa.int64()),
    "paper_counts": pa.list_(pa.int64()),
}


class DatasetSink:
    """Writes every snapshot as one Parquet part.

    Attributes:
        directory: where the parts are, once opened.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None

    def open(self, context: RunContext) -> None:
        """Choose and make the directory.

        Raises:
            OSError: if it cannot be written.
        """
        if context.directory is None:
            self.directory = None
            return
        if context.resumed_step is None:
            if (
                self.directory is None
                or self.directory.parent != context.directory
                or _steps(self.directory)
            ):
                self.directory = _unused(context.directory / DIRECTORY)
            _make(self.directory)
            return
        self.directory = self.directory or context.directory / DIRECTORY
        _make(self.directory)
        if context.resumed_directory is not None:
            _carry_over(context.resumed_directory / DIRECTORY, self.directory)
            _drop_later(self.directory, context.resumed_step)

    def write(self, records: Records, history: Records) -> None:
        """Write one part; a repeated step replaces its part."""
        if self.directory is None or not records:
            return
        part = self.directory / f"part-{records[0].step:012d}.parquet"
        temporary = part.with_name(f".{part.name}.tmp")
        pq.write_table(_table(records), temporary)
        os.replace(temporary, part)  # noqa: PTH105

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Nothing is left to do: every part is whole."""


def read_records(path: str | Path) -> Records:
    """Read a dataset, or one part of it, back.

    Args:
        path: the directory ``jaynes/`` or a Parquet file in it.

    Returns:
        Records equal to the ones written, ordered by step.

    Raises:
        FileNotFoundError: if there is no such path or no part in it.
        ValueError: if a part has none of the record's columns.
    """
    path = Path(path)
    parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if not parts or not parts[0].is_file():
        raise FileNotFoundError(
            f"no dataset at {path}: expected a directory with part-*.parquet files, as a monitor "
            f"writes it into {DIRECTORY}/ below its logger's directory"
        )
    return Records(row for part in parts for row in _rows(part))


# Directories ------------------------------------------------------------------------------------


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot write the dataset to {directory} ({error.strerror or error}); "
            "give the monitor another place with dirpath=..."
        ) from error
    if not os.access(directory, os.W_OK):
        raise OSError(
            f"cannot write the dataset to {directory} (no permission); "
            "give the monitor another place with dirpath=..."
        )
    for leftover in directory.glob(".part-*.tmp"):
        leftover.unlink()


def _unused(directory: Path) -> Path:
    """The directory, or its first sibling that holds no other run's parts."""
    chosen, number = directory, 0
    while _steps(chosen):
        number += 1
        chosen = directory.with_name(f"{directory.name}-{number}")
    if number:
        warnings.warn(
            f"{directory} holds another run's records; this run's go to {chosen}", stacklevel=2
        )
    return chosen


def _steps(directory: Path) -> dict[int, Path]:
    """The parts of a dataset by step."""
    matches = {path: _PART.fullmatch(path.name) for path in directory.glob("part-*.parquet")}
    return {int(match[1]): path for path, match in matches.items() if match}


def _carry_over(before: Path, directory: Path) -> None:
    if before == directory or not before.is_dir():
        return
    for part in _steps(before).values():
        if not (directory / part.name).exists():
            shutil.copy2(part, directory / part.name)


def _drop_later(directory: Path, step: int) -> None:
    """Forget what came after the checkpoint: the resumed run comes there again."""
    for own, part in _steps(directory).items():
        if own > step:
            part.unlink()


# Rows and columns -------------------------------------------------------------------------------


def _table(records: Sequence[Record]) -> pa.Table:
    rows = [record.to_dict() for record in records]
    schema = _schema(records[0])
    columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _schema(record: Record) -> pa.Schema:
    columns: list[pa.Field] = []
    for column in fields(record):
        prefix = column.metadata.get("prefix")
        names = (
            [column.name] if prefix is None else [prefix + f for f in getattr(record, column.name)]
        )
        note = {key: column.metadata[key] for key in ("unit", "meaning")}
        columns += [pa.field(name, _type(column, record), metadata=note) for name in names]
    return pa.schema(columns, metadata={"jaynes_callbacks": __version__})


def _type(column: "Field[Any]", record: Record) -> pa.DataType:
    if column.name in _ARRAY_TYPES:
        return _ARRAY_TYPES[column.name]
    value = getattr(record, column.name)
    return pa.float64() if isinstance(value, Mapping) else _ARROW_TYPES[type(column.default)]


def _rows(part: Path) -> list[Record]:
    table = pq.read_table(part)
    if not {"kind", "name", "step", "codes", "counts"} <= set(table.column_names):
        raise ValueError(
            f"{part} is no part of a jaynes_callbacks dataset: it has the columns "
            f"{table.column_names[:8]}; expected kind, name, step, codes, counts and others"
        )
    return [_record(row) for row in table.to_pylist()]


def _record(row: dict[str, Any]) -> Record:
    values: dict[str, Any] = {}
    taken = {column.name for column in fields(Record)}
    for column in fields(Record):
        prefix = column.metadata.get("prefix")
        if prefix is not None:
            values[column.name] = {
                name.removeprefix(prefix): value
                for name, value in row.items()
                if name.startswith(prefix) and name not in taken
            }
        elif column.name in row:
            values[column.name] = row[column.name]
    values["shape"] = tuple(values["shape"])
    for name in ("codes", "counts", "paper_counts"):
        values[name] = np.asarray(values[name], dtype=np.int64)
    return Record(**values)
