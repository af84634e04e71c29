"""Records as one file for other programs: CSV, JSON or Parquet, written as they come.

The columns are those of a training run's dataset, in its order.  CSV leaves the arrays of counts
out; JSON writes what is not finite as null.
"""

import csv
import json
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.records.parquet import RowWriter, column_names

__all__ = ["FORMATS", "Export", "open_export", "text_export"]

#: The formats, by the ends of their files' names.
FORMATS = ("csv", "json", "parquet")


class Export(Protocol):
    """Takes records as they come; what it was given stands in the file when it is closed."""

    def write(self, records: Records) -> None:
        """Add some rows."""

    def close(self) -> None:
        """Finish the file."""


class _Csv:
    def __init__(self, file: TextIO) -> None:
        names = column_names(counts=False)
        self._rows = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        self._rows.writeheader()

    def write(self, records: Records) -> None:
        for record in records:
            row = {name: _plain(value) for name, value in record.to_dict(counts=False).items()}
            self._rows.writerow({**row, "shape": "x".join(map(str, record.shape))})

    def close(self) -> None:
        """Every row is whole."""


class _Json:
    def __init__(self, file: TextIO) -> None:
        self._file, self._between = file, "[\n"
        self._names = column_names()

    def write(self, records: Records) -> None:
        for record in records:
            values = record.to_dict()
            row = {name: _plain(values.get(name)) for name in self._names}
            self._file.write(self._between + json.dumps(row, ensure_ascii=False, allow_nan=False))
            self._between = ",\n"

    def close(self) -> None:
        self._file.write("[]\n" if self._between == "[\n" else "\n]\n")


@contextmanager
def open_export(path: Path, form: str) -> Iterator[Export]:
    """Write records to a file, which takes its name at the end, whatever ends the block.

    Args:
        path: of the file; one that is there is replaced.
        form: of `FORMATS`.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _opened(temporary, form) as export:
            yield export
    finally:
        with suppress(FileNotFoundError):
            temporary.replace(path)


@contextmanager
def text_export(file: TextIO, form: str) -> Iterator[Export]:
    """Write records as CSV or JSON to an open file."""
    export: Export = _Csv(file) if form == "csv" else _Json(file)
    with closing(export):
        yield export


@contextmanager
def _opened(path: Path, form: str) -> Iterator[Export]:
    if form == "parquet":
        with closing(RowWriter(path)) as rows:
            yield rows
        return
    with path.open("w", encoding="utf-8", newline="") as file, text_export(file, form) as export:
        yield export


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
