"""Options for rows instead of tables, and the file they go to."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.cli.status import UsageError

if TYPE_CHECKING:
    from jaynes_callbacks.instruments.record import Records

__all__ = ["add_rows", "row_format", "row_writer"]

_FORMATS = ("csv", "json", "parquet")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add ``--format`` and ``--output``."""
    group = parser.add_argument_group("rows, with the columns of a training run's dataset")
    group.add_argument(
        "--format",
        choices=_FORMATS,
        help="print rows instead of tables; with --output by default the end of its name",
    )
    group.add_argument("--output", type=Path, metavar="FILE", help="write rows to a file")


def row_format(options: argparse.Namespace) -> str:
    """The format of the rows that are asked for; empty if none are.

    Raises:
        UsageError: if they cannot be written.
    """
    form: str = options.format or ""
    output: Path | None = options.output
    if output is None:
        if form == "parquet":
            raise UsageError("--format parquet needs a file: add --output rows.parquet")
        return form
    form = form or output.suffix.removeprefix(".").lower()
    if form not in _FORMATS:
        raise UsageError(
            f"--output {output} ends in none of .csv, .json, .parquet; say which with --format"
        )
    if not output.parent.is_dir():
        raise UsageError(f"--output {output} lies in no directory that exists; make it first")
    return form


@contextmanager
def row_writer(output: Path | None, form: str) -> "Iterator[Callable[[Records], object]]":
    """What writes rows to the file, or to standard output; it does nothing for no format."""
    if not form:
        yield _write_nothing
        return
    from jaynes_callbacks.records.exports import open_export, text_export

    where: Any = text_export(sys.stdout, form) if output is None else open_export(output, form)
    with where as export:
        yield export.write


def _write_nothing(records: "Records") -> None:
    """For commands that were asked for no rows."""
