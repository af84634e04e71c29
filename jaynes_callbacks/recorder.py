"""Recorder: instruments on a plain PyTorch model, no trainer needed."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import nn

from jaynes_callbacks.instruments import DEFAULT, made
from jaynes_callbacks.instruments.base import Instrument, Moment, State
from jaynes_callbacks.instruments.computing import compute_all
from jaynes_callbacks.instruments.magnitudes import IOTA_VALUES_PER_CALL
from jaynes_callbacks.instruments.packing import pack_frame, unpack_frame
from jaynes_callbacks.instruments.ranks import RankReduction
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.probes.parameters import one_moment, weight_names
from jaynes_callbacks.probes.selection import MIN_SIZE, Coverage, Selection, shorten
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import IOTA, WEIGHT, Stream, in_order
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.description import describe_run

if TYPE_CHECKING:
    import pandas as pd

    from jaynes_callbacks.sinks.delivery import Delivery

__all__ = ["IOTA_VALUES_PER_CALL", "MIN_SIZE", "Recorder"]

#: What each instrument collected at one moment, by its name.
Moments = Mapping[str, Moment]


class Recorder:
    """Records a model's state by one or more instruments.

    As a context manager it takes the model as it is for the start (step 0), and watches every
    forward; `snapshot` then returns one record per stream: by default the magnitudes of the weights
    as they are, and of the activations counted since the last snapshot.  `history` has all records
    as a data frame.

    Args:
        model: any module.
        instruments: what is measured: names (`jaynes_callbacks.instruments.KNOWN`), ``"all"``
            for every one of them, or objects.
        kinds: of the streams of magnitudes: ``weight``, ``iota`` or both.
        include: glob patterns on stream names; only matching streams are watched.
        exclude: glob patterns on stream names that are not watched.
        min_size: weights with fewer elements are skipped.
        activations: modules that are activations as a whole, where a function is written out by
            hand: glob patterns on their names, or a mapping of such patterns to what is recorded,
            e.g. ``{"*.act": "gelu", "*.softcap": None}``.  ``"z*y"`` (by default) or the name of a
            function is the pre-activation times the output, ``"y"`` or ``"relu"`` the output, and
            None leaves the module out.  Classes of transformers and timm are known.
        iota_values_per_call: most values counted of one activation call.
        iota_groups: groups of samples for the standard error of an iota's gap: what is counted
            between one `open` and the next goes into the next group, and each group is left out
            once (jackknife).  32 KiB per stream and group.  0: values count as independent.  By
            default eight groups where one sample gives several values of a neuron, else 0.
        paper_bins: number of equal bins of the paper's protocol for weights.
        dirpath: folder in which the records are written as a dataset, ``dirpath / "jaynes"``, as a
            trainer's run writes them (on rank 0); by default none is.
        run: name of the run in the records; by default the name of that folder.

    Raises:
        ValueError: for an unknown instrument or kind, a negative size or a single group; at
            `attach` for a pattern that can match nothing, or if no stream is left to watch.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU())
        >>> with Recorder(model) as recorder:
        ...     _ = model(torch.randn(64, 8))
        ...     records = recorder.snapshot(step=100)
        >>> [(record.kind, record.name) for record in records]
        [('weight', '0.weight'), ('iota', '1')]
        >>> recorder.history[["step", "kind", "name"]].values.tolist()
        [[0, 'weight', '0.weight'], [100, 'weight', '0.weight'], [100, 'iota', '1']]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        instruments: Sequence[str | Instrument[Any]] | str | Instrument[Any] = DEFAULT,
        kinds: Sequence[str] | str = (WEIGHT, IOTA),
        include: Sequence[str] | str = "*",
        exclude: Sequence[str] | str = (),
        min_size: int = MIN_SIZE,
        activations: Mapping[str, str | None] | Sequence[str] | str = (),
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        iota_groups: int | None = None,
        paper_bins: int = PAPER_BINS,
        dirpath: str | Path | None = None,
        run: str = "",
    ) -> None:
        of_magnitudes = {
            "iota_values_per_call": iota_values_per_call,
            "iota_groups": iota_groups,
            "paper_bins": paper_bins,
        }
        self.model = model
        self.selection = Selection.of(kinds, include, exclude, min_size, activations)
        self.directory = None if dirpath is None else Path(dirpath)
        self.run = run or (self.directory.name if self.directory else "")
        self.instruments = {
            each.name: each for each in made(instruments, {"magnitudes": of_magnitudes})
        }
        self._ranks = RankReduction(
            {name: each.quantities for name, each in self.instruments.items()}
        )
        self._has_listened = self._has_said_unmatched = False
        self._failed: set[str] = set()
        self._resumed: dict[str, Mapping[str, Any]] = {}
        self._attached = self._is_begun = False
        self._id = uuid4().hex
        self._resumed_step: int | None = None
        self._is_open = False
        self.outcome = "running"

    def __repr__(self) -> str:
        (first, *_) = self.instruments
        told = [f"{', '.join(self.instruments)} of {type(self.model).__name__}"]
        told.append(self._delivery.summary(first))
        told += [f"dataset in {self.directory}"] if self.directory else []
        return f"<Recorder: {'; '.join(told)}>"

    @cached_property
    def _delivery(self) -> "Delivery":
        """The history, and the dataset if there is a folder for it."""
        # Here, not above: whoever only counts needs no pyarrow, nor whoever hands on by himself.
        from jaynes_callbacks.sinks.dataset import DatasetSink
        from jaynes_callbacks.sinks.delivery import Delivery

        schemas = {name: each.schema for name, each in self.instruments.items()}
        return Delivery([] if self.directory is None else [DatasetSink()], schemas)

    # Attaching ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.attach()
        if not any(each.start or each.has_untouched for each in self.instruments.values()):
            self.begin()
            self._is_begun = False
            for each in self.instruments.values():
                if not each.has_untouched:
                    each.take_untouched()
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()
        self.outcome = "finished" if kind is None else "interrupted"
        if self._is_open:
            self._delivery.close({name: self.start_of(name) for name in self.instruments})

    def attach(self) -> None:
        """Let every instrument find what it watches; wrong arguments raise here."""
        modules = [name for name, _ in self.model.named_modules()]
        self.selection.check(weight_names(self.model), modules)
        with one_moment():
            for instrument in self.instruments.values():
                instrument.attach(self.model, self.selection)
        self._attached = True
        self._resume()

    def detach(self) -> None:
        """Take every hook off."""
        for name in self.instruments:
            self._spare(name, lambda instrument: instrument.detach())

    def begin(self) -> None:
        """Take the model as it is now for the start: the record of step 0.

        A context manager begins by itself.  The snapshot of step 0 (without a step: the next one)
        shows this state even if the model was updated in between; where the first snapshot is of a
        later step, the start is recorded besides.
        """
        self._is_begun = True
        with one_moment():
            for name in self.instruments:
                self._spare(name, lambda instrument: instrument.begin())

    def open(self, *, one_forward: bool = False, names: Collection[str] | None = None) -> None:
        """Listen to the forwards that follow.

        Args:
            one_forward: take all until `close` as one forward, however many modules are called.
            names: of the instruments that listen; all by default.
        """
        self._has_listened = True
        for name in self.instruments if names is None else names:
            self._spare(name, lambda instrument: instrument.open(one_forward=one_forward))

    def close(self) -> None:
        """Cease to listen to forwards, until the next `open`; the model is free of hooks."""
        for name in self.instruments:
            self._spare(name, lambda instrument: instrument.close())

    @property
    def wants_batch(self) -> bool:
        """True if an instrument must be shown the next batch of training."""
        return any(each.wants_batch for each in self.instruments.values())

    def batch_begins(self, batch: ShownBatch) -> None:
        """Show a batch of training, which the model has not seen yet, to instruments that want it.

        Args:
            batch: inputs and labels.
        """
        for name, each in self.instruments.items():
            if each.wants_batch:
                self._spare(name, lambda instrument: instrument.batch_begins(batch))

    def before_step(
        self, parameters: Sequence[nn.Parameter], names: Collection[str] | None = None
    ) -> None:
        """Show gradients to instruments: complete, unscaled, before clipping and the update.

        Args:
            parameters: that are about to be updated.
            names: of the instruments that are recorded after this step; all by default.
        """
        for name in self.instruments if names is None else names:
            self._spare(name, lambda instrument: instrument.before_step(parameters))

    def forget(self) -> None:
        """Let instruments go of gradients that were shown for a record that is not made."""
        for name in self.instruments:
            self._spare(name, lambda instrument: instrument.forget())

    @property
    def wants_forward(self) -> bool:
        """True if an instrument has listened to no forward since its last record.

        Those that listen to forwards of due steps only never keep the others listening.
        """
        every = self.instruments.values()
        return any(each.wants_forward for each in every if not each.only_due_forwards)

    # What is watched ------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams known so far, on any rank; activations appear with their first forward."""
        known = {
            stream.key: stream
            for name, instrument in self.instruments.items()
            for stream in (
                *instrument.coverage.watched,
                *(slot.stream for slot in self._ranks.agreed[name]),
            )
        }
        order = in_order(stream.kind for stream in known.values())
        return tuple(sorted(known.values(), key=lambda stream: order.index(stream.kind)))

    @property
    def start(self) -> Frame[Any]:
        """The first record of each stream of the first instrument, with its counts."""
        return self.start_of(next(iter(self.instruments)))

    def start_of(self, name: str) -> Frame[Any]:
        """Return the first record of each stream of an instrument, with its counts."""
        instrument = self.instruments[name]
        return _frame_of(instrument, instrument.start.values())

    @property
    def coverage(self) -> Coverage:
        """The streams that are watched and what is not, with the reasons."""
        each = [instrument.coverage for instrument in self.instruments.values()]
        skipped = dict.fromkeys(skipped for coverage in each for skipped in coverage.skipped)
        notes = [coverage.note for coverage in each if coverage.note]
        return Coverage(self.streams, tuple(skipped), "; ".join(notes))

    # Recording ------------------------------------------------------------------------------

    @property
    def history(self) -> "pd.DataFrame":
        """One row per (step, stream) of the first instrument, without the counts."""
        return self.history_of(next(iter(self.instruments)))

    def history_of(self, instrument: str) -> "pd.DataFrame":
        """Return the history of any of the instruments, by its name."""
        return self._delivery.histories[instrument].frame().to_pandas()

    @property
    def records(self) -> Frame[Any]:
        """The same as `Records`; the first and the last of each stream have their counts."""
        return self.records_of(next(iter(self.instruments)))

    def records_of(self, instrument: str) -> Frame[Any]:
        """Return the records of any of the instruments, by its name."""
        return self._delivery.records_of(instrument, self.start_of(instrument))

    def snapshot(self, step: int | None = None, epoch: int = 0) -> Frame[Any]:
        """Return the first instrument's record; `record` returns those of all.

        With magnitudes a record has the weights as they are and the activations since the last
        snapshot; streams that saw no forward since then are left out.  Under `torch.distributed`
        the ranks' states are reduced, so every rank must call this.

        Args:
            step: optimizer steps that are complete, as it shall stand in the records; by default
                one more than the last record's, and 0 for the first (1 if a context manager has
                taken the start).
            epoch: epoch, likewise.

        Raises:
            RuntimeError: if collecting failed on another rank; none then has a record of this step.
        """
        first = next(iter(self.instruments))
        return self.record(step, epoch)[first]

    def record(self, step: int | None = None, epoch: int = 0) -> dict[str, Frame[Any]]:
        """Return the record of every instrument by its name; see `snapshot`."""
        if step is None and self._is_begun:
            step = 0
        self._is_begun = False
        untouched = {} if step == 0 else self._take_untouched()
        moments = [self._moments(untouched, {}, 0, 0)] if untouched else []
        if step is None:
            step = max([*self._last_steps, 0 if untouched else -1]) + 1
        moments.append(self.count(step, epoch))
        self._open_files()
        records = self.summarise(moments)
        for frames in records:
            for name, frame in frames.items():
                self._delivery.take(name, frame)
        return records[-1]

    def count(
        self, step: int = 0, epoch: int = 0, names: Collection[str] | None = None
    ) -> dict[str, Moment]:
        """Collect what a record is made of; `summarise` makes the records of many at once.

        Under `torch.distributed` the ranks' states are reduced, so every rank must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.
            names: of the instruments that are recorded; all by default.

        Raises:
            RuntimeError: if collecting failed on another rank; none then has a record of this step.
        """
        chosen = [name for name in self.instruments if names is None or name in names]
        own: dict[str, State | None] = {}
        errors: dict[str, Exception] = {}
        with one_moment():
            for name in chosen:
                try:
                    own[name] = self.instruments[name].collect_once()
                except Exception as error:
                    own[name], errors[name] = None, error
        return self._moments(own, errors, step, epoch)

    def _moments(
        self,
        own: Mapping[str, State | None],
        errors: Mapping[str, Exception],
        step: int,
        epoch: int,
    ) -> dict[str, Moment]:
        """Reduce this rank's states with those of the others.

        Args:
            own: the states, by instrument; None for one that failed.
            errors: why.
            step: of the record.
            epoch: likewise.
        """
        states, elsewhere = self._ranks.reduce(own, _device(self.model))
        errors = {**elsewhere, **errors}
        if errors and not states:
            raise next(iter(errors.values()))
        for name, failure in errors.items():
            self._say_failed(name, failure)
        self._say_unmatched()
        return {name: Moment(state, self.run, step, epoch) for name, state in states.items()}

    def summarise(self, moments: Sequence[Moments]) -> list[dict[str, Frame[Any]]]:
        """Compute the records of some moments, in their order, for each instrument in one batch.

        Args:
            moments: from `count`, in the order in which they were counted.
        """
        finished: list[dict[str, Frame[Any]]] = [{} for _ in moments]
        places = {
            name: [place for place, each in enumerate(moments) if name in each]
            for name in self.instruments
        }
        chosen = {
            name: [moments[place][name] for place in own] for name, own in places.items() if own
        }
        for name, frames in self._computed(chosen).items():
            instrument = self.instruments[name]
            for place, frame in zip(places[name], frames, strict=True):
                finished[place][name] = frame
                instrument.start = {**frame.by_stream(), **instrument.start}
        return finished

    def _computed(self, moments: Mapping[str, Sequence[Moment]]) -> dict[str, list[Frame[Any]]]:
        """Let instruments compute their moments; laws are fitted for all of them in one batch.

        Raises:
            Exception: what kept the instruments from computing, if none could.
        """
        found, errors = compute_all(self.instruments, moments)
        if errors and not found:
            raise next(iter(errors.values()))
        for name, error in errors.items():
            self._say_failed(name, error)
        return found

    def _take_untouched(self) -> dict[str, State]:
        """Return what instruments hold of the untouched model since `begin`, if anything."""
        states = {name: each.take_untouched() for name, each in self.instruments.items()}
        return {name: state for name, state in states.items() if state is not None}

    @property
    def _last_steps(self) -> list[int]:
        return [history.last_step for history in self._delivery.histories.values()]

    def _spare(self, name: str, act: Callable[[Instrument[Any]], None]) -> None:
        """Let an instrument act; what goes wrong is said and spares the training."""
        try:
            act(self.instruments[name])
        except Exception as error:
            self._say_failed(name, error)

    def _say_failed(self, name: str, error: Exception) -> None:
        """Say once of each instrument that it failed."""
        if name not in self._failed:
            self._failed.add(name)
            warnings.warn(
                f"no record by the instrument {name}: {type(error).__name__}: {error}; all else "
                "goes on",
                stacklevel=4,
            )

    def _say_unmatched(self) -> None:
        """Say after the first forward, when all streams are known, which patterns match none."""
        if not self._has_listened or self._has_said_unmatched:
            return
        self._has_said_unmatched = True
        names = [stream.name for stream in self.streams]
        if unmatched := self.selection.unmatched(names):
            warnings.warn(
                f"include patterns {unmatched} match no stream; there are {shorten(names)}",
                stacklevel=3,
            )

    # Files ----------------------------------------------------------------------------------

    def describe(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return what readers of the run's files want to know: builtins by name."""
        return describe_run(self.run, self.model, self.coverage, list(self.instruments), more)

    def _open_files(self) -> None:
        """Open the dataset at the first record; a resumed run goes on with its own."""
        if self._is_open:
            return
        self._is_open = True
        self._delivery.begin(self._id, self._resumed_step)
        if self.directory is None or (dist.is_initialized() and dist.get_rank() > 0):
            return
        self._delivery.open(
            RunContext(
                run=self.run,
                directory=self.directory,
                resumed_step=self._resumed_step,
                run_id=self._id,
                describe=lambda: self.describe({"outcome": self.outcome}),
                schemas=tuple(each.schema for each in self.instruments.values()),
            )
        )

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on: CPU tensors and builtins only."""
        return {
            "instruments": {
                name: {"start": pack_frame(self.start_of(name)), **each.state_dict()}
                for name, each in self.instruments.items()
            },
            "run": {"id": self._id, "step": max(self._last_steps)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, or from that of version 0.1.

        The state of an instrument that there is no more is dropped; a new one begins here.
        """
        # Version 0.1 had magnitudes only, and their state stood where now the instruments' do.
        states = state.get("instruments", {"magnitudes": state})
        for name, instrument in self.instruments.items():
            if name in states:
                instrument.start = unpack_frame(
                    states[name]["start"], instrument.schema
                ).by_stream()
                instrument.take_untouched()
                self._resumed[name] = states[name]
        if (run := state.get("run")) and run["step"] >= 0:
            self._id, self._resumed_step, self._is_open = run["id"], run["step"], False
        if self._attached:
            self._resume()

    def _resume(self) -> None:
        """Hand the states on to the instruments, which take them once they are attached."""
        resumed, self._resumed = self._resumed, {}
        for name, state in resumed.items():
            self.instruments[name].load_state_dict(state)


def _frame_of(instrument: Instrument[Any], rows: Iterable[Any]) -> Frame[Any]:
    """Make a frame of some rows, of the class that the instrument's frames have."""
    frame = Frame.from_rows(instrument.schema, rows)
    return Records(frame) if instrument.schema.main else frame


def _device(model: nn.Module) -> torch.device:
    """Return where states are reduced: with the model, on the same type of device on all ranks."""
    devices = (parameter.device for parameter in model.parameters() if not parameter.is_meta)
    return next(devices, torch.device("cpu"))
