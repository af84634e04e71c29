"""``jaynes fit --revisions`` and ``--as-run``: a model's checkpoints as one run."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import byte_bar
from jaynes_callbacks.cli.options import (
    DONE,
    FAILED,
    UsageError,
    limits_of,
    report_file,
    selection_of,
)
from jaynes_callbacks.cli.output import print_error, print_text
from jaynes_callbacks.records.printable import printable

if TYPE_CHECKING:
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.instruments.record import Records
    from jaynes_callbacks.revisions import Moment
    from jaynes_callbacks.revisions.measuring import Options
    from jaynes_callbacks.revisions.moments import Listing

__all__ = ["add_history", "check_history", "is_history", "run_history"]

#: Where datasets of histories are by default.
_HISTORIES = "jaynes-histories"
_OF_HISTORIES = ("every", "log_spaced", "first", "last", "into", "tensorboard")


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a run of many checkpoints."""
    group = parser.add_argument_group("a training history, as one run")
    group.add_argument(
        "--revisions",
        metavar="GLOB",
        help="measure the revisions of hf://org/name whose names match, such as 'step*'; of "
        "hf://org/name-{} the repositories named, such as 0k,20k",
    )
    group.add_argument(
        "--as-run", action="store_true", help="measure all checkpoints in a local folder"
    )
    group.add_argument(
        "--log-spaced", type=int, metavar="N", help="only N of them, at about equal ratios of steps"
    )
    group.add_argument("--every", type=int, metavar="N", help="only steps that are a multiple of N")
    group.add_argument("--from", dest="first", type=int, metavar="STEP", help="none before STEP")
    group.add_argument("--to", dest="last", type=int, metavar="STEP", help="none after STEP")
    group.add_argument(
        "--into", type=Path, metavar="DIR", help=f"the run's folder (default {_HISTORIES}/…)"
    )
    group.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write its curves for TensorBoard, too"
    )


def is_history(options: argparse.Namespace) -> bool:
    """Tell whether a run is asked for."""
    return options.revisions is not None or bool(options.as_run)


def check_history(options: argparse.Namespace) -> None:
    """Refuse options that do not belong together.

    Raises:
        UsageError: naming them.
    """
    from jaynes_callbacks.files.hub import is_hub_address

    given = [name for name in _OF_HISTORIES if getattr(options, name) is not None]
    if not is_history(options):
        if given:
            shown = {"first": "from", "last": "to"}.get(given[0], given[0]).replace("_", "-")
            raise UsageError(f"--{shown} needs --revisions GLOB or --as-run")
        return
    if len(options.paths) > 1:
        raise UsageError(f"one history at a time, got {len(options.paths)} places")
    (source,) = options.paths
    if is_hub_address(source) and options.as_run:
        raise UsageError("--as-run is for a local folder; on the hub name --revisions 'step*'")
    if not is_hub_address(source) and not options.as_run:
        raise UsageError(
            f"--revisions is for the hub (hf://org/name), got {source}; for a local folder of "
            "checkpoints use --as-run"
        )
    for name in ("output", "format"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name} is for single checkpoints; the rows of a history are a dataset below "
                "--into DIR, which pandas.read_parquet reads"
            )


def run_history(options: argparse.Namespace) -> int:
    """Measure the checkpoints of a history that are left, and show what came of it.

    Raises:
        UsageError: for options that cannot be followed.
        MissingExtraError: if a report is asked for and the extra ``report`` is not installed.
    """
    from jaynes_callbacks.counts.threads import one_thread
    from jaynes_callbacks.files import CheckpointError

    report = report_file(options)
    try:
        listing = _listing(options)
        if options.dry_run:
            _print_plan(listing, options)
            return DONE
        with one_thread() as threads:
            dataset, complete = _measure(options, listing, _how(options, threads))
    except (CheckpointError, FileNotFoundError) as error:
        print_error(error)
        return FAILED
    except ValueError as error:
        raise UsageError(str(error)) from error
    _print_left_out(listing)
    if dataset is not None:
        _show(dataset, report, options.tensorboard)
    return DONE if complete else FAILED


def _how(options: argparse.Namespace, threads: int) -> "Options":
    """Return how each checkpoint is measured."""
    from jaynes_callbacks.instruments.tally import PAPER_BINS, checked_bins
    from jaynes_callbacks.revisions.measuring import Options

    bins = checked_bins(PAPER_BINS if options.bins is None else options.bins, "--bins")
    return Options(
        selection_of(options),
        bins,
        scales=not options.no_scales,
        limits=limits_of(options),
        device=options.device,
        threads=threads,
    )


def _measure(
    options: argparse.Namespace, listing: "Listing", how: "Options"
) -> tuple[Path | None, bool]:
    """Measure what is left; return the dataset, if it has any row, and whether all could be."""
    from jaynes_callbacks.revisions.measuring import History, measure_history

    (source,) = options.paths
    history = History(options.into or _folder_of(source), _absolute(source), how)
    failures: list[Moment] = []

    def fail(moment: "Moment", reason: str) -> None:
        failures.append(moment)
        print_error(f"step {moment.step}: {reason}")

    if known := [each for each in listing.moments if each.step in history.done]:
        print_text(f"{len(known)} of {len(listing.moments)} are measured already\n")
    for moment, records in measure_history(history, listing.moments, how, _bar, fail):
        print_text(_line(moment, records))
    return history.directory if history.done else None, not failures


def _listing(options: argparse.Namespace) -> "Listing":
    from jaynes_callbacks.revisions import Thinning, moments_in, moments_on_hub

    thinning = Thinning(options.first, options.last, options.every, options.log_spaced)
    (source,) = options.paths
    if options.as_run:
        return moments_in(Path(source), options.revisions, thinning, limits_of(options))
    return moments_on_hub(source, options.revisions, thinning)


def _folder_of(source: str) -> Path:
    """Return where the run of a history is by default."""
    from jaynes_callbacks.files.hub.place import SCHEME, is_hub_address

    if is_hub_address(source):
        return Path(_HISTORIES, source.removeprefix(SCHEME).replace("/", "--"))
    return Path(_HISTORIES, "-".join(Path(source).resolve().parts[-2:]))


def _absolute(source: str) -> str:
    """Return what names a history wherever the command is given."""
    from jaynes_callbacks.files.hub import is_hub_address

    return source if is_hub_address(source) else str(Path(source).resolve())


def _bar(survey: "Survey") -> AbstractContextManager[Callable[[float], None]]:
    return byte_bar(survey.checkpoint.path.name, survey.nbytes)


def _line(moment: "Moment", records: "Records") -> str:
    from jaynes_callbacks.instruments.record import SCHEMA
    from jaynes_callbacks.records.text import counted

    numbers = SCHEMA.aggregate(records)
    gap = next((value for tag, value in numbers.items() if tag.endswith("gap_median")), None)
    told = "" if gap is None else f", median gap {gap:.3f}"
    weights = counted(len(records), "weight")
    return f"step {moment.step:>9,}  {printable(moment.name)}: {weights}{told}\n"


def _print_plan(listing: "Listing", options: argparse.Namespace) -> None:
    """List the checkpoints, and what the first one would cost."""
    from jaynes_callbacks.cli.plan import print_plan
    from jaynes_callbacks.cli.tables import layout_here
    from jaynes_callbacks.records.text import counted

    for moment in listing.moments:
        print_text(f"step {moment.step:>9,}  {printable(str(moment.place))}\n")
    print_text(f"{counted(len(listing.moments), 'checkpoint')}; of each, as of the first:\n\n")
    first = listing.moments[0].place
    print_plan(first, selection_of(options), limits_of(options), layout_here(whole=options.all))
    _print_left_out(listing)


def _print_left_out(listing: "Listing") -> None:
    for sentence in listing.left_out:
        print_text(f"{printable(sentence)}\n")


def _show(dataset: Path, report: Path | None, tensorboard: Path | None) -> None:
    """Say where the dataset is, and write what else was asked for."""
    print_text(f"dataset: {dataset}\n")
    if tensorboard is not None:
        from jaynes_callbacks._extras import require_extra

        with require_extra("tensorboard", "writing curves for TensorBoard"):
            from jaynes_callbacks.revisions.curves import write_curves
        write_curves(dataset, tensorboard)
        print_text(f"curves: tensorboard --logdir {tensorboard}\n")
    if report is None:
        print_text(f"report: jaynes report {dataset.parent}\n")
        return
    from jaynes_callbacks.report import read_run, write_report

    print_text(f"report: {write_report([read_run(dataset)], report)}\n")
