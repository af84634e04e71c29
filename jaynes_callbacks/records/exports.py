"""Frames as one file for other programs: CSV, JSON or Parquet, written as they come.

The columns are those of the schema, in its order.  CSV leaves the arrays of counts out, and puts
an apostrophe before a text that a spreadsheet would take for a formula.  JSON writes what is not
finite as null.
"""

import codecs
import csv
import json
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import FrameWriter
from jaynes_callbacks.records.schema import ColumnType, Schema

__all__ = ["FORMATS", "Export", "open_export", "text_export"]

#: The formats, by the ends of their files' names.
FORMATS = ("csv", "json", "parquet")
_END = "\r\n"
#: Beginnings of what spreadsheets calculate.  Texts that begin with the apostrophe itself get one
#: more, so that removing the first one restores every text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


class Export(Protocol):
    """Takes frames as they come; what it was given stands in the file when it is closed."""

    def write(self, frame: Frame[Any]) -> None:
        """Add some rows."""

    def close(self) -> None:
        """Finish the file."""


class _Lines:
    """Takes a writer's lines and ends them as Unix does.

    The writer quotes what contains a character of its line's end.  If that were a line feed alone,
    a carriage return in a name would stay unquoted, and end the line for whoever reads it.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix(_END) + "\n")


class _Csv:
    def __init__(self, file: TextIO, schema: Schema[Any]) -> None:
        self._columns = [each for each in schema.columns if not each.type.is_array]
        self._rows = csv.writer(_Lines(file), lineterminator=_END)
        self._rows.writerow([each.name for each in self._columns])

    def write(self, frame: Frame[Any]) -> None:
        lists = [
            [_cell(value, each.type) for value in frame[each.name].tolist()]
            for each in self._columns
        ]
        self._rows.writerows(zip(*lists, strict=True))

    def close(self) -> None:
        """Do nothing: every row is whole."""


class _Json:
    def __init__(self, file: TextIO, schema: Schema[Any]) -> None:
        self._file, self._between = file, "[\n"
        self._names = schema.names
        self._ascii = not _is_unicode(file.encoding)

    def write(self, frame: Frame[Any]) -> None:
        lists = [[_plain(value) for value in frame[name].tolist()] for name in self._names]
        for values in zip(*lists, strict=True):
            row = dict(zip(self._names, values, strict=True))
            self._file.write(
                self._between + json.dumps(row, ensure_ascii=self._ascii, allow_nan=False)
            )
            self._between = ",\n"

    def close(self) -> None:
        self._file.write("[]\n" if self._between == "[\n" else "\n]\n")


@contextmanager
def open_export(path: Path, form: str, schema: Schema[Any]) -> Iterator[Export]:
    """Write frames to a file, which takes its name at the end, whatever ends the block.

    Args:
        path: of the file; one that is there is replaced.
        form: of `FORMATS`.
        schema: of the frames.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _opened(temporary, form, schema) as export:
            yield export
    finally:
        with suppress(FileNotFoundError):
            temporary.replace(path)


@contextmanager
def text_export(file: TextIO, form: str, schema: Schema[Any]) -> Iterator[Export]:
    """Write frames as CSV or JSON to an open file."""
    export: Export = _Csv(file, schema) if form == "csv" else _Json(file, schema)
    with closing(export):
        yield export


@contextmanager
def _opened(path: Path, form: str, schema: Schema[Any]) -> Iterator[Export]:
    if form == "parquet":
        with closing(FrameWriter(path, schema)) as rows:
            yield rows
        return
    with (
        # Half of a surrogate pair has no place in UTF-8; in JSON this is its proper escape.
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        text_export(file, form, schema) as export,
    ):
        yield export


def _cell(value: Any, type_: ColumnType) -> Any:
    if type_ is ColumnType.SHAPE:
        return "x".join(map(str, value))
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return _plain(value)


def _is_unicode(encoding: str | None) -> bool:
    """Tell whether an open file takes any text; a file in memory has no encoding."""
    return encoding is None or codecs.lookup(encoding).name.startswith("utf")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
