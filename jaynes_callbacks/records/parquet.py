"""Records as Parquet and back: one explicit schema for every part.

The columns do not depend on the rows: a part whose gaps are all nan, or in which only some
families were fitted, has the same columns and types as any other, with units and meaning beside
them.  Of a column that holds one family's figure, null means that the record has no such entry,
nan that it is undefined.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaynes_callbacks._version import __version__
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.sinks.place import RUN_ID
from jaynes_callbacks.statistics import FAMILIES, LOGNORMAL

__all__ = ["COLUMNS", "RowWriter", "column_names", "read_rows", "write_rows"]

_COMPRESSION = "zstd"
_VERSION = b"jaynes_callbacks.version"
_SCALARS = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_LISTS = {
    "shape": pa.list_(pa.int64()),
    "codes": pa.list_(pa.int16()),
    "counts": pa.list_(pa.int64()),
    "paper_counts": pa.list_(pa.int64()),
}
_ARRAYS = ("codes", "counts", "paper_counts")
_FAMILIES = tuple(family.name for family in FAMILIES if family is not LOGNORMAL)

#: Columns without which a file is no part of a dataset.
COLUMNS = frozenset({"run", "step", "epoch", "kind", "name", "n", "gap", "codes", "counts"})


def write_rows(records: Sequence[Record], path: Path, run_id: str) -> None:
    """Write records to one Parquet file."""
    table = _table(records, _schema(records, run_id))
    pq.write_table(table, path, compression=_COMPRESSION)


class RowWriter:
    """Writes records to one Parquet file as they come, of the families that the package knows.

    Args:
        path: of the file, which can be read once the writer is closed.
    """

    def __init__(self, path: Path) -> None:
        self._schema = _schema((), "")
        self._file = pq.ParquetWriter(path, self._schema, compression=_COMPRESSION)

    def write(self, records: Sequence[Record]) -> None:
        """Add some rows."""
        self._file.write_table(_table(records, self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def column_names(*, counts: bool = True) -> list[str]:
    """The dataset's columns in their order.

    Args:
        counts: whether to name the array columns too.
    """
    return [name for name in _schema((), "").names if counts or name not in _ARRAYS]


def read_rows(path: Path, *, counts: bool = True) -> Iterator[Record]:
    """Read one Parquet file of records; columns that this version does not know are left out.

    Args:
        path: the file.
        counts: whether to read the array columns.

    Raises:
        ValueError: if the file is no Parquet, or has not the columns of a record.
    """
    try:
        present = pq.read_schema(path).names
        unwanted = () if counts else _ARRAYS
        missing = COLUMNS - set(present)
        if missing:
            raise ValueError(
                f"{path} is no part of a jaynes_callbacks dataset: it has no column "
                f"{', '.join(sorted(missing))}, but {', '.join(present[:8]) or 'none at all'}"
            )
        table = pq.read_table(path, columns=[name for name in present if name not in unwanted])
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no readable Parquet file: {error}") from error
    columns = {name: _values(table.column(name)) for name in table.column_names}
    families = _families_of(columns)
    plain = [column.name for column in fields(Record) if column.name in columns]
    for row in zip(*columns.values(), strict=True):
        yield _record(dict(zip(columns, row, strict=True)), plain, families)


def _table(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    rows = [record.to_dict() for record in records]
    columns = [
        pa.array([row.get(name) for row in rows], schema.field(name).type, from_pandas=False)
        for name in schema.names
    ]
    return pa.table(columns, schema=schema)


def _schema(records: Sequence[Record], run_id: str) -> pa.Schema:
    columns = [entry for column in fields(Record) for entry in _entries(column, records)]
    metadata = {_VERSION: __version__.encode(), RUN_ID: run_id.encode()}
    return pa.schema(columns, metadata=metadata)


def _entries(column: "Field[Any]", records: Sequence[Record]) -> list[pa.Field]:
    """The Parquet columns of one of the record's: one, or one for each family."""
    note = {key: column.metadata[key] for key in ("unit", "meaning")}
    prefix = column.metadata.get("prefix")
    if prefix is None:
        type_ = _LISTS.get(column.name) or _SCALARS[type(column.default)]
        return [pa.field(column.name, type_, metadata=note)]
    families = dict.fromkeys([*_FAMILIES, *(f for r in records for f in getattr(r, column.name))])
    return [pa.field(prefix + family, pa.float64(), metadata=note) for family in families]


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
    """The column's values; lists as views of one numpy array."""
    if not pa.types.is_list(column.type):
        values: list[Any] = column.to_pylist()
        return values
    array = column.combine_chunks()
    flat = array.values.to_numpy().astype(np.int64)
    ends = array.offsets.to_numpy()
    return [flat[start:end] for start, end in pairwise(ends)]


def _families_of(present: Iterable[str]) -> dict[str, dict[str, str]]:
    """For each of the record's columns that has many families: their columns and their names."""
    plain = {column.name for column in fields(Record)}
    more = [name for name in present if name not in plain]
    return {
        column.name: {name: name.removeprefix(prefix) for name in more if name.startswith(prefix)}
        for column in fields(Record)
        if (prefix := column.metadata.get("prefix")) is not None
    }


def _record(
    row: Mapping[str, Any], plain: Sequence[str], families: Mapping[str, Mapping[str, str]]
) -> Record:
    values = {name: row[name] for name in plain}
    for column, names in families.items():
        found = ((family, row[name]) for name, family in names.items())
        values[column] = {family: value for family, value in found if value is not None}
    return Record(**{**values, "shape": tuple(map(int, row.get("shape", ())))})
