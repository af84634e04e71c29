"""Files that are whole or not there, whenever a run is killed and whoever reads meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["put"]


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a hidden name, then give it its own.

    Args:
        path: of the file, in a folder that exists.
        write: is given the hidden name.

    Raises:
        OSError: if it cannot be written.  Whatever `write` raises, nothing is left of the file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)  # noqa: PTH105
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
