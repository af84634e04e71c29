"""``jaynes fit``: measure the weights of checkpoint files."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from jaynes_callbacks.cli.measuring import find, measured, opened
from jaynes_callbacks.cli.options import (
    add_selection,
    check_device,
    output_file,
    selection_of,
)
from jaynes_callbacks.cli.rows import add_rows, row_format, row_writer
from jaynes_callbacks.cli.status import DONE, FAILED

if TYPE_CHECKING:
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.instruments.record import Record, Records
    from jaynes_callbacks.report import Run

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "fit",
        help="measure the weights in checkpoint files",
        description="Measure how the magnitudes of a network's weights are distributed.",
        epilog="example: jaynes fit model.safetensors --exclude '*embed*' --output rows.parquet",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="CHECKPOINT",
        help="safetensors, PyTorch, Lightning, npz, ONNX or GGUF files, or directories of them",
    )
    add_selection(parser)
    add_rows(parser)
    parser.add_argument("--report", metavar="FILE", help="show all of it in one HTML file, too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure every checkpoint; what fails is said, and the others are measured all the same.

    Raises:
        UsageError: for options that cannot be followed.
    """
    from jaynes_callbacks.counts.threads import one_thread

    form = row_format(options)
    selection = selection_of(options)
    check_device(options.device)
    report = output_file("--report", options.report) if options.report is not None else None
    runs: list[Run] = []
    found = [find(argument) for argument in options.paths]
    complete = all(found)
    with row_writer(options.output, form) as write, one_thread() as threads:
        for path in dict.fromkeys(path for paths in found for path in paths):
            survey = opened(path, selection)
            if survey is None:
                complete = False
                continue
            kept = _Kept(write, keep=report is not None)
            records = measured(survey, options.device, threads, kept)
            complete = complete and bool(records) and not survey.problems
            runs += _as_runs(survey, kept.records)
            if records and (not form or options.output is not None):
                _print_tables(survey, records)
    if report is not None and runs:
        # Rows may go where they are read by a program.
        _write_report(runs, report, sys.stderr if form and options.output is None else sys.stdout)
    return DONE if complete else FAILED


class _Kept:
    """Hands rows on, and keeps them with their counts where a report is to be made of them."""

    def __init__(self, write: "Callable[[Records], object]", *, keep: bool) -> None:
        self._write = write
        self._keep = keep
        self.records: list[Record] = []

    def __call__(self, records: "Records") -> None:
        self._write(records)
        if self._keep:
            self.records += records


def _as_runs(survey: "Survey", records: "Sequence[Record]") -> "list[Run]":
    from jaynes_callbacks.instruments.record import Records
    from jaynes_callbacks.report import Run

    skipped = [[entry.name, entry.reason] for entry in survey.skipped]
    name = survey.checkpoint.path.name
    run = Run.measured_once(name, Records(records), {"skipped": skipped})
    return [run] if records else []


def _write_report(runs: "list[Run]", path: Path, told: TextIO) -> None:
    from jaynes_callbacks.report import write_report

    told.write(f"{write_report(runs, path)}: {len(runs)} checkpoint{'s' * (len(runs) > 1)}\n")


def _print_tables(survey: "Survey", records: "Records") -> None:
    from jaynes_callbacks.cli.fit_table import summary_table, weight_table
    from jaynes_callbacks.files.roles import ROLES, role

    roles = [role(record.name, record.shape) for record in records]
    tables = weight_table(records, roles), summary_table(records, roles, ROLES)
    blocks = [str(survey.checkpoint.path), *tables]
    if survey.skipped:
        blocks.append("\n".join(survey.remarks()))
    sys.stdout.write("\n\n".join(blocks) + "\n\n")
