"""Finish what must not be left half done before an interruption (Ctrl-C) is let through."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["delayed_interrupts"]


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Let Ctrl-C (SIGINT) raise after a block instead of within it; a second one raises at once.

    Blocks are short: hooks are put on or taken off, one record is handed to the sinks.  Only the
    main thread gets the signal.  Where the process handles it in a way of its own, or ignores it,
    nothing is changed.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []

    def wait(number: int, frame: FrameType | None) -> Any:
        if waiting:
            return handler(number, frame)
        waiting.append((number, frame))
        return None

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])
