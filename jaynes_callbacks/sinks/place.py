"""Where a run's files go: a directory of its own, never one that holds another run's.

The dataset is ``jaynes/`` in the run's directory and holds parts only, so that any Parquet reader
takes it as it is; figures are beside it, in ``jaynes-figures/``.  Where a run finds another one's
files it goes to ``jaynes-1/`` and ``jaynes-1-figures/``, and so on; a resumed run finds its own
again by the run's id, which every part bears.
"""

import re
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jaynes_callbacks.sinks.base import RunContext

__all__ = ["DIRECTORY", "RUN_ID", "dataset_of", "figures_beside", "part_name", "parts", "place"]

#: Name of the dataset's directory below the run's.
DIRECTORY = "jaynes"
#: Key of the run's id in the metadata of a part's schema.
RUN_ID = b"jaynes_callbacks.run_id"

_PART = re.compile(r"part-(\d+)\.parquet")
_SIBLING = re.compile(rf"{DIRECTORY}(?:-(\d+))?")


def place(context: RunContext) -> Path | None:
    """The dataset's directory for this run; None for a run without files.

    The directory that holds this run's parts already (it was resumed), or else the first of
    ``jaynes``, ``jaynes-1``, … that is free.  Nothing is created.
    """
    if context.directory is None:
        return None
    return dataset_of(context.run_id, context.directory) or _first_free(context.directory)


def dataset_of(run_id: str, directory: Path) -> Path | None:
    """The dataset below `directory` whose parts bear this run's id."""
    found = sorted(
        path for path in directory.glob(f"{DIRECTORY}*") if _SIBLING.fullmatch(path.name)
    )
    return next((path for path in found if _run_id(path) == run_id), None)


def figures_beside(dataset: Path) -> Path:
    """Where the figures of a run are whose dataset is, or would be, in `dataset`."""
    return dataset.with_name(f"{dataset.name}-figures")


def parts(dataset: Path) -> dict[int, Path]:
    """The parts of a dataset by step, in order; empty where there is none."""
    matches = ((_PART.fullmatch(path.name), path) for path in dataset.glob("part-*.parquet"))
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def part_name(step: int) -> str:
    """File name of the part of one step; names sort as steps do."""
    return f"part-{step:012d}.parquet"


def _first_free(directory: Path) -> Path:
    names = (DIRECTORY if number == 0 else f"{DIRECTORY}-{number}" for number in count())
    return next(path for name in names if _is_free(path := directory / name))


def _is_free(dataset: Path) -> bool:
    return not parts(dataset) and not any(figures_beside(dataset).glob("*"))


def _run_id(dataset: Path) -> str | None:
    """The id in the newest part that can be read."""
    for part in reversed(list(parts(dataset).values())):
        try:
            metadata: dict[bytes, bytes] = pq.read_schema(part).metadata or {}
        except (OSError, pa.ArrowException):
            continue
        return metadata.get(RUN_ID, b"").decode()
    return None
