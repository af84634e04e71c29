"""Options that commands on checkpoints share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaynes_callbacks.cli.status import UsageError

if TYPE_CHECKING:
    from jaynes_callbacks.watch.selection import Selection

__all__ = ["add_selection", "check_device", "output_file", "selection_of"]

_MIN_SIZE = 64


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which tensors, and where they are counted."""
    group = parser.add_argument_group("which tensors")
    group.add_argument(
        "--include", action="append", metavar="GLOB", help="only names that match (repeatable)"
    )
    group.add_argument(
        "--exclude", action="append", default=[], metavar="GLOB", help="no names that match"
    )
    group.add_argument(
        "--min-size",
        type=int,
        default=_MIN_SIZE,
        metavar="N",
        help="no tensors of fewer elements (default %(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", help="where values are counted: cpu (default), cuda, cuda:1, …"
    )


def selection_of(options: argparse.Namespace) -> "Selection":
    """The selection that the options state.

    Raises:
        UsageError: if they are wrong.
    """
    from jaynes_callbacks.watch.selection import Selection

    try:
        return Selection.of("weight", options.include or "*", options.exclude, options.min_size)
    except ValueError as error:
        raise UsageError(str(error).replace("min_size", "--min-size")) from error


def check_device(name: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UsageError: naming it.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}); try cpu") from error


def output_file(option: str, path: str) -> Path:
    """Where a file can be written.

    Raises:
        UsageError: if it cannot.
    """
    output = Path(path)
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise UsageError(f"{option} must be a file in a folder that exists, got {path}")
    return output
