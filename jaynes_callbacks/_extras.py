"""Name the extra to install where an optional part of the package is asked for without it."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MissingExtraError", "require_extra"]


class MissingExtraError(ImportError):
    """Packages of an extra are not installed; the message names the extra."""


@contextmanager
def require_extra(extra: str, task: str) -> Iterator[None]:
    """Import packages of an extra within this block.

    Args:
        extra: the extra of ``pyproject.toml`` that installs them.
        task: what they are needed for; the subject of the message.

    Raises:
        MissingExtraError: naming the missing package and the extra.  A missing module of this
            package itself is no missing extra and is raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is None or missing.partition(".")[0] == "jaynes_callbacks":
            raise
        raise MissingExtraError(
            f"{task} needs {missing}, which is not installed; "
            f"pip install 'jaynes-callbacks[{extra}]'"
        ) from error
