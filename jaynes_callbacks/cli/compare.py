"""``jaynes compare``: two checkpoints of one network, weight by weight."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import find, measured, opened, say
from jaynes_callbacks.cli.options import add_selection, check_device, selection_of
from jaynes_callbacks.cli.rows import add_rows, row_format, row_writer
from jaynes_callbacks.cli.status import DONE, FAILED, UsageError

if TYPE_CHECKING:
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.instruments.record import Record

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "compare",
        help="compare two checkpoints, weight by weight",
        description="Say what became of each weight: gap, best family and distance moved. Names "
        "may differ in their prefix.",
        epilog="example: jaynes compare epoch=1.ckpt epoch=100.ckpt",
    )
    parser.add_argument("before", metavar="A", help="the earlier checkpoint")
    parser.add_argument("after", metavar="B", help="the later one")
    add_selection(parser)
    add_rows(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure both checkpoints and compare them.

    Raises:
        UsageError: for options that cannot be followed.
    """
    from jaynes_callbacks.counts.threads import one_thread

    form = row_format(options)
    selection = selection_of(options)
    check_device(options.device)
    paths = [_only(argument) for argument in (options.before, options.after)]
    surveys = [opened(path, selection) for path in paths if path is not None]
    before, after = (*surveys, None, None)[:2]
    if before is None or after is None:
        return FAILED
    with one_thread() as threads:
        rows = _rows(before, options.device, threads), _rows(after, options.device, threads)
    if not all(rows):
        return FAILED
    compared = _show(options.output, form, (before, after), rows)
    return DONE if compared and not before.problems and not after.problems else FAILED


def _only(argument: str) -> Path | None:
    """The one checkpoint at a path."""
    found = find(argument)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UsageError(f"{argument} holds {len(found)} checkpoints ({names}); name one of them")
    return found[0] if found else None


def _rows(survey: "Survey", device: str, threads: int) -> "list[Record]":
    rows: list[Record] = []
    measured(survey, device, threads, rows.extend)
    return rows


def _show(
    output: Path | None,
    form: str,
    surveys: "tuple[Survey, Survey]",
    rows: "tuple[list[Record], list[Record]]",
) -> bool:
    """Print or write the comparison; whether there was anything to compare."""
    from jaynes_callbacks.cli.compare_table import comparison_table
    from jaynes_callbacks.files.comparison import compare
    from jaynes_callbacks.instruments.record import Records

    before, after = surveys
    compared = compare(*rows, (before.chosen, after.chosen))
    if not compared.pairs:
        say(
            f"{before.checkpoint.path} and {after.checkpoint.path} have no weight in common: none "
            "has an equal shape and an equal end of its name"
        )
        return False
    with row_writer(output, form) as write:
        write(Records(record for pair in compared.pairs for record in pair))
    if not form or output is not None:
        heading = f"{before.checkpoint.path} → {after.checkpoint.path}"
        sys.stdout.write(f"{heading}\n\n{comparison_table(compared)}\n")
    return True
