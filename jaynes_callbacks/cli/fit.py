"""``jaynes fit``: measure the weights in checkpoint files."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.history import (
    add_history,
    check_history,
    is_history,
    run_history,
)
from jaynes_callbacks.cli.measuring import list_checkpoints, measure_survey, open_survey
from jaynes_callbacks.cli.options import (
    DONE,
    FAILED,
    add_rows,
    add_selection,
    add_table,
    check_device,
    limits_of,
    report_file,
    row_format,
    row_writer,
    selection_of,
    sort_column,
)
from jaynes_callbacks.cli.output import print_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaynes_callbacks.files.hub import HubPlace
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
        help="safetensors, PyTorch, Lightning, npz, ONNX or GGUF files, directories of them, or "
        "models on the hub: hf://org/name[@revision][/file]",
    )
    add_selection(parser)
    add_table(parser)
    add_rows(parser)
    # The default is `PAPER_BINS`, whose module imports torch: a parser must answer at once.
    parser.add_argument(
        "--bins",
        type=int,
        metavar="N",
        help="equal bins of the paper's protocol, from which R² comes (default 100)",
    )
    parser.add_argument(
        "--no-scales",
        action="store_true",
        help="leave the cores out: the weights without the scales of rows and columns; that about "
        "halves the time",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be measured, and the bytes that would be read; read no values",
    )
    add_history(parser)
    parser.add_argument("--report", metavar="FILE", help="show all of it in one HTML file, too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure every checkpoint; print an error for each that fails, and go on with the others.

    Raises:
        UsageError: for options that cannot be followed.
        MissingExtraError: if a report is asked for and the extra ``report`` is not installed.
    """
    from jaynes_callbacks.counts.threads import one_thread
    from jaynes_callbacks.records.text import counted

    check_history(options)
    form = row_format(options)
    selection, limits = selection_of(options), limits_of(options)
    sort = sort_column(options)
    check_device(options.device)
    if is_history(options):
        return run_history(options)
    report = report_file(options)
    runs: list[Run] = []
    found = [list_checkpoints(argument, limits) for argument in options.paths]
    complete = all(found)
    if options.dry_run:
        return DONE if complete and _print_plans(options, found) else FAILED
    with row_writer(options.output, form) as write, one_thread() as threads:
        for path in dict.fromkeys(path for paths in found for path in paths):
            survey = open_survey(
                path, selection, limits, options.bins, scales=not options.no_scales
            )
            if survey is None:
                complete = False
                continue
            group_writer = _GroupWriter(write, keep=report is not None)
            records = measure_survey(survey, options.device, threads, group_writer)
            complete = complete and bool(records) and not survey.problems
            if group_writer.kept:
                runs.append(_as_run(survey, group_writer.kept))
            if records and (form is None or options.output is not None):
                _print_tables(survey, records, sort, whole=options.all)
    if report is not None and runs:
        from jaynes_callbacks.report import write_report

        # Standard output may hold rows that a program reads.
        stream = sys.stderr if form is not None and options.output is None else sys.stdout
        written = write_report(runs, report)
        stream.write(f"{written}: {counted(len(runs), 'checkpoint')}\n")
    return DONE if complete else FAILED


def _print_plans(options: argparse.Namespace, found: "Sequence[Sequence[Path | HubPlace]]") -> bool:
    """Print what would be measured; return whether every checkpoint can be opened."""
    from jaynes_callbacks.cli.plan import print_plan
    from jaynes_callbacks.cli.tables import layout_here

    selection, limits = selection_of(options), limits_of(options)
    layout = layout_here(whole=options.all)
    plans = [print_plan(path, selection, limits, layout) for paths in found for path in paths]
    return all(plans)


class _GroupWriter:
    """Writes groups of records, and keeps them with their counts if a report needs them.

    Attributes:
        kept: the records, if they are to be kept.
    """

    def __init__(self, write: "Callable[[Records], object]", *, keep: bool) -> None:
        self._write = write
        self._keep = keep
        self.kept: list[Record] = []

    def __call__(self, records: "Records") -> None:
        self._write(records)
        if self._keep:
            self.kept += records


def _as_run(survey: "Survey", records: "list[Record]") -> "Run":
    """Make a run of one moment, as the report shows runs."""
    from jaynes_callbacks.instruments.record import Records
    from jaynes_callbacks.report import Run

    skipped = [[name, reason] for name, reason in survey.skipped]
    path = survey.checkpoint.path
    place = path if isinstance(path, Path) else None
    return Run.measured_once(path.name, Records(records), {"skipped": skipped}, place)


def _print_tables(survey: "Survey", records: "Records", sort: str | None, *, whole: bool) -> None:
    from jaynes_callbacks.cli.tables import layout_here, sorted_by, summary_table, weight_table
    from jaynes_callbacks.records.printable import printable

    layout = layout_here(whole=whole)
    weights = weight_table(sorted_by(records, sort), layout)
    blocks = [printable(str(survey.checkpoint.path)), weights, summary_table(records, layout)]
    if remarks := survey.remarks():
        blocks.append("\n".join(map(printable, remarks)))
    print_text("\n\n".join(blocks) + "\n\n")
