"""The dataset on disk: the directory ``jaynes/``, one Parquet part per snapshot.

Each part is written to a hidden temporary name and renamed, so that a killed run leaves only whole
parts, and ``pandas.read_parquet(directory)`` reads them all at any moment; ``_run.json`` beside
them says what was run and watched.  Nothing that another run has left is touched (see
`jaynes_callbacks.sinks.place`); a resumed run goes on where its checkpoint was, so that its dataset
equals an uninterrupted run's.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# pyarrow loads it at the first conversion: better now than amid training.
import pandas  # noqa: F401

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.records.parquet import read_rows, write_rows
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.description import write_description
from jaynes_callbacks.sinks.place import DIRECTORY, dataset_of, part_name, parts, place

__all__ = ["DatasetSink", "read_records"]


class DatasetSink:
    """Writes every snapshot as one Parquet part.

    Attributes:
        directory: where the parts are, once opened; None for a run without files.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from jaynes_callbacks.instruments.record import Record, Records
        >>> from jaynes_callbacks.sinks.base import RunContext
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

    def open(self, context: RunContext) -> None:
        """Choose and make the directory; bring what a resumed run had recorded elsewhere.

        Raises:
            OSError: if it cannot be written.
        """
        self._run_id, self._resumed_step = context.run_id, context.resumed_step
        self.directory = place(context)
        self._describe, self._is_described = context.describe, False
        if self.directory is None:
            return
        _make(self.directory)
        if context.resumed_step is None:
            _say_if_moved(self.directory)
        elif context.resumed_directory is not None:
            before = dataset_of(context.run_id, context.resumed_directory)
            _carry_over(before, self.directory, context.resumed_step)

    def recall(self) -> Records:
        """What a resumed run had recorded up to its checkpoint, without counts.

        Raises:
            OSError, ValueError: if a part cannot be read.
        """
        if self.directory is None or self._resumed_step is None:
            return Records()
        files = [part for step, part in parts(self.directory).items() if step <= self._resumed_step]
        return Records(record for file in files for record in read_rows(file, counts=False))

    def write(self, records: Records, history: Records) -> None:
        """Write one part; a repeated step replaces its part.

        Raises:
            OSError: if it cannot be written.
        """
        if self.directory is None or not records:
            return
        self._drop_what_comes_again()
        part = self.directory / part_name(records[0].step)
        _put(part, lambda temporary: write_rows(records, temporary, self._run_id))
        if not self._is_described:
            self._write_description()

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Say once more what was watched: streams may have appeared since the first record."""
        if self._is_described:
            self._write_description()
        self._describe = dict

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no hold on the run that this one writes for."""
        return {**self.__dict__, "_describe": dict}

    def _write_description(self) -> None:
        if self.directory is not None and (description := self._describe()):
            write_description(self.directory, description)
            self._is_described = True

    def _drop_what_comes_again(self) -> None:
        """Once a resumed run records anew, what lay beyond its checkpoint is void."""
        if self.directory is None or self._resumed_step is None:
            return
        # The last first: whenever it is killed, what is left is one run's beginning.
        for step, part in reversed(parts(self.directory).items()):
            if step > self._resumed_step:
                part.unlink()
        self._resumed_step = None


def read_records(path: str | Path, *, counts: bool = True) -> Records:
    """Read a dataset, or one part of it, back.

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
    files = [path] if path.is_file() else list(parts(path).values())
    if not files:
        state = "it has no part-*.parquet" if path.is_dir() else "there is no such path"
        raise FileNotFoundError(
            f"no dataset at {path}: {state}; expected the directory {DIRECTORY}/ that a monitor "
            "writes into its logger's directory, or a part of it"
        )
    return Records(record for file in files for record in read_rows(file, counts=counts))


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


def _carry_over(before: Path | None, directory: Path, until: int) -> None:
    """Make `directory` hold what the run had recorded up to its checkpoint, wherever it was."""
    if before is None or before.resolve() == directory.resolve():
        return
    for step, part in parts(before).items():
        if step <= until:
            _put(directory / part.name, partial(shutil.copyfile, part))


def _put(part: Path, write: Callable[[Path], object]) -> None:
    try:
        put(part, write)
    except OSError as error:
        raise OSError(
            f"cannot write {part} ({error.strerror or error}); earlier parts are whole"
        ) from error
