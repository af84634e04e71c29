"""``jaynes compare``: compare two checkpoints of one network, weight by weight."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import (
    list_checkpoints,
    measure_survey,
    open_survey,
)
from jaynes_callbacks.cli.options import (
    DONE,
    FAILED,
    UsageError,
    add_rows,
    add_selection,
    add_table,
    check_device,
    limits_of,
    row_format,
    row_writer,
    selection_of,
    sort_column,
)
from jaynes_callbacks.cli.output import print_error, print_text

if TYPE_CHECKING:
    from jaynes_callbacks.api import Measured
    from jaynes_callbacks.files import Limits
    from jaynes_callbacks.files.hub import HubPlace
    from jaynes_callbacks.files.survey import Survey

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
    add_table(parser)
    add_rows(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure both checkpoints, compare them, and print or write the comparison.

    Raises:
        UsageError: for options that cannot be followed.
    """
    from jaynes_callbacks.api import compare_measured
    from jaynes_callbacks.cli.tables import comparison_table, layout_here
    from jaynes_callbacks.counts.threads import one_thread
    from jaynes_callbacks.instruments.record import Records

    form = row_format(options)
    selection, limits = selection_of(options), limits_of(options)
    sort = sort_column(options)
    check_device(options.device)
    paths = [_only_checkpoint(argument, limits) for argument in (options.before, options.after)]
    before, after = (
        None if path is None else open_survey(path, selection, limits) for path in paths
    )
    if before is None or after is None:
        return FAILED
    with one_thread() as threads:
        measured = [_measure(survey, options.device, threads) for survey in (before, after)]
    if not all(each.records for each in measured):
        return FAILED
    comparison = compare_measured(*measured)
    if not comparison.pairs:
        print_error(
            f"{before.checkpoint.path} and {after.checkpoint.path} have no weight in common: none "
            "has an equal shape and an equal end of its name"
        )
        return FAILED
    with row_writer(options.output, form) as write:
        write(Records(record for pair in comparison.pairs for record in pair))
    if form is None or options.output is not None:
        heading = f"{before.checkpoint.path} → {after.checkpoint.path}"
        table = comparison_table(comparison, layout_here(whole=options.all), sort)
        print_text(f"{heading}\n\n{table}\n")
    return FAILED if before.problems or after.problems else DONE


def _only_checkpoint(argument: str, limits: "Limits") -> "Path | HubPlace | None":
    """Return the one checkpoint at a path; None, after an error is printed, where there is none.

    Raises:
        UsageError: if there are several.
    """
    found = list_checkpoints(argument, limits)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UsageError(f"{argument} holds {len(found)} checkpoints ({names}); name one of them")
    return found[0] if found else None


def _measure(survey: "Survey", device: str, threads: int) -> "Measured":
    """Measure a checkpoint and keep its records with their counts."""
    from jaynes_callbacks.api import Measured
    from jaynes_callbacks.instruments.record import Record, Records

    records: list[Record] = []
    measure_survey(survey, device, threads, records.extend, keep_traces=True)
    return Measured(survey, Records(records))
