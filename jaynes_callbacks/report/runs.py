"""Finding and reading the runs that a report is made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.report.parameters import choices_of, parameters_of
from jaynes_callbacks.sinks.dataset import read_records
from jaynes_callbacks.sinks.description import read_description
from jaynes_callbacks.sinks.place import parts

__all__ = ["Run", "find_datasets", "newest_part", "read_run"]


@dataclass(frozen=True)
class Run:
    """One run, or one measurement of a checkpoint, as a report shows it.

    Attributes:
        name: a person knows it by.
        history: all rows, without counts.
        start: the first row of each stream, with its counts.
        end: the last row of each stream, with its counts.
        parameters: what was chosen for it, by dotted names.
        choices: those of them that its command line named.
        description: versions, arguments and coverage; see `sinks.description`.
    """

    name: str
    history: Records
    start: Records
    end: Records
    parameters: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def measured_once(
        cls, name: str, records: Records, description: Mapping[str, Any] | None = None
    ) -> "Run":
        """Of one moment, such as a checkpoint."""
        rows = records.without_counts()
        return cls(name, rows, records, records, description=description or {})

    @property
    def is_trained(self) -> bool:
        """Whether any stream was recorded at more than one step."""
        first = {record.key: record.step for record in self.start}
        return any(record.step != first[record.key] for record in self.end)

    @property
    def outcome(self) -> str:
        """``running``, ``interrupted`` or ``finished``; of older datasets nothing else is known."""
        return str(self.description.get("outcome", "finished"))

    @cached_property
    def first(self) -> Mapping[tuple[str, str], Record]:
        """The first row of each stream, by its key."""
        return self.start.by_stream()

    @cached_property
    def by_stream(self) -> Mapping[tuple[str, str], Sequence[Record]]:
        """The rows of each stream in the order of steps; streams in the order of the last rows."""
        rows: dict[tuple[str, str], list[Record]] = {record.key: [] for record in self.end}
        for record in self.history:
            rows[record.key].append(record)
        return rows


def find_datasets(paths: Iterable[str | Path]) -> list[Path]:
    """The datasets at or below some paths, each once, sorted below each path.

    Args:
        paths: datasets (``…/jaynes``), folders of runs or folders of these.

    Raises:
        FileNotFoundError: for a path without a dataset at or below it, with what was expected.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        below = [path] if parts(path) else _below(path)
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

    Raises:
        FileNotFoundError: if it has no part.
        ValueError: if a part cannot be read.
    """
    history = read_records(dataset, counts=False)
    first: dict[tuple[str, str], int] = {}
    for record in history:
        first.setdefault(record.key, record.step)
    last = {record.key: record.step for record in history}
    description = read_description(dataset)
    return Run(
        _name(dataset, history),
        history,
        _rows_at(dataset, first),
        _rows_at(dataset, last),
        parameters_of(dataset, description),
        choices_of(dataset),
        description,
    )


def newest_part(dataset: Path) -> tuple[int, int]:
    """What changes when a record is added: the last step, and when its part was written."""
    step, part = list(parts(dataset).items())[-1]
    return step, part.stat().st_mtime_ns


def _below(path: Path) -> list[Path]:
    return sorted({part.parent for part in path.rglob("part-*.parquet")})


def _rows_at(dataset: Path, steps: Mapping[tuple[str, str], int]) -> Records:
    """The rows of each stream at its own step, with their counts."""
    files = parts(dataset)
    return Records(
        record
        for step in sorted(set(steps.values()))
        for record in read_records(files[step])
        if steps.get(record.key) == step
    )


def _name(dataset: Path, history: Records) -> str:
    """The run's own name, or that of the folder around its dataset."""
    own = history[-1].run if history else ""
    return own or dataset.resolve().parent.name
