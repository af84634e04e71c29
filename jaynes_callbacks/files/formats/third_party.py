"""Find readers of checkpoint formats in other packages that are installed, by their entry points.

A package names its readers in the group ``jaynes_callbacks.readers``: the name is the end of file
names, the value a function from a path and `Limits` to a `Checkpoint`, or an object with such a
function as its method ``read``.  Nothing is imported before a file with this end is opened.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError
from jaynes_callbacks.files.limits import Limits

__all__ = ["GROUP", "Reader", "found_readers", "import_reader"]

#: The group of entry points.
GROUP = "jaynes_callbacks.readers"

Reader = Callable[[Path, Limits], Checkpoint]


@lru_cache(maxsize=1)
def found_readers() -> Mapping[str, EntryPoint]:
    """Return the readers of other packages by the ends of file names, each with its dot."""
    return {
        each.name if each.name.startswith(".") else f".{each.name}": each
        for each in entry_points(group=GROUP)
    }


def import_reader(entry_point: EntryPoint) -> Reader:
    """Import a reader.

    Raises:
        CheckpointError: saying which package's reader fails, whatever it raises.
    """
    package = entry_point.dist.name if entry_point.dist is not None else entry_point.module
    what = f"the reader of {entry_point.name} files in the package {package}"
    try:
        found = entry_point.load()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise CheckpointError(
            f"{what} cannot be imported ({type(error).__name__}: {said}); update or uninstall it"
        ) from error
    reader: Reader = getattr(found, "read", found)
    if not callable(reader):
        raise CheckpointError(
            f"{what} is {type(found).__name__}, expected a function from a path and Limits to a "
            "Checkpoint; update or uninstall it"
        )
    return reader
