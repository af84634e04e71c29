"""``jaynes report``: the datasets of one or many runs as one HTML file."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.options import output_file
from jaynes_callbacks.cli.status import DONE, FAILED, UsageError

if TYPE_CHECKING:
    from jaynes_callbacks.report import Run

__all__ = ["add_parser", "run"]

_DEFAULT = "jaynes-report.html"
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
    """Write the report, once or again and again.

    Raises:
        UsageError: for options that cannot be followed.
    """
    if options.watch is not None and options.watch < 1:
        raise UsageError(f"--watch must be at least 1 second, got {options.watch}")
    output = output_file("--output", options.output)
    if options.watch is not None:
        _watch(options.paths, output, options.watch)
        return DONE
    return DONE if _write(options.paths, output) else FAILED


def _write(paths: Sequence[str], output: Path, *, refresh: int = 0) -> bool:
    """Whether all runs could be read; those that could are in the report."""
    from jaynes_callbacks.report import write_report

    runs, complete = _read(paths)
    if runs:
        write_report(runs, output, refresh=refresh)
        sys.stdout.write(f"{output}: {len(runs)} run{'s' * (len(runs) > 1)}\n")
    return complete


def _read(paths: Sequence[str]) -> "tuple[list[Run], bool]":
    from jaynes_callbacks.cli.progress import each_with_progress
    from jaynes_callbacks.report import find_datasets, read_run

    runs, complete = [], True
    try:
        datasets = find_datasets(paths)
    except FileNotFoundError as error:
        sys.stderr.write(f"jaynes: {error}\n")
        return [], False
    for dataset in each_with_progress("reading", datasets):
        try:
            runs.append(read_run(dataset))
        except (OSError, ValueError) as error:
            sys.stderr.write(f"jaynes: {error}\n")
            complete = False
    return runs, complete


def _watch(paths: Sequence[str], output: Path, seconds: int) -> None:
    """Until interrupted; a run that has no record yet is waited for."""
    from jaynes_callbacks.report import find_datasets, newest_part

    seen: list[tuple[Path, tuple[int, int]]] | None = None
    while True:
        try:
            now = [(dataset, newest_part(dataset)) for dataset in find_datasets(paths)]
        except (FileNotFoundError, IndexError):
            now = []
        if now and now != seen:
            _write(paths, output, refresh=seconds)
        elif now != seen:
            sys.stderr.write(f"jaynes: waiting for the first record below {', '.join(paths)}\n")
        seen = now
        time.sleep(seconds)
