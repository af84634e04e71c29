"""``jaynes fit``: measure the weights of checkpoint files."""

import argparse
import sys
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import find, measured, one_thread_each, opened
from jaynes_callbacks.cli.options import add_selection, check_device, selection_of
from jaynes_callbacks.cli.rows import add_rows, row_format, row_writer
from jaynes_callbacks.cli.status import DONE, FAILED

if TYPE_CHECKING:
    from jaynes_callbacks.record import Records
    from jaynes_callbacks.sources.survey import Survey

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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure every checkpoint; what fails is said, and the others are measured all the same.

    Raises:
        UsageError: for options that cannot be followed.
    """
    form = row_format(options)
    selection = selection_of(options)
    check_device(options.device)
    found = [find(argument) for argument in options.paths]
    complete = all(found)
    with row_writer(options.output, form) as write, one_thread_each() as threads:
        for path in dict.fromkeys(path for paths in found for path in paths):
            survey = opened(path, selection)
            if survey is None:
                complete = False
                continue
            records = measured(survey, options.device, threads, write)
            complete = complete and bool(records) and not survey.problems
            if records and (not form or options.output is not None):
                _print_tables(survey, records)
    return DONE if complete else FAILED


def _print_tables(survey: "Survey", records: "Records") -> None:
    from jaynes_callbacks.fit_table import summary_table, weight_table
    from jaynes_callbacks.sources.roles import ROLES, role

    roles = [role(record.name, record.shape) for record in records]
    tables = weight_table(records, roles), summary_table(records, roles, ROLES)
    blocks = [str(survey.checkpoint.path), *tables]
    if survey.skipped:
        blocks.append("\n".join(survey.remarks()))
    sys.stdout.write("\n\n".join(blocks) + "\n\n")
