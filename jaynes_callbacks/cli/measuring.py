"""What the commands on checkpoints have in common: open, measure with a bar, say what failed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.progress import byte_progress
from jaynes_callbacks.cli.status import UsageError

if TYPE_CHECKING:
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.instruments.record import Records
    from jaynes_callbacks.watch.selection import Selection

__all__ = ["find", "measured", "opened", "say"]


def say(reason: object) -> None:
    """One sentence on standard error."""
    sys.stderr.write(f"jaynes: {reason}\n")


def find(argument: str) -> list[Path]:
    """The checkpoints at a path; none, which is said, where it holds none.

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
        return find_checkpoints(argument)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except CheckpointError as error:
        say(error)
        return []


def opened(path: Path, selection: "Selection") -> "Survey | None":
    """The survey of a checkpoint; nothing, which is said, where it cannot be read.

    Raises:
        UsageError: for a pattern that matches nothing.
    """
    from jaynes_callbacks.files import CheckpointError, open_checkpoint
    from jaynes_callbacks.files.survey import Survey

    try:
        return Survey(open_checkpoint(path), selection)
    except CheckpointError as error:
        say(error)
        return None
    except ValueError as error:
        raise UsageError(str(error)) from error


def measured(
    survey: "Survey", device: str, threads: int, each: "Callable[[Records], object]"
) -> "Records":
    """Measure with a bar; the records without their counts, which only `each` is given.

    What could not be measured is said.
    """
    from jaynes_callbacks.files.measuring import reason_for_nothing
    from jaynes_callbacks.instruments.record import Records

    records = Records()
    with byte_progress(survey.checkpoint.path.name, survey.nbytes) as progress:
        for group in survey.records(device=device, threads=threads, progress=progress):
            each(group)
            records += group.without_counts()
    if not records:
        say(reason_for_nothing(survey))
    else:
        for problem in survey.problems:
            say(problem.reason)
    return records
