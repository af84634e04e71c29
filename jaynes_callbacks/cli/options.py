"""Options that commands share, and the exit statuses and errors of wrong ones."""

import argparse
import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.cli.output import rows_output

if TYPE_CHECKING:
    from jaynes_callbacks.files import Limits
    from jaynes_callbacks.instruments.record import Records
    from jaynes_callbacks.probes.selection import Selection

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "WRONG_USAGE",
    "UsageError",
    "add_rows",
    "add_selection",
    "add_table",
    "check_device",
    "limits_of",
    "output_file",
    "report_file",
    "row_format",
    "row_writer",
    "selection_of",
    "sort_column",
]

#: Exit statuses; that of an interrupt is the shells' own (128 + SIGINT).
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """Arguments that cannot be followed; one sentence says what was expected and what was given."""


# Which tensors ------------------------------------------------------------------------------------


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that select tensors and the device on which they are counted."""
    group = parser.add_argument_group("which tensors")
    group.add_argument(
        "--include", action="append", metavar="GLOB", help="only names that match (repeatable)"
    )
    group.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB", help="no names that match"
    )
    # The default is `MIN_SIZE`, whose module imports torch: a parser must answer at once.
    group.add_argument(
        "--min-size", type=int, metavar="N", help="no tensors of fewer elements (default 64)"
    )
    parser.add_argument(
        "--max-expanded",
        type=int,
        metavar="MIB",
        help="memory that one tensor may take although the file stores far less of it (default "
        "256)",
    )
    parser.add_argument(
        "--device", default="cpu", help="where values are counted: cpu (default), cuda, cuda:1, …"
    )


def selection_of(options: argparse.Namespace) -> "Selection":
    """Make the selection that the options state.

    Raises:
        UsageError: if they are wrong.
    """
    from jaynes_callbacks.probes.selection import MIN_SIZE, Selection
    from jaynes_callbacks.records.stream import WEIGHT

    min_size = MIN_SIZE if options.min_size is None else options.min_size
    try:
        return Selection.of(WEIGHT, options.include or "*", options.exclude, min_size)
    except ValueError as error:
        raise UsageError(str(error).replace("min_size", "--min-size")) from error


def limits_of(options: argparse.Namespace) -> "Limits":
    """Make the bounds on what is expanded in memory.

    Raises:
        UsageError: if they are wrong.
    """
    from jaynes_callbacks.files import Limits

    if options.max_expanded is None:
        return Limits()
    if options.max_expanded < 1:
        raise UsageError(f"--max-expanded must be at least 1 (MiB), got {options.max_expanded}")
    return Limits(options.max_expanded << 20)


def check_device(name: str) -> None:
    """Refuse a device that cannot be used.

    Raises:
        UsageError: naming it.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}); try cpu") from error


# Where results go ---------------------------------------------------------------------------------


def report_file(options: argparse.Namespace) -> Path | None:
    """Return the report's file; None if none is asked for.

    Raises:
        UsageError: if it cannot be written.
        MissingExtraError: if the extra ``report`` is not installed, rather now than after an hour.
    """
    if options.report is None:
        return None
    found = output_file("--report", options.report)
    # The name is what loads the packages of the extra.
    _ = import_module("jaynes_callbacks.report").write_report
    return found


def output_file(option: str, path: str) -> Path:
    """Check that a file can be written at the path.

    Raises:
        UsageError: if it cannot.
    """
    output = Path(path)
    if not _can_be_file(output) or not output.absolute().parent.is_dir():
        raise UsageError(f"{option} must be a file in a folder that exists, got {path}")
    return output


def _can_be_file(output: Path) -> bool:
    """Tell whether a path is free or a regular file: it would take the place of a device, too."""
    return output.is_file() or not output.exists()


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add ``--format`` and ``--output``."""
    group = parser.add_argument_group("rows, with the columns of a training run's dataset")
    group.add_argument(
        "--format",
        metavar="FORMAT",
        help="print rows instead of tables: csv, json or parquet; with --output by default the end "
        "of its name",
    )
    group.add_argument("--output", type=Path, metavar="FILE", help="write rows to a file")


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add ``--sort`` and ``--all``."""
    group = parser.add_argument_group("tables")
    group.add_argument(
        "--sort",
        metavar="COLUMN",
        help="sort rows by a column, such as gap, n, paper_r2 or name: greatest first",
    )
    group.add_argument(
        "--all",
        action="store_true",
        help="print all rows on a terminal, too; what is piped is never shortened",
    )


def sort_column(options: argparse.Namespace) -> str | None:
    """Return the column by which rows are sorted; None for the file's order.

    Raises:
        UsageError: if there is no such column.
    """
    column: str | None = options.sort
    if column is None:
        return None
    from jaynes_callbacks.instruments.record import SCHEMA

    plain = [each.name for each in SCHEMA.columns if not each.type.is_array]
    if column not in plain:
        close = ", ".join(difflib.get_close_matches(column, plain, n=5, cutoff=0.3) or plain[:5])
        raise UsageError(f"--sort must be a column, got {column}; there are {close}, …")
    return column


def row_format(options: argparse.Namespace) -> str | None:
    """Return the format of the rows that are asked for; None if none are.

    Raises:
        UsageError: if they cannot be written.
    """
    form: str | None = options.format
    output: Path | None = options.output
    if form is None and output is None:
        return None
    from jaynes_callbacks.records.exports import FORMATS

    if form is not None and form not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, got {form}")
    if output is None:
        if form == "parquet":
            raise UsageError("--format parquet needs a file: add --output rows.parquet")
        return form
    form = form or output.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        ends = ", ".join(f".{each}" for each in FORMATS)
        raise UsageError(f"--output {output} ends in none of {ends}; say which with --format")
    if not _can_be_file(output):
        raise UsageError(f"--output {output} is a directory, pipe or device; expected a file")
    if not output.parent.is_dir():
        raise UsageError(f"--output {output} lies in no directory that exists; make it first")
    return form


@contextmanager
def row_writer(output: Path | None, form: str | None) -> "Iterator[Callable[[Records], object]]":
    """Open the file for rows, or standard output.

    Args:
        output: the file; None for standard output.
        form: as `row_format` returns it.

    Yields:
        A function that writes records; for no format it does nothing.
    """
    if form is None:
        yield _ignore
        return
    from jaynes_callbacks.instruments.record import SCHEMA
    from jaynes_callbacks.records.exports import open_export, text_export

    where: Any = text_export(rows_output(), form, SCHEMA)
    if output is not None:
        where = open_export(output, form, SCHEMA)
    with where as export:
        yield export.write


def _ignore(records: "Records") -> None:
    """Write nothing."""
