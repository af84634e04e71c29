"""``jaynes fit --dry-run``: what would be measured, and the bytes that would be read."""

from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.measuring import open_survey
from jaynes_callbacks.cli.output import print_error, print_text
from jaynes_callbacks.cli.tables import Layout, table
from jaynes_callbacks.records.printable import printable
from jaynes_callbacks.records.text import counted

if TYPE_CHECKING:
    from jaynes_callbacks.files import Limits
    from jaynes_callbacks.files.hub import HubPlace
    from jaynes_callbacks.files.survey import Survey
    from jaynes_callbacks.probes.selection import Selection

__all__ = ["bytes_text", "print_plan"]

_HEADINGS = ("weight", "shape", "type", "bytes")


def print_plan(
    path: "Path | HubPlace", selection: "Selection", limits: "Limits", layout: Layout
) -> bool:
    """Print what would be measured of a checkpoint; return whether it can be opened."""
    from jaynes_callbacks.files import CheckpointError

    try:
        if not isinstance(path, Path) and (files := _downloads(path)):
            rows = [(name, "", "whole file", bytes_text(size)) for name, size in files.items()]
            total = f"{counted(len(rows), 'file')} to download: {bytes_text(sum(files.values()))}"
            _print(str(path), rows, [total], layout)
            return True
    except CheckpointError as error:
        print_error(error)
        return False
    survey = open_survey(path, selection, limits)
    if survey is None:
        return False
    _print_survey(survey, layout)
    survey.close()
    return True


def bytes_text(number: int) -> str:
    """Write a number of bytes.

    >>> bytes_text(999), bytes_text(1_500_000)
    ('999 bytes', '1.5 MB')
    """
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{number} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _downloads(place: "HubPlace") -> dict[str, int]:
    """Return the files that would be downloaded whole.

    Raises:
        CheckpointError: if the hub cannot be asked, or its extra is not installed.
    """
    from jaynes_callbacks.files.opening import hub_opening

    found: dict[str, int] = hub_opening().download_of(place)
    return found


def _print_survey(survey: "Survey", layout: Layout) -> None:
    rows = [
        (entry.name, "×".join(map(str, entry.shape)), entry.dtype, bytes_text(entry.nbytes))
        for entry in survey.chosen
    ]
    chosen = counted(len(rows), "weight")
    lines = [f"{chosen}, {bytes_text(survey.nbytes)} to read", *survey.remarks()]
    _print(str(survey.checkpoint.path), rows, lines, layout)
    for problem in survey.problems:
        print_error(problem.reason)


def _print(
    heading: str, rows: list[tuple[str, str, str, str]], lines: list[str], layout: Layout
) -> None:
    shown = "\n".join(table(_HEADINGS, rows, (0, 1, 2), layout))
    ends = "\n".join(layout.cut(printable(line)) for line in lines)
    print_text(f"{printable(heading)}\n\n{shown}\n\n{ends}\n\n")
