"""``jaynes report``: show the datasets of one or many runs in one HTML file."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import iterate_with_bar
from jaynes_callbacks.cli.options import DONE, FAILED, UsageError, output_file
from jaynes_callbacks.cli.output import print_error, print_text

if TYPE_CHECKING:
    from jaynes_callbacks.report import Run

__all__ = ["add_parser", "run"]

_DEFAULT = "jaynes-report.html"
#: Seconds between two looks of ``--watch``.
_EVERY = 10


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "report",
        help="show runs in one HTML file",
        description="Show one run, or compare several, in one HTML file that needs no network.",
        epilog="example: jaynes report lightning_logs/version_0 --output report.html",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="RUN",
        help="datasets (jaynes/), folders of runs, or folders of these",
    )
    parser.add_argument(
        "--output", default=_DEFAULT, metavar="FILE", help="the HTML file (default %(default)s)"
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=int,
        const=_EVERY,
        metavar="SECONDS",
        help="write it anew whenever a run has a new record, looking every SECONDS "
        "(default %(const)s), until interrupted",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the report, once or whenever a run has a new record.

    Raises:
        UsageError: for options that cannot be followed.
        MissingExtraError: if the packages of the extra ``report`` are not installed.
    """
    if options.watch is not None and options.watch < 1:
        raise UsageError(f"--watch must be at least 1 second, got {options.watch}")
    output = output_file("--output", options.output)
    if options.watch is None:
        for path in options.paths:
            if not Path(path).exists():
                raise UsageError(
                    f"there is no {path}; expected a dataset (jaynes/) or a folder with datasets "
                    "below it"
                )
    else:
        _watch(options.paths, output, options.watch)
        return DONE
    return DONE if _write(options.paths, output) else FAILED


def _write(paths: Sequence[str], output: Path, *, refresh: int = 0) -> bool:
    """Write a report of the runs that can be read; return whether all of them could be."""
    from jaynes_callbacks.records.text import counted
    from jaynes_callbacks.report import write_report

    runs, complete = _read(paths)
    if runs:
        write_report(runs, output, refresh=refresh)
        print_text(f"{output}: {counted(len(runs), 'run')}\n")
    return complete


def _read(paths: Sequence[str]) -> "tuple[list[Run], bool]":
    """Return the runs that can be read, and whether all could be; print an error for the others."""
    from jaynes_callbacks.report import find_datasets, read_run

    runs, complete = [], True
    try:
        datasets = find_datasets(paths)
    except FileNotFoundError as error:
        print_error(error)
        return [], False
    for dataset in iterate_with_bar("reading", datasets):
        try:
            runs.append(read_run(dataset))
        except (OSError, ValueError) as error:
            print_error(error)
            complete = False
    return runs, complete


def _watch(paths: Sequence[str], output: Path, seconds: int) -> None:
    """Write the report whenever a run has a new record, until interrupted; wait for a first one."""
    from jaynes_callbacks.report import find_datasets, newest_part

    seen: list[tuple[Path, tuple[int, ...]]] | None = None
    while True:
        try:
            now = [(dataset, newest_part(dataset)) for dataset in find_datasets(paths)]
        except (FileNotFoundError, IndexError):
            now = []
        if now and now != seen:
            _write(paths, output, refresh=seconds)
        elif now != seen:
            print_error(f"waiting for the first record below {', '.join(paths)}")
        seen = now
        time.sleep(seconds)
