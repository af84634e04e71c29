"""Read finished runs: a row per run and stream, with its start beside its end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.result import FILE, Result
from experiments.summaries.law_of_z import gaps_on_z
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.records.parts import parts
from jaynes_callbacks.sinks.dataset import read_records

__all__ = ["Run", "found", "streams"]

#: Columns of a record that are kept of the first and of the last one.
_OF_BOTH = ("gap", "best_family", "q", "paper_r2", "paper_r2_gaussian", "log_std", "n")
_OF_THE_END = (
    "gap_se",
    "gap_tilted",
    "gap_censored",
    "paper_mu",
    "paper_sigma",
    "moved",
    "verdict",
)


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        folder: of the run.
        result: what its ``result.json`` holds.
        start: the first record of each stream.
        end: the last record of each stream, with its counts.
    """

    folder: Path
    result: Result
    start: Records
    end: Records

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read the run of a folder that has a result.

        Raises:
            ValueError: if its result cannot be read, or names no dataset.
            FileNotFoundError: if the dataset is missing or empty.
        """
        result = Result.read(folder)
        if result.dataset is None:
            raise ValueError(f"{folder} has no dataset of a monitor: run it with one")
        files = list(parts(folder / result.dataset).values())
        if not files:
            raise FileNotFoundError(f"{folder / result.dataset} is gone, or empty: run it again")
        first, last = read_records(files[0], counts=False), read_records(files[-1])
        # Parts of a long run hold several records each.
        first, last = (
            first.take(first["step"] == first["step"][0]),
            last.take(last["step"] == last["step"][-1]),
        )
        return cls(folder, result, first, last)


def found(folders: Iterable[Path]) -> tuple[list[Run], list[Path]]:
    """Read all finished runs below some folders; return also the folders of unfinished ones.

    Args:
        folders: of sweeps, or of single runs.

    Raises:
        FileNotFoundError: if a folder is not there, or no run below it is finished.
        ValueError: if a result cannot be read.
    """
    finished: set[Path] = set()
    begun: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; name one that holds finished runs")
        finished |= {file.parent for file in folder.rglob(FILE)}
        begun |= {file.parent for file in folder.rglob(".hydra")}
    if not finished:
        raise FileNotFoundError(
            f"no finished run ({FILE}) below {', '.join(map(str, folders))}; "
            "the names of sweeps are those of multirun/"
        )
    return [Run.read(folder) for folder in sorted(finished)], sorted(begun - finished)


def streams(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row per run and stream.

    Columns: ``run`` (index into `runs`), ``kind``, ``name``, of the records' columns those of
    both moments as ``gap_start``, ``gap_end`` and so on, those of the end under their own name,
    the gaps of all families at the end as ``gap_<family>``, and of activations ``z_lognormal`` and
    ``z_exponential``, the gaps of iota Z itself.
    """
    rows = []
    for number, run in enumerate(runs):
        first = run.start.by_stream()
        rows += [_row(number, first.get(end.key, end), end) for end in run.end]
    frame = pd.DataFrame(rows)
    ends = [record for run in runs for record in run.end]
    return pd.concat([frame, gaps_on_z(ends)], axis=1)


def _row(number: int, start: Record, end: Record) -> dict[str, object]:
    row: dict[str, object] = {"run": number, "kind": end.kind, "name": end.name}
    for column in _OF_BOTH:
        row[f"{column}_start"] = getattr(start, column)
        row[f"{column}_end"] = getattr(end, column)
    row |= {column: getattr(end, column) for column in _OF_THE_END}
    return row | {f"gap_{family}": gap for family, gap in end.rival_gaps.items()}
