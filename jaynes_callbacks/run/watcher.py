"""What a user reads of a run under observation, whichever host trains it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from jaynes_callbacks.probes.selection import Coverage
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.run.arguments import Arguments
from jaynes_callbacks.run.host import Host
from jaynes_callbacks.run.run import WatchedRun

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Watcher"]


class _Left(NamedTuple):
    """Results of a run that a copy of its watcher keeps, without a hold on the run."""

    starts: Mapping[str, Frame[Any]]
    coverage: Coverage = Coverage((), ())
    directory: Path | None = None
    dataset: Path | None = None


class Watcher:
    """Base of what watches a run for a user: Lightning's monitor, and those of other hosts.

    A host's class calls `_attach` when the model is there, `_begin` when its step is known, the
    methods of the run that `_live` returns as its loop goes on, and `_finish` at the end.

    Args:
        arguments: of the user.
    """

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._arguments = arguments
        self._dirpath = None if arguments.dirpath is None else Path(arguments.dirpath)
        self._delivery = arguments.delivery()
        self._main = next(iter(self._delivery.histories))
        self._run: WatchedRun | None = None
        self._left = _Left({})
        self._resumed: dict[str, Any] = {}
        self._earlier: dict[str, Any] = {}

    # What a user reads ----------------------------------------------------------------------

    @property
    def history(self) -> "pd.DataFrame":
        """One row per (step, stream) of the first instrument, without the counts.

        The counts are in the dataset.  After resuming in another process the earlier rows come from
        the dataset (on the main process; without a dataset it begins where the run was resumed).
        """
        return self.history_of(self._main)

    def history_of(self, instrument: str) -> "pd.DataFrame":
        """Return the history of any of the instruments, by its name."""
        self._check(instrument)
        return self._delivery.histories[instrument].frame().to_pandas()

    @property
    def records(self) -> Frame[Any]:
        """The same as `Records`, which figures and tables take.

        The first and the last record of each stream have their counts; those of all are in the
        dataset.
        """
        return self.records_of(self._main)

    def records_of(self, instrument: str) -> Frame[Any]:
        """Return the records of any of the instruments, by its name."""
        self._check(instrument)
        return self._delivery.records_of(instrument, self._start_of(instrument))

    @property
    def start(self) -> Frame[Any]:
        """The first record of each stream, with its counts: the state before training."""
        self._deliver()
        return self._start_of(self._main)

    @property
    def end(self) -> Frame[Any]:
        """The last record, with its counts and the verdict on each stream."""
        self._deliver()
        return self._delivery.ends.get(self._main, self._nothing)

    @property
    def coverage(self) -> Coverage:
        """The streams that are watched and what is not, with the reasons."""
        return self._run.recorder.coverage if self._run else self._left.coverage

    @property
    def directory(self) -> Path | None:
        """Folder into which the sinks of the main process write, once training has begun."""
        return self._run.directory if self._run else self._left.directory

    @property
    def dataset(self) -> Path | None:
        """The run's dataset (``…/jaynes``) on the main process; None if none was written."""
        return self._run.dataset if self._run else self._left.dataset

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run so far as one HTML page, as ``jaynes report`` does.

        Args:
            path: of the page; by default ``jaynes-report.html`` beside the dataset.

        Returns:
            Where it is.

        Raises:
            FileNotFoundError: if no dataset has been written (yet, by this process, or at all).
            MissingExtraError: if the packages of the extra ``report`` are not installed.
        """
        from jaynes_callbacks.report import read_run, write_report

        self._deliver()
        if (dataset := self.dataset) is None:
            raise FileNotFoundError(
                "there is no dataset to report on: the process of rank 0 writes one, by a "
                "DatasetSink, from the first record on"
            )
        page = dataset.with_name("jaynes-report.html") if path is None else Path(path)
        write_report([read_run(dataset)], page)
        return page

    def __repr__(self) -> str:
        told = [", ".join(self._delivery.histories), self._delivery.summary(self._main)]
        told += [f"dataset {self.dataset}"] if self.dataset else []
        return f"<{type(self).__name__}: {'; '.join(told)}>"

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on: CPU tensors and builtins only."""
        return self._state_of_run()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the run that is about to begin."""
        self._resumed = dict(state_dict)

    # Copying --------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Copy what was recorded, but neither the model nor a hold on its run."""
        run = self._run
        starts = (
            {name: run.recorder.start_of(name) for name in run.recorder.instruments}
            if run
            else self._left.starts
        )
        return {
            **self.__dict__,
            "_run": None,
            "_left": _Left(starts, self.coverage, self.directory, self.dataset),
            "_earlier": self._state_of_run(),
        }

    # What a host's class calls --------------------------------------------------------------

    def _attach(self, model: nn.Module) -> None:
        """Find the streams of the model for a run that is about to begin.

        Raises:
            ValueError: for patterns that match nothing, or a `min_size` above every layer.
        """
        run = self._arguments.watched_run(model, self._delivery, self._dirpath)
        self._earlier = self._state_of_run() or self._earlier
        self._run = run

    def _begin(self, host: Host) -> None:
        """Take the model as the start, or go on where a checkpoint or an earlier run left off.

        Only when the host has restored its step.
        """
        if run := self._live:
            before = self._resumed or (self._earlier if host.step > 0 else {})
            self._resumed, self._earlier = {}, {}
            run.begin(host, before or None)

    def _state_of_run(self) -> dict[str, Any]:
        return self._run.state_dict() if self._run else {}

    @property
    def _live(self) -> WatchedRun | None:
        """The run, from `_attach` to `_finish`."""
        return self._run if self._run and self._run.live else None

    def _finish(self) -> None:
        """Let go of the model and let the sinks finish, however the run ended."""
        if run := self._live:
            run.finish()

    # ----------------------------------------------------------------------------------------

    def _check(self, instrument: str) -> None:
        """Hand on what waits; raise KeyError for an instrument that the watcher does not have."""
        self._deliver()
        if instrument not in self._delivery.histories:
            raise KeyError(
                f"no instrument {instrument!r}; there are {list(self._delivery.histories)}"
            )

    def _start_of(self, instrument: str) -> Frame[Any]:
        if self._run:
            return self._run.recorder.start_of(instrument)
        nothing: Frame[Any] = Frame(self._delivery.histories[instrument].schema, {})
        return self._left.starts.get(instrument, nothing)

    @property
    def _nothing(self) -> Frame[Any]:
        return Frame(self._delivery.histories[self._main].schema, {})

    def _deliver(self) -> None:
        """Hand on records by step that wait for others to be computed with."""
        if run := self._live:
            run.deliver()
