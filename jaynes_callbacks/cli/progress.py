"""A bar with bytes and rate on the terminal; nothing where nobody would see it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["byte_progress"]


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
