"""The dataset on disk: the directory ``jaynes/`` of a run, Parquet parts and what was run.

::

    jaynes/part-000000000000.parquet     rows of the main instrument, see `records.parts`
    jaynes/_run.json                     what was run and watched
    jaynes/_gradients/part-….parquet     rows of another instrument, in a folder of its own

``pandas.read_parquet("…/jaynes")`` reads the main instrument's rows at any moment, for readers of
Parquet directories leave out what begins with an underscore;
``….read_parquet("…/jaynes/_gradients")`` reads another's.  Figures are beside the dataset, in
``jaynes-figures/``.

Where a run finds another run's files it goes to ``jaynes-1/``, and so on; a resumed run finds its
own by the run's id, which every part bears, and its dataset equals an uninterrupted run's.
"""

import json
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

# pyarrow loads it at the first conversion: better now than amid training.
import pandas  # noqa: F401

from jaynes_callbacks.instruments.record import SCHEMA, Records
from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import read_frame, read_run_id
from jaynes_callbacks.records.parts import PartWriter, parts, read_parts
from jaynes_callbacks.records.regular import read_text
from jaynes_callbacks.records.schema import Schema
from jaynes_callbacks.sinks.base import RunContext

__all__ = [
    "DESCRIPTION",
    "DIRECTORY",
    "DatasetSink",
    "dataset_of",
    "figures_beside",
    "folder_of",
    "instrument_folders",
    "place",
    "read_description",
    "read_records",
    "write_description",
]

#: Name of the dataset's directory below the run's.
DIRECTORY = "jaynes"
#: Name of the file that says what was run.
DESCRIPTION = "_run.json"
_SIBLING = re.compile(rf"{DIRECTORY}(?:-(\d+))?")


class DatasetSink:
    """Writes every record into a Parquet dataset.

    Attributes:
        directory: where the dataset is, once opened; None for a run without files.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from jaynes_callbacks.instruments.record import Record, Records
        >>> with TemporaryDirectory() as folder:
        ...     sink = DatasetSink()
        ...     sink.open(RunContext(directory=Path(folder)))
        ...     sink.write(Records([Record(name="fc.weight", step=3)]), Records())
        ...     [record.name for record in read_records(sink.directory)]
        ['fc.weight']
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self._run_id = ""
        self._resumed_step: int | None = None
        self._describe: Callable[[], Mapping[str, Any]] = dict
        self._is_described = False
        self._writers: dict[str, PartWriter] = {}

    def open(self, context: RunContext) -> None:
        """Choose and make the directory; bring what a resumed run had recorded elsewhere.

        Raises:
            OSError: if it cannot be written.
        """
        self._run_id, self._resumed_step = context.run_id, context.resumed_step
        self.directory = place(context)
        self._describe, self._is_described = context.describe, False
        self._writers = {}
        if self.directory is None:
            return
        folders = [folder_of(self.directory, schema) for schema in context.schemas]
        for folder in dict.fromkeys([self.directory, *folders]):
            _make(folder)
        if context.resumed_step is None:
            _say_if_moved(self.directory)
        elif context.resumed_directory is not None:
            before = dataset_of(context.run_id, context.resumed_directory)
            for schema in context.schemas:
                if before is None:
                    break
                _carry_over(
                    folder_of(before, schema),
                    folder_of(self.directory, schema),
                    context.run_id,
                    context.resumed_step,
                )

    def recall(self, schema: Schema[Any]) -> Frame[Any]:
        """Return what a resumed run had recorded up to its checkpoint, without counts.

        Raises:
            OSError, ValueError: if a part cannot be read.
        """
        nothing: Frame[Any] = Frame(schema, {})
        if self.directory is None or self._resumed_step is None:
            return nothing
        folder = folder_of(self.directory, schema)
        if not parts(folder):
            return nothing
        frame = read_parts(folder, schema, counts=False)
        return frame[: int(np.searchsorted(frame["step"], self._resumed_step, side="right"))]

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Write one record; a repeated step replaces its rows.

        Raises:
            OSError: if it cannot be written.
        """
        if self.directory is None or not len(records):
            return
        self._writer(records.schema).write(records)
        if not self._is_described:
            self._write_description()

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Say once more what was watched: streams may have appeared since the first record."""
        if self._is_described:
            self._write_description()

    def __getstate__(self) -> dict[str, Any]:
        """Copy no hold on the run that this one writes for."""
        return {**self.__dict__, "_describe": dict, "_writers": {}}

    def _writer(self, schema: Schema[Any]) -> PartWriter:
        """Return the writer of an instrument's parts.

        Once a resumed run records anew, what lay beyond its checkpoint is void.
        """
        assert self.directory is not None
        if schema.instrument not in self._writers:
            folder = folder_of(self.directory, schema)
            folder.mkdir(exist_ok=True)
            writer = PartWriter(folder, self._run_id)
            if self._resumed_step is not None:
                writer.truncate(self._resumed_step)
            self._writers[schema.instrument] = writer
        return self._writers[schema.instrument]

    def _write_description(self) -> None:
        if self.directory is not None and (description := self._describe()):
            write_description(self.directory, description)
            self._is_described = True


def read_records(path: str | Path, *, counts: bool = True) -> Records:
    """Read the main instrument's rows of a dataset, or of one part of it.

    Args:
        path: the directory ``jaynes/`` or a Parquet file in it.
        counts: whether to read the counts too; without them reading is several times faster.

    Returns:
        Records equal to the ones written, ordered by step.

    Raises:
        FileNotFoundError: if there is no such path or no part in it.
        ValueError: if a file is no part of such a dataset.
    """
    path = Path(path)
    if path.is_file():
        return Records(read_frame(path, SCHEMA, counts=counts))
    if not parts(path):
        state = "it has no part-*.parquet" if path.is_dir() else "there is no such path"
        raise FileNotFoundError(
            f"no dataset at {path}: {state}; expected the directory {DIRECTORY}/ that a monitor "
            "writes into its logger's directory, or a part of it"
        )
    return Records(read_parts(path, SCHEMA, counts=counts))


# What was run ------------------------------------------------------------------------------


def write_description(directory: Path, description: Mapping[str, Any]) -> None:
    """Put ``_run.json`` into a dataset's directory, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    text = json.dumps(description, indent=1, default=str, ensure_ascii=True)
    put(directory / DESCRIPTION, lambda path: path.write_text(text + "\n"))


def read_description(directory: Path) -> dict[str, Any]:
    """Return what `write_description` has written; empty where nothing can be read."""
    try:
        description = json.loads(read_text(directory / DESCRIPTION))
    except (OSError, ValueError, RecursionError):
        return {}
    return description if isinstance(description, dict) else {}


# Where things are --------------------------------------------------------------------------


def place(context: RunContext) -> Path | None:
    """Return the dataset's directory for this run; None for a run without files.

    The directory that holds this run's parts already (it was resumed), or else the first of
    ``jaynes``, ``jaynes-1``, … that is free.  Nothing is created.
    """
    if context.directory is None:
        return None
    return dataset_of(context.run_id, context.directory) or _first_free(context.directory)


def dataset_of(run_id: str, directory: Path) -> Path | None:
    """Return the dataset below `directory` whose parts bear this run's id."""
    found = sorted(
        path for path in directory.glob(f"{DIRECTORY}*") if _SIBLING.fullmatch(path.name)
    )
    return next((path for path in found if _run_id(path) == run_id), None)


def figures_beside(dataset: Path) -> Path:
    """Return where the figures of a run are whose dataset is, or would be, in `dataset`."""
    return dataset.with_name(f"{dataset.name}-figures")


def folder_of(dataset: Path, schema: Schema[Any]) -> Path:
    """Return where the parts of an instrument are in a dataset."""
    return dataset if schema.main else dataset / f"_{schema.instrument}"


def instrument_folders(dataset: Path) -> dict[str, Path]:
    """Return the folders of a dataset's other instruments, by their names."""
    folders = sorted(path for path in dataset.glob("_*") if path.is_dir() and parts(path))
    return {path.name.removeprefix("_"): path for path in folders}


def _first_free(directory: Path) -> Path:
    names = (DIRECTORY if number == 0 else f"{DIRECTORY}-{number}" for number in count())
    return next(path for name in names if _is_free(path := directory / name))


def _is_free(dataset: Path) -> bool:
    used = parts(dataset) or instrument_folders(dataset) or any(figures_beside(dataset).glob("*"))
    return not used


def _run_id(dataset: Path) -> str | None:
    """Return the id in the newest part that can be read."""
    for folder in (dataset, *instrument_folders(dataset).values()):
        for part in reversed(list(parts(folder).values())):
            if (run_id := read_run_id(part)) is not None:
                return run_id
    return None


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Left by a run that was killed while it wrote.
        for leftover in directory.glob(".part-*.tmp"):
            leftover.unlink()
        probe = directory / ".part-probe.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write the dataset to {directory} ({error.strerror or error}); give the "
            "monitor another place with dirpath=..."
        ) from error


def _say_if_moved(directory: Path) -> None:
    if directory.name != DIRECTORY:
        warnings.warn(
            f"{directory.with_name(DIRECTORY)} holds another run's records; this run's go to "
            f"{directory}",
            stacklevel=2,
        )


def _carry_over(before: Path, folder: Path, run_id: str, until: int) -> None:
    """Make `folder` hold what the run had recorded up to its checkpoint, wherever it was."""
    if before.resolve() == folder.resolve():
        return
    for step, part in parts(before).items():
        if step <= until:
            put(folder / part.name, partial(shutil.copyfile, part))
    PartWriter(folder, run_id).truncate(until)
