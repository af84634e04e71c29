"""One run under observation, whatever trains it: when to collect, group, hand on and resume.

A host (`run.host.Host`) calls the methods named after what happens in its loop.  A record that is
due by epoch is made at the end of the epoch's last batch (with activations of validation: at the
end of validation), before anything decides by it.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from uuid import uuid4

from torch import nn

from jaynes_callbacks.instruments.base import Moment
from jaynes_callbacks.interrupts import delayed_interrupts
from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.records.naming import telling_path
from jaynes_callbacks.run.closing import closing_lines
from jaynes_callbacks.run.host import Host
from jaynes_callbacks.schedule import Cadence, Schedule
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.delivery import Delivery

_T = TypeVar("_T")

__all__ = ["IotaFrom", "Listening", "WatchedRun"]

IotaFrom = Literal["train", "validation"]

#: Characters of a run's id in its name.
_ID = 6
#: Records that are fitted together, and the most streams of them: 32 KiB each are kept till then.
_GROUP, _GROUP_STREAMS = 16, 256


@dataclass(frozen=True)
class Listening:
    """To which forwards a run listens.

    Attributes:
        batch_is_due: whether this batch of an epoch is listened to, besides those that records
            need.
        iota_from: whose forwards.

    Raises:
        ValueError: for an unknown `iota_from`.
    """

    batch_is_due: Schedule
    iota_from: IotaFrom = "train"

    def __post_init__(self) -> None:
        if self.iota_from not in get_args(IotaFrom):
            raise ValueError(
                f"iota_from must be one of {get_args(IotaFrom)}, got {self.iota_from!r}"
            )


class WatchedRun:
    """Records of one run, from its first batch to its end, through interruptions.

    Args:
        recorder: of the run's model.
        delivery: where records go; it may hold those of an earlier fit of the same run.
        cadence: when instruments without a cadence of their own are recorded.
        listening: to which forwards.
        dirpath: where sinks write; by default the host's directory.

    Attributes:
        live: whether the fit goes on.
        numbers: the last records' aggregates.
        directory: where the sinks of the main process write.
        outcome: ``running``, ``interrupted`` or ``finished``, as readers of its files are told.
    """

    def __init__(
        self,
        recorder: Recorder,
        delivery: Delivery,
        cadence: Cadence,
        listening: Listening,
        dirpath: Path | None = None,
    ) -> None:
        self.recorder = recorder
        self.live = True
        self.outcome = "running"
        self.numbers: dict[str, float] = {}
        self.directory: Path | None = None
        self._cadences = {
            name: each.cadence or cadence for name, each in recorder.instruments.items()
        }
        self._listening = listening
        self._delivery = delivery
        self._dirpath = dirpath
        self._id = uuid4().hex
        self._recorded: dict[str, int] = {}
        self._published = False
        self._said: set[str] = set()
        self._counted: list[Mapping[str, Moment]] = []
        self._may_wait = True
        self._listeners_of_batch: list[str] = []
        self._step, self._stride, self._epoch = 0, 1, 0
        self._host: Host | None = None

    @property
    def recorded_step(self) -> int | None:
        """Step of the last record, None before the first."""
        return max(self._recorded.values(), default=None)

    @property
    def dataset(self) -> Path | None:
        """The run's dataset, on the main process, once it has a part; None if there is none."""
        # Here, not above: only a dataset needs pandas and pyarrow.
        from jaynes_callbacks.sinks.dataset import dataset_of

        return dataset_of(self._id, self.directory) if self.directory else None

    # What happens in a loop -----------------------------------------------------------------

    def begin(self, host: Host, before: Mapping[str, Any] | None) -> None:
        """Start with the untouched model, or go on from the state of `before`."""
        self._host = host
        self._step, self._stride = host.step, 1
        if before is None:
            self.recorder.begin()
        else:
            self._resume(before)
        schemas = tuple(each.schema for each in self.recorder.instruments.values())
        groups = tuple(f"{each.overview}/" for each in schemas)
        self._may_wait = not self._ask("decides_by", lambda: host.decides_by(groups), True)
        resumed = None if before is None else host.step
        self._delivery.begin(self._id, resumed)
        if not host.is_main:
            return
        self.directory = self._dirpath or self._ask("directory", lambda: host.directory, None)
        self.recorder.run = self._name(before)
        earlier = str(before["directory"]) if before else ""
        context = RunContext(
            run=self.recorder.run,
            directory=self.directory,
            loggers=self._ask("loggers", lambda: tuple(host.loggers), ()),
            resumed_step=resumed,
            resumed_directory=Path(earlier) if earlier else None,
            run_id=self._id,
            describe=partial(self._described, host),
            schemas=schemas,
        )
        self._delivery.open(context)

    def batch_begins(self, batch: int, shown: Callable[[], ShownBatch] | None = None) -> None:
        """Show a training batch, and listen to it if its activations are to be counted.

        Every record gets at least one forward: the first after the record before.  Instruments that
        listen to steps with a record only do so whichever forwards the others listen to.

        Args:
            batch: number of the batch in its epoch.
            shown: returns what the batch holds; called only if an instrument wants to see it.
        """
        if shown is not None and self.recorder.wants_batch:
            self._spare("the batch is not shown", lambda: self.recorder.batch_begins(shown()))
        due = self._due_by_step(self._step, self._step + self._stride)
        names: list[str] = []
        if self._listening.iota_from == "train" and (
            self.recorder.wants_forward or self._listening.batch_is_due(batch) or due
        ):
            names += self._listeners(only_due=False)
        if of_due := self._listeners(only_due=True):
            host = self._of_host()
            due |= self._due_by_epoch(host.epoch + 1) if host.is_last_batch else set()
            if self.recorded_step is None:
                instruments = self.recorder.instruments
                due |= {name for name in of_due if instruments[name].first_forward}
            names += [name for name in of_due if name in due]
        self._listeners_of_batch = names
        self.forward_begins()

    def forward_begins(self) -> None:
        """Listen to one more forward of the present batch, if its first was listened to."""
        if names := self._listeners_of_batch:
            self.recorder.open(one_forward=True, names=names)

    def forward_ends(self) -> None:
        """Cease to listen: what follows in this batch are no forwards but repeated ones."""
        self.recorder.close()

    def before_step(self, parameters: Sequence[nn.Parameter]) -> None:
        """Show gradients to the instruments that are recorded after this step.

        Args:
            parameters: that are about to be updated; their gradients are complete and unscaled, and
                not yet clipped.
        """
        host = self._of_host()
        due = self._due_by_step(self._step, max(self._step + self._stride, host.step + 1))
        if host.is_last_batch:
            due |= self._due_by_epoch(host.epoch + 1)
        if self.recorded_step is None:
            due = set(self.recorder.instruments)
        if due:
            self.recorder.before_step(parameters, due)

    def batch_ends(self) -> None:
        """Make the records that are due; the first, of the untouched model, after one forward."""
        host = self._of_host()
        self.recorder.close()
        before, self._step = self._step, host.step
        self._stride = max(1, self._step - before)
        self._epoch = host.epoch
        if self.recorded_step is None:
            self._record(before, self._epoch, set(self.recorder.instruments))
        self._record_new(self._due_by_step(before, self._step), self._epoch, may_wait=True)
        if host.is_last_batch and self._listening.iota_from == "train":
            self._record_by_epoch(host)
        if not (host.is_last_batch and self._listening.iota_from == "validation"):
            self.recorder.forget()
        self.publish(on_step=True)

    def validation_batch_begins(self, batch: int) -> None:
        """Listen to a validation batch if its activations are to be counted."""
        if self._listening.iota_from == "validation" and self._listening.batch_is_due(batch):
            self.recorder.open(one_forward=True, names=self._listeners(only_due=False))

    def validation_ends(self) -> None:
        """Make the record due by epoch, with validation's activations."""
        host = self._of_host()
        if self._listening.iota_from == "validation" and host.is_last_batch:
            self._record_by_epoch(host)
            self.publish(on_step=False)

    def epoch_ends(self) -> None:
        """Make the record due by epoch, if neither the last batch nor validation has."""
        self._record_by_epoch(self._of_host())
        self.recorder.forget()
        self.publish(on_step=False)

    def training_ends(self) -> None:
        """Record the last state, while the ranks can still speak to each other."""
        self._record_new(set(self.recorder.instruments), self._epoch)
        self.outcome = "finished"

    def finish(self) -> None:
        """Let go of the model and let the sinks finish."""
        if self.live:
            with delayed_interrupts():
                self.live = False
                self.recorder.detach()
            self.deliver()
            names = self.recorder.instruments
            self._delivery.close({name: self.recorder.start_of(name) for name in names})
            self._spare("the end of the run is not told", self._say_end)

    # Recording ------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Compute what has been counted, all at once, and hand the records on."""
        moments, self._counted = self._counted, []
        if not moments:
            return
        try:
            self._hand_on(self.recorder.summarise(moments))
        except Exception:
            # One by one, so that what cannot be computed costs no other record.
            for moment in moments:
                for name, each in moment.items():
                    self._spare(
                        "no equilibrium record",
                        lambda name=name, each=each: self._hand_on(  # type: ignore[misc]
                            self.recorder.summarise([{name: each}])
                        ),
                    )

    def publish(self, *, on_step: bool) -> None:
        """Make new aggregates known to what decides by them; sinks log them."""
        if self._published or not self.numbers:
            return
        self._published = True
        host = self._of_host()
        self._spare(
            "aggregates are not logged", lambda: host.publish(self.numbers, on_step=on_step)
        )

    def _record(
        self, step: int, epoch: int, names: Collection[str], *, may_wait: bool = False
    ) -> None:
        """Make one record on every rank; a failure to measure is said and spares the training.

        Args:
            step: of the record.
            epoch: likewise.
            names: of the instruments that are recorded.
            may_wait: it need not be computed and handed on before others have been counted too.
        """
        first = self.recorded_step is None
        self._recorded |= dict.fromkeys(names, step)
        self._spare(
            "no equilibrium record",
            lambda: self._counted.append(self.recorder.count(step, epoch, names)),
        )
        if first or not (may_wait and self._may_wait) or self._is_full():
            self.deliver()
        host = self._of_host()
        if first and host.is_main:
            self._spare(
                "the coverage is not told",
                lambda: host.say(f"jaynes_callbacks: {self.recorder.coverage}"),
            )

    def _record_new(self, names: Collection[str], epoch: int, *, may_wait: bool = False) -> None:
        """Record the instruments that have no record of this step, once there is a first one."""
        step = self._of_host().step
        new = [name for name in names if self._recorded.get(name, step) != step]
        if new:
            self._record(step, epoch, new, may_wait=may_wait)
        elif not may_wait:
            self.deliver()

    def _record_by_epoch(self, host: Host) -> None:
        if due := self._due_by_epoch(host.epoch + 1):
            self._record_new(due, host.epoch)

    def _listeners(self, *, only_due: bool) -> list[str]:
        """Return the instruments that listen to due steps only, or the others, in their order."""
        instruments = self.recorder.instruments.items()
        return [name for name, each in instruments if each.only_due_forwards == only_due]

    def _due_by_step(self, before: int, now: int) -> set[str]:
        return {name for name, each in self._cadences.items() if each.step_is_due(before, now)}

    def _due_by_epoch(self, epochs: int) -> set[str]:
        return {name for name, each in self._cadences.items() if each.epoch_is_due(epochs)}

    def _is_full(self) -> bool:
        """Tell by the number of streams alone: an interrupted run groups as any other does."""
        streams = max(
            (len(moment.state) for each in self._counted for moment in each.values()), default=1
        )
        return len(self._counted) >= max(1, min(_GROUP, _GROUP_STREAMS // max(1, streams)))

    def _hand_on(self, finished: Sequence[Mapping[str, Any]]) -> None:
        for frames in finished:
            for name, frame in frames.items():
                self._delivery.take(name, frame)
                self.numbers |= frame.schema.aggregate(frame) if len(frame) else {}
        self._published = False

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: CPU tensors and builtins; nothing before a record."""
        self.deliver()
        if self.recorded_step is None:
            return {}
        return {
            "recorder": self.recorder.state_dict(),
            "recorded_step": self.recorded_step,
            "recorded": dict(self._recorded),
            "stride": self._stride,
            "numbers": dict(self.numbers),
            "directory": str(self.directory or ""),
            "name": self.recorder.run,
            "id": self._id,
        }

    def _resume(self, before: Mapping[str, Any]) -> None:
        self.recorder.load_state_dict(before["recorder"])
        known = dict.fromkeys(self.recorder.instruments, before["recorded_step"])
        self._recorded = {**known, **before.get("recorded", {})}
        self._stride = before.get("stride", 1)
        self._id, self.numbers = before["id"], dict(before["numbers"])

    # ----------------------------------------------------------------------------------------

    def _name(self, before: Mapping[str, Any] | None) -> str:
        """Return the run's name, which no other run has, and which a resumed run keeps."""
        if self.directory is None:
            return ""
        if before is not None:
            # Checkpoints of version 0.1 hold no name: it was that of the folder.
            return str(before.get("name") or self.directory.name)
        return f"{telling_path(self.directory.absolute())}-{self._id[:_ID]}"

    def _say_end(self) -> None:
        """Say what was found and where it is, once, on the main process."""
        host, main = self._host, next(iter(self.recorder.instruments))
        if host is None or not host.is_main or self.recorded_step is None:
            return
        end = self._delivery.ends.get(main, self.recorder.start_of(main))
        lines = closing_lines(end, self.dataset, finished=self.outcome == "finished")
        host.say("\n".join(f"jaynes_callbacks: {line}" for line in lines))

    def _described(self, host: Host) -> dict[str, Any]:
        return self.recorder.describe({"outcome": self.outcome, **host.describe()})

    def _of_host(self) -> Host:
        if self._host is None:
            raise RuntimeError("the run has not begun: call begin(host, ...) first")
        return self._host

    def _ask(self, what: str, ask: Callable[[], _T], otherwise: _T) -> _T:
        """Return what a host answers; `otherwise`, with a warning, if it fails to."""
        answers = [otherwise]
        self._spare(f"no {what} from the trainer", lambda: answers.append(ask()))
        return answers[-1]

    def _spare(self, what: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            if what not in self._said:
                warnings.warn(
                    f"{what}: {type(error).__name__}: {error}; training goes on", stacklevel=2
                )
            self._said.add(what)
