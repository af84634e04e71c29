"""Measure a history's checkpoints in the order of their steps, and write them as a run's dataset.

One whole part is written for each checkpoint, so a job that is killed goes on where it was.  What
later checkpoints are compared with, a few numbers of each weight at the first one, lies beside the
parts in ``_start.pt``.
"""

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jaynes_callbacks.files import CheckpointError, Limits, open_checkpoint
from jaynes_callbacks.files.hub import is_hub_address
from jaynes_callbacks.files.survey import Survey, Trace
from jaynes_callbacks.instruments.judge import Judge
from jaynes_callbacks.instruments.laws import objects
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.records.naming import telling_path
from jaynes_callbacks.records.parts import PartWriter, parts
from jaynes_callbacks.revisions.moments import Moment
from jaynes_callbacks.sinks.dataset import (
    DIRECTORY,
    read_description,
    read_records,
    write_description,
)
from jaynes_callbacks.statistics import Influence

__all__ = ["History", "Options", "measure_history"]

#: Checkpoints that are opened, and of which tensors are fetched, while one is measured.
_AHEAD = 2
_START = "_start.pt"


@dataclass(frozen=True)
class Options:
    """How each checkpoint of a history is measured; the same for all of one dataset.

    Attributes:
        selection: which weights.
        paper_bins: number of equal bins of the paper's protocol.
        scales: whether the cores are measured.
        limits: on what is expanded in memory.
        device: where values are counted.
        threads: that count; None for as many as torch uses.
    """

    selection: Selection
    paper_bins: int = PAPER_BINS
    scales: bool = True
    limits: Limits = field(default_factory=Limits)
    device: str = "cpu"
    threads: int | None = None

    def settings(self) -> dict[str, Any]:
        """Return what rows depend on, as a dataset's description holds it."""
        chosen = asdict(self.selection)
        told = {"selection": chosen, "paper_bins": self.paper_bins, "scales": self.scales}
        found: dict[str, Any] = json.loads(json.dumps(told, default=str))
        return found


class History:
    """The dataset of a history: what is measured already, and how a checkpoint is added.

    Attributes:
        directory: of the dataset.
        done: commits, or names of files, of the steps that were measured.

    Args:
        folder: in which the dataset ``jaynes/`` is or will be.
        source: address or folder of the history, by which the run is named.
        options: how it is measured.

    Raises:
        CheckpointError: if the folder holds the dataset of something else.
        OSError: if it cannot be written.
    """

    def __init__(self, folder: Path, source: str, options: Options) -> None:
        self.directory = folder / DIRECTORY
        self._source, self._options = source, options
        self._run = source if is_hub_address(source) else telling_path(Path(source))
        self._id = hashlib.sha256(source.encode()).hexdigest()[:32]
        self.directory.mkdir(parents=True, exist_ok=True)
        described = read_description(self.directory)
        self._check(described)
        self.done: dict[int, str] = {
            int(step): str(name) for step, name in described.get("measured", {}).items()
        }
        # A part that a killed job wrote and did not enter is measured anew.
        held = parts(self.directory)
        self.done = {step: name for step, name in self.done.items() if step in held}
        self._start, self._is_in_order = self._read_start(), True
        self._judge = self._judge_so_far()
        self._writer = PartWriter(self.directory, self._id, alone=True)

    def left(self, moments: Sequence[Moment]) -> list[Moment]:
        """Return the checkpoints that are not measured yet.

        Raises:
            CheckpointError: for one before the start, with which the others were compared.
        """
        left = [moment for moment in moments if moment.step not in self.done]
        if self.done and left and left[0].step < min(self.done):
            raise CheckpointError(
                f"{self.directory} begins at step {min(self.done)}, with which its other steps "
                f"were compared, and step {left[0].step} lies before it; take another folder with "
                "--into"
            )
        return left

    def add(self, moment: Moment, records: Records, survey: Survey) -> Records:
        """Compare a checkpoint's rows with the start, and write them.

        Returns:
            The rows as written.
        """
        new = {name: trace for name, trace in survey.traces.items() if name not in self._start}
        if new:
            self._start |= new
            self._write_start()
        compared = [
            (0.0, math.nan)
            if row.name in new
            else _compared(survey.traces[row.name], self._start[row.name])
            for row in records
        ]
        moved, errors = np.array(compared, dtype=float).reshape(-1, 2).T
        runs = objects([self._run] * len(records))
        compared_rows = records.replaced(run=runs, moved=moved, gap_change_se=errors)
        (rows,) = self._judge.judged([compared_rows])
        self._is_in_order = self._is_in_order and moment.step > max(self.done, default=-1)
        self._writer.write(rows)
        self.done[moment.step] = survey.checkpoint.commit or moment.name
        self._describe(survey)
        return rows

    def close(self) -> None:
        """Pass all verdicts anew where a checkpoint came later that lies between others."""
        if self._is_in_order or not self.done:
            return
        for rows in Judge({}).judged(self._moments()):
            self._writer.write(rows)
        self._is_in_order = True

    def _check(self, described: Mapping[str, Any]) -> None:
        """Refuse another run's dataset.

        Raises:
            CheckpointError: saying whose it is.
        """
        if not described and not parts(self.directory):
            return
        if described.get("history") != self._source:
            raise CheckpointError(
                f"{self.directory} holds the dataset of {described.get('history', 'a run')}; take "
                "another folder with --into"
            )
        if described.get("settings") != self._options.settings():
            raise CheckpointError(
                f"{self.directory} was measured with other options (which weights, --bins or "
                "--no-scales); take another folder with --into"
            )

    def _judge_so_far(self) -> Judge:
        judge = Judge({})
        judge.judged(self._moments())
        return judge

    def _moments(self) -> list[Records]:
        """Read the rows of each step that was measured, in order."""
        if not self.done:
            return []
        rows = read_records(self.directory)
        return [rows.take(rows["step"] == step) for step in sorted(self.done)]

    def _read_start(self) -> dict[str, Trace]:
        path = self.directory / _START
        if not path.is_file():
            return {}
        held = torch.load(path, weights_only=True)
        return {
            name: Trace(
                each["sample"], Influence(**each["influence"]) if each["influence"] else None
            )
            for name, each in held.items()
        }

    def _write_start(self) -> None:
        held = {
            name: {
                "sample": trace.sample,
                "influence": None if trace.influence is None else trace.influence._asdict(),
            }
            for name, trace in self._start.items()
        }
        put(self.directory / _START, lambda path: torch.save(held, path))

    def _describe(self, survey: Survey) -> None:
        write_description(
            self.directory,
            {
                "run": self._run,
                "history": self._source,
                "settings": self._options.settings(),
                "measured": {str(step): name for step, name in sorted(self.done.items())},
                "instruments": ["magnitudes"],
                "watched": [
                    {"kind": "weight", "name": entry.name, "aliases": list(entry.aliases)}
                    for entry in survey.chosen
                ],
                "skipped": [list(skipped) for skipped in survey.skipped],
            },
        )


def measure_history(
    history: History,
    moments: Sequence[Moment],
    options: Options,
    progress: Callable[[Survey], Any],
    failed: Callable[[Moment, str], object],
) -> Iterator[tuple[Moment, Records]]:
    """Measure the checkpoints that are left, each whole or not at all.

    The next ones are opened, and their tensors fetched, meanwhile.

    Args:
        history: the dataset that they are added to.
        moments: all checkpoints.
        options: how they are measured.
        progress: returns, for an opened checkpoint, a context manager that yields what is called
            with numbers of bytes.
        failed: called with each that cannot be measured, and the reason.

    Yields:
        Each checkpoint with its rows, once they are written.
    """
    left, ahead = deque(history.left(moments)), 0
    opening: deque[tuple[Moment, Future[Survey]]] = deque()
    with ThreadPoolExecutor(_AHEAD, "jaynes-open") as pool:
        try:
            while left or opening:
                while left and len(opening) <= ahead:
                    moment = left.popleft()
                    opening.append((moment, pool.submit(_opened, moment, options)))
                moment, future = opening.popleft()
                try:
                    survey = future.result()
                except (CheckpointError, ValueError, OSError) as error:
                    failed(moment, str(error))
                    continue
                # What is downloaded whole comes one by one, so that one is on the disk at a time.
                ahead = _AHEAD if survey.is_remote else 0
                try:
                    with progress(survey) as advance:
                        records = Records(chain.from_iterable(_groups(survey, options, advance)))
                    if survey.problems or not records:
                        failed(moment, survey.reason_for_no_records())
                        continue
                    yield moment, history.add(moment, records, survey)
                finally:
                    survey.close()
        finally:
            for _, future in opening:
                if not future.cancel() and future.exception() is None:
                    future.result().close()
            history.close()


def _groups(
    survey: Survey, options: Options, advance: Callable[[float], None]
) -> Iterator[Records]:
    return survey.records(
        device=options.device, threads=options.threads, progress=advance, keep_traces=True
    )


def _opened(moment: Moment, options: Options) -> Survey:
    checkpoint = replace(open_checkpoint(moment.place, options.limits), step=moment.step)
    survey = Survey(checkpoint, options.selection, options.paper_bins, scales=options.scales)
    if survey.is_remote:
        survey.start_reading()
    return survey


def _compared(now: Trace, first: Trace) -> tuple[float, float]:
    """Return how far a weight has moved, and the standard error of its gap's change."""
    return now.distance_from(first), now.error_of_change(first)
