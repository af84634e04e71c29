"""Open regular files only: a pipe or a device at a path may never answer, or never end."""

import stat
from pathlib import Path

__all__ = ["MOST_TEXT", "read_text", "require_regular"]

#: Most bytes of a text file that describes something: an index, settings, parameters.
MOST_TEXT = 1 << 24


def require_regular(path: Path) -> int:
    """Return a file's size in bytes.

    Raises:
        OSError: if the path is a directory, pipe, socket or device, or there is nothing.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    return status.st_size


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Read a small text file in UTF-8.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: if it is no regular file, or is larger.
        UnicodeDecodeError: if it is no UTF-8.
    """
    size = require_regular(path)
    if size > most:
        raise OSError(f"it has {size:,} bytes, expected at most {most:,}")
    with path.open("rb") as file:
        # Of a file that grows meanwhile no more than this is read.
        return file.read(most).decode("utf-8")
