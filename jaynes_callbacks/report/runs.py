"""Find and read the runs that a report is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.records.naming import telling_path
from jaynes_callbacks.records.parts import parts, read_parts
from jaynes_callbacks.records.schema import Integers
from jaynes_callbacks.report.parameters import choices_of, parameters_of
from jaynes_callbacks.sinks.dataset import instrument_folders, read_description

__all__ = ["Run", "find_datasets", "newest_part", "read_run"]


@dataclass(frozen=True)
class Run:
    """One run, or one measurement of a checkpoint, as a report shows it.

    Attributes:
        name: by which people know it.
        history: all rows of the main instrument, ordered by step, without counts.
        start: the first row of each stream, with its counts.
        end: the last row of each stream, with its counts.
        parameters: what was chosen for it, by dotted names.
        choices: the parameters that were named on its command line.
        description: versions, arguments and coverage; see `sinks.description`.
        instruments: folders of the other instruments' parts, by the instruments' names.
        place: its dataset, or the checkpoint; None where it has none.
    """

    name: str
    history: Records
    start: Records
    end: Records
    parameters: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)
    instruments: Mapping[str, Path] = field(default_factory=dict)
    place: Path | None = None

    @classmethod
    def measured_once(
        cls,
        name: str,
        records: Records,
        description: Mapping[str, Any] | None = None,
        place: Path | None = None,
    ) -> "Run":
        """Make a run of one moment, such as a checkpoint."""
        rows = records.without_counts()
        return cls(name, rows, records, records, description=description or {}, place=place)

    @cached_property
    def is_trained(self) -> bool:
        """True if any stream was recorded at more than one step."""
        first, last = (
            {key: frame["step"][rows[-1]] for key, rows in frame.rows_by_stream().items()}
            for frame in (self.start, self.end)
        )
        return any(step != first[key] for key, step in last.items())

    @property
    def outcome(self) -> str:
        """``running``, ``interrupted`` or ``finished``; the last if the dataset does not say."""
        return str(self.description.get("outcome", "finished"))

    @cached_property
    def first(self) -> Mapping[tuple[str, str], Record]:
        """The first row of each stream, by its key."""
        return self.start.by_stream()

    @cached_property
    def rows_by_stream(self) -> Mapping[tuple[str, str], Integers]:
        """Indices into the history of each stream's rows, in the order of steps, by its key."""
        return self.history.rows_by_stream()


def find_datasets(paths: Iterable[str | Path]) -> list[Path]:
    """Return the datasets at or below some paths, each once, sorted below each path.

    Args:
        paths: datasets (``…/jaynes``), folders of runs or folders of these.

    Raises:
        FileNotFoundError: for a path without a dataset at or below it, with what was expected.
    """
    found: dict[Path, None] = {}
    for place in paths:
        path = Path(place)
        if not str(place):
            raise FileNotFoundError("no run: the path is empty; expected a dataset or a folder")
        below = [_dataset_around(path)] if parts(path) else _below(path)
        if not below:
            state = "there is no such folder" if not path.is_dir() else "it holds no dataset"
            raise FileNotFoundError(
                f"no run at {path}: {state}; expected a dataset (jaynes/, with part-*.parquet "
                "files, as a monitor writes it) or a folder with datasets below it"
            )
        found |= dict.fromkeys(below)
    return list(found)


def read_run(dataset: Path) -> Run:
    """Read one dataset.

    Other instruments' parts are found, but not read; without a part of the main instrument's the
    run has no rows.

    Raises:
        FileNotFoundError: if it has no part of any instrument.
        ValueError: if a part of the main instrument cannot be read.
    """
    instruments = instrument_folders(dataset)
    if not parts(dataset) and not instruments:
        raise FileNotFoundError(f"no dataset at {dataset}: there is no part-*.parquet in it")
    description = read_description(dataset)
    return Run(
        *_measured(dataset),
        parameters_of(dataset, description),
        choices_of(dataset),
        description,
        instruments,
        dataset,
    )


def newest_part(dataset: Path) -> tuple[int, ...]:
    """Return numbers that change whenever a record is added, be it to a part that exists.

    Returns:
        Of the main instrument and each other one: first step, time of writing and size of the
        newest part.

    Raises:
        IndexError: if there is no part at all.
    """
    folders = (dataset, *instrument_folders(dataset).values())
    newest = [list(found.items())[-1] for folder in folders if (found := parts(folder))]
    if not newest:
        raise IndexError(f"no part in {dataset}")
    states = [(step, part.stat()) for step, part in newest]
    return tuple(
        number for step, state in states for number in (step, state.st_mtime_ns, state.st_size)
    )


def _below(path: Path) -> list[Path]:
    return sorted({_dataset_around(part.parent) for part in path.rglob("part-*.parquet")})


def _dataset_around(folder: Path) -> Path:
    """Return the dataset of a folder with parts: itself, or the one above another instrument's."""
    return folder.parent if folder.name.startswith("_") else folder


def _measured(dataset: Path) -> tuple[str, Records, Records, Records]:
    """Return a run's name, its rows without counts, and first and last rows with counts."""
    around = telling_path(dataset.resolve().parent)
    if not parts(dataset):
        return around, Records(), Records(), Records()
    history = Records(read_parts(dataset, SCHEMA, counts=False))
    if not len(history):
        return around, history, history, history
    steps, streams = history["step"], history.rows_by_stream()
    first = {key: int(steps[rows[0]]) for key, rows in streams.items()}
    last = {key: int(steps[rows[-1]]) for key, rows in streams.items()}
    own = str(history["run"][-1])
    # Of a trainer's run the column holds the path's telling part, and an id that nobody reads.
    name = around if own.startswith(f"{around}-") or own in dataset.resolve().parts else own
    return name or around, history, _rows_at(dataset, first), _rows_at(dataset, last)


def _rows_at(dataset: Path, steps: Mapping[tuple[str, str], int]) -> Records:
    """Read the rows of each stream at its own step, with their counts."""
    frame = read_parts(dataset, SCHEMA, steps=set(steps.values()))
    keys = zip(frame["kind"].tolist(), frame["name"].tolist(), strict=True)
    wanted = np.array([steps.get(key, -1) for key in keys], dtype=np.int64)
    return Records(frame.take(frame["step"] == wanted))
