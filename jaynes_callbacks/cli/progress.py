"""A bar with bytes and rate on the terminal; nothing where nobody would see it."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["byte_progress", "each_with_progress"]

Item = TypeVar("Item")


@contextmanager
def byte_progress(title: str, total: int) -> Iterator[Callable[[float], None]]:
    """Show how many of the bytes are done while the block runs.

    It goes to standard error, and only if that is a terminal and rich (extra ``cli``) is installed.

    Args:
        title: what is worked on.
        total: how many bytes there are.

    Yields:
        What is told how many bytes were done, again and again.
    """
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        yield _ignore
        return
    if not sys.stderr.isatty():
        yield _ignore
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True, no_color="NO_COLOR" in os.environ)
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def _ignore(done: float) -> None:
    """For terminals that show no bar."""


def each_with_progress(title: str, items: Sequence[Item]) -> Iterator[Item]:
    """The items one after the other, with a bar of how many are done.

    Args:
        title: what is done with them.
        items: of one alone nothing is shown.
    """
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        yield from items
        return
    console = Console(stderr=True, no_color="NO_COLOR" in os.environ)
    yield from track(items, title, console=console, transient=True)
