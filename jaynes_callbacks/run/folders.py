"""Find the folder of a run where its loggers keep theirs."""

import warnings
from pathlib import Path
from typing import Any

__all__ = ["folder_of_run", "is_remote", "logger_directory"]


def logger_directory(logger: Any) -> Path | None:
    """Return ``log_dir``, or what ``save_dir``, name and version make; None without local files."""
    directory = _told(logger, "log_dir")
    if isinstance(directory, str | Path):
        return None if is_remote(directory) else Path(directory)
    saved = _told(logger, "save_dir")
    if not isinstance(saved, str | Path) or is_remote(saved):
        return None
    return folder_of_run(saved, logger)


def folder_of_run(root: str | Path, logger: Any = None) -> Path:
    """Return a logger's folder for the run below a root."""
    name, version = (_told(logger, each) for each in ("name", "version"))
    return Path(root, str(name or ""), str("" if version is None else version))


def _told(logger: Any, attribute: str) -> Any:
    """Return what a logger says of itself; None if it has no such attribute, or fails to say.

    Some make a run on a server when they are first asked.
    """
    try:
        return getattr(logger, attribute, None)
    except Exception as error:
        warnings.warn(
            f"{type(logger).__name__} does not tell its {attribute}: "
            f"{type(error).__name__}: {error}; training goes on",
            stacklevel=2,
        )
        return None


def is_remote(path: str | Path) -> bool:
    """Tell whether a path is none of the local file system."""
    return not path or "://" in str(path)
