"""Write to the terminal: text from files cannot control it, and any encoding can show it."""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

from jaynes_callbacks.records.printable import printable

__all__ = ["accept_any_text", "discard_output", "print_error", "print_text", "rows_output"]


def print_text(text: str) -> None:
    """Write lines to standard output, with escapes in place of control characters."""
    sys.stdout.write("\n".join(map(printable, text.split("\n"))))


def print_error(reason: object) -> None:
    """Write one sentence to standard error, in one line."""
    # There is nowhere to complain where nothing can be written.
    with suppress(OSError, ValueError):
        sys.stderr.write(f"jaynes: {printable(str(reason))}\n")


def accept_any_text() -> None:
    """Have both streams write escapes in place of characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def rows_output() -> TextIO:
    """Return where rows are written: as they are to a file or pipe, with escapes to a terminal."""
    return cast(TextIO, _Terminal()) if sys.stdout.isatty() else sys.stdout


def discard_output() -> None:
    """Send what standard output still holds nowhere: its reader has ended, or its disk is full.

    Otherwise the interpreter would try once more when it ends, and change the exit status.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _Terminal:
    """Standard output as a file, with escapes in place of control characters."""

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding

    def write(self, text: str) -> int:
        print_text(text)
        return len(text)
