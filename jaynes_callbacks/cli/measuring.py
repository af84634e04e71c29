"""Open and measure checkpoints for a command: with a progress bar, and with failures reported.

A bar goes to standard error, and only if that is a terminal and rich (extra ``cli``) is installed.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaynes_callbacks.cli.options import UsageError
from jaynes_callbacks.cli.output import print_error
from jaynes_callbacks.records.printable import printable

if TYPE_CHECKING:
    from jaynes_callbacks.files import Limits
    from jaynes_callbacks.files.hub import HubPlace
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.instruments.record import Records
    from jaynes_callbacks.probes.selection import Selection

__all__ = [
    "byte_bar",
    "iterate_with_bar",
    "list_checkpoints",
    "measure_survey",
    "open_survey",
]

_Item = TypeVar("_Item")


def list_checkpoints(argument: str, limits: "Limits") -> "list[Path | HubPlace]":
    """List the checkpoints at a path; print an error and return none where it holds none.

    Raises:
        UsageError: if there is no such path.
    """
    from jaynes_callbacks.files import CheckpointError, find_checkpoints

    if argument == "-":
        raise UsageError(
            "'-' is not supported: a checkpoint is read in any order, so it must be a file; save "
            "it to one"
        )
    try:
        return find_checkpoints(argument, limits)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except CheckpointError as error:
        print_error(error)
        return []


def open_survey(
    path: "Path | HubPlace",
    selection: "Selection",
    limits: "Limits",
    bins: int | None = None,
    *,
    scales: bool = True,
) -> "Survey | None":
    """Open a checkpoint; print an error and return None where it cannot be read.

    Args:
        path: of the checkpoint.
        selection: of its tensors.
        limits: of what a file may expand to.
        bins: number of equal bins of the paper's protocol; None for the usual one.
        scales: whether to measure the core of each weight.

    Raises:
        UsageError: for a pattern that matches nothing, or too few or too many bins.
    """
    from jaynes_callbacks.files import CheckpointError, open_checkpoint
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.instruments.tally import PAPER_BINS, checked_bins

    try:
        paper_bins = checked_bins(PAPER_BINS if bins is None else bins, "--bins")
        return Survey(open_checkpoint(path, limits), selection, paper_bins, scales=scales)
    except CheckpointError as error:
        print_error(error)
        return None
    except ValueError as error:
        raise UsageError(str(error)) from error


def measure_survey(
    survey: "Survey",
    device: str,
    threads: int,
    on_group: "Callable[[Records], object]",
    *,
    keep_traces: bool = False,
) -> "Records":
    """Measure a checkpoint under a bar, and print an error for each part that cannot be read.

    Args:
        survey: the opened checkpoint.
        device: where values are counted.
        threads: number of threads that count.
        on_group: called with each group of records as soon as it is measured.
        keep_traces: whether the survey keeps what a comparison needs.

    Returns:
        All records, without their counts, so that memory does not grow with the network.
    """
    from jaynes_callbacks.instruments.record import Records

    records = Records()
    with closing(survey), byte_bar(survey.checkpoint.path.name, survey.nbytes) as progress:
        for group in survey.records(
            device=device, threads=threads, progress=progress, keep_traces=keep_traces
        ):
            on_group(group)
            records += group.without_counts()
    if not records:
        print_error(survey.reason_for_no_records())
        return records
    for problem in survey.problems:
        print_error(problem.reason)
    return records


# Progress bars ------------------------------------------------------------------------------------


def iterate_with_bar(title: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Iterate over items under a bar of how many are done; a single item has no bar."""
    console = _console() if len(items) > 1 else None
    if console is None:
        yield from items
        return
    from rich.progress import track

    yield from track(items, title, console=console, transient=True)


@contextmanager
def byte_bar(title: str, total: int) -> Iterator[Callable[[float], None]]:
    """Show a bar of bytes and their rate while the block runs.

    Yields:
        A function that advances the bar by a number of bytes.
    """
    console = _console()
    if console is None:
        yield _ignore
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(title), total=total)
        yield lambda done: bar.advance(task, done)


def _console() -> Any:
    """Return rich's console on standard error; None where a bar is not to be shown."""
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=True, no_color="NO_COLOR" in os.environ)


def _ignore(done: float) -> None:
    """Show no bar."""
