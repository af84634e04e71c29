"""Any loop with a torch optimizer as a host: what happens in it is told by hooks of torch.

Steps are told by the optimizers' own hooks.  A *batch* begins with a forward of the model in
training mode and ends when a step is complete, or when the next one begins (gradient accumulation);
several parts of a model that are called one after the other share a batch.
"""

import atexit
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from jaynes_callbacks.instruments.base import Instrument
from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.probes.selection import Coverage
from jaynes_callbacks.run.arguments import DESCRIPTION, Arguments, accepts
from jaynes_callbacks.run.loop_host import LoopHost, is_distributed
from jaynes_callbacks.run.optimizers import (
    Optimizers,
    Rounds,
    closure_of,
    has_scaled_gradients,
    optimizers_of,
    parameters_of,
)
from jaynes_callbacks.run.roots import ListenedForward, Models, hook_forwards, roots_of
from jaynes_callbacks.run.watcher import Watcher
from jaynes_callbacks.schedule import Schedule, log_spaced
from jaynes_callbacks.sinks.trackers import active_trackers, tracker_of, trackers_of

__all__ = ["LoopArguments", "LoopWatch", "watch"]

_IN_CLOSURE = "no gradients are shown, for the optimizer's closure computes them"
_SCALED = "gradients are multiplied by the loss scale: call scaler.unscale_ before scaler.step"
_UNSEEN = "no forward of the model was seen: compile it first, and give watch what the loop calls"


@dataclass(frozen=True, kw_only=True)
class LoopArguments(Arguments):
    """What a user of a loop chooses besides `Arguments`.

    Attributes:
        every_n_steps: as of `Arguments`; by default ten steps between 1 and 10, between 10 and 100,
            and so on, for nobody knows how long a loop will be.
        loggers: where curves go: one or several of what `sinks.trackers.tracker_of` recognises,
            such as a ``SummaryWriter``, a run of W&B, trackio or MLflow, or an object with
            ``log_metrics``; ``()`` for none; None for the runs of these trackers that are active.
        step: of several optimizers, the place or the name of the one whose steps count; None to
            count as `jaynes_callbacks.run.optimizers.Rounds` does.

    Raises:
        ValueError: for activations of validation, which a loop cannot tell from others.
        TypeError: for a tracker that cannot log.
    """

    every_n_steps: int | Schedule | None = field(default_factory=log_spaced)
    loggers: Any = None
    step: int | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iota_from != "train":
            raise ValueError(f"iota_from must be 'train' in a loop, got {self.iota_from!r}")
        if self.loggers is not None:
            trackers_of(_listed(self.loggers))


class LoopWatch(Watcher):
    """What `watch` returns: records of a model that a loop of one's own trains.

    It lives as long as the optimizers, and can be forgotten: when they are gone, or when Python
    ends, it is closed.  `close` and the end of a ``with`` block do so at once.  Where several ranks
    train, only those two record the last state, since it takes a collective.

    Args:
        models: a module, or a sequence or mapping of modules, as the loop calls them.
        optimizers: one, or a sequence or mapping.
        arguments: of the user.
    """

    def __init__(self, models: Models, optimizers: Optimizers, arguments: LoopArguments) -> None:
        super().__init__(arguments)
        named = optimizers_of(optimizers)
        roots = roots_of(models)
        self._loggers, self._notes = arguments.loggers, dict[str, None]()
        self._rounds = Rounds(named, arguments.step)
        self._host = LoopHost([type(each).__name__ for each in named.values()])
        self._batch, self._called = 0, set[nn.Module]()
        self._has_begun = self._has_seen_forward = self._is_stepping = False
        self._forward: ListenedForward | None = None
        self._error_before = id(_last_error())
        self._attach(roots.whole)
        self._handles = [
            *hook_forwards(roots.roots, self._forward_begins, self._forward_ends),
            *_hook_steps(named, self),
        ]
        _alive.add(self)

    # What a user reads and calls --------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, float]:
        """The last record's aggregates by their tags, e.g. ``equilibrium/weight/gap_median``."""
        self._deliver()
        return dict(self._run.numbers) if self._run else {}

    @property
    def coverage(self) -> Coverage:
        """The streams that are watched and what is not, with the reasons."""
        found = super().coverage
        notes = [found.note, *self._notes]
        if self._host.step and not self._has_seen_forward:
            notes.append(_UNSEEN)
        return replace(found, note="; ".join(note for note in notes if note))

    def epoch_ends(self) -> None:
        """Say that an epoch has ended, on every rank: records are made that are due by epoch.

        A loop that never says so has records by step only.
        """
        if run := self._live:
            self._begin_once()
            self._end_step_in_progress()
            self._end_batch()
            run.epoch_ends()
            self._host.epoch += 1
            self._batch = 0

    def close(self) -> None:
        """Record the last state, let go of model and optimizers, and let the sinks finish.

        Every rank must call it.
        """
        if (run := self._live) and self._has_begun:
            self._end_step_in_progress()
            run.training_ends()
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._interrupt()

    def __del__(self) -> None:
        # Nothing is left to do for one that was closed: Python may be taking its modules apart.
        if vars(self).get("_handles"):
            self._end_unasked()

    # Resuming ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed loop needs to go on: CPU tensors and builtins only."""
        return {
            "run": super().state_dict(),
            "step": self._host.step,
            "epoch": self._host.epoch,
            "batch": self._batch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`; before the first forward.

        Raises:
            RuntimeError: once the run has begun.
        """
        if self._has_begun:
            raise RuntimeError("load the state of a watch before the model's first forward")
        super().load_state_dict(state_dict["run"])
        self._host.step, self._host.epoch = state_dict["step"], state_dict["epoch"]
        self._batch = state_dict["batch"]

    def __getstate__(self) -> dict[str, Any]:
        """Copy what was recorded, but no hold on the loop."""
        host = replace(self._host, loggers=())
        own = {"_host": host, "_loggers": (), "_handles": [], "_called": set(), "_forward": None}
        return {**super().__getstate__(), **own}

    # What hooks call --------------------------------------------------------------------------

    def _forward_begins(self, module: nn.Module, shown: Callable[[], ShownBatch]) -> None:
        """Begin a batch with the forward of a root, or go on with one."""
        if (run := self._live) is None:
            return
        self._begin_once()
        self._has_seen_forward = True
        if self._forward is not None and self._forward.is_open:
            if self._forward.module is not module:
                return  # A part that another part calls.
            self._forward_ends()  # Left by an interruption.
        if module in self._called:
            if self._is_stepping:
                return  # The closure is evaluated again.
            if not self._rounds.has_begun:
                self._end_batch()
        first = partial(run.batch_begins, self._batch, shown)
        begin = run.forward_begins if self._called else first
        self._called.add(module)
        self._forward = ListenedForward(module, begin, run.forward_ends)

    def _step_begins(self, name: int | str, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Show an optimizer's gradients."""
        if (run := self._live) is None:
            return
        self._begin_once()
        self._forward_ends()
        if self._rounds.is_complete_before(name):
            self._end_step()
        self._is_stepping = True
        if closure_of(args, kwargs) is not None:
            self._note(_IN_CLOSURE)
            return
        if has_scaled_gradients(optimizer):
            self._note(_SCALED)
        run.before_step(parameters_of(optimizer))

    def _step_ends(self, name: int | str, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Count the step if it is complete, and make the records that are due."""
        self._is_stepping = False
        if self._live and self._rounds.is_complete_after(name):
            self._end_step()

    # ------------------------------------------------------------------------------------------

    def _begin_once(self) -> None:
        """Begin the run at the first sign of training; only then the model is as it starts."""
        if self._has_begun:
            return
        self._has_begun = True
        given = self._loggers
        self._host.loggers = active_trackers() if given is None else _listed(given)
        if earlier := self._resumed.get("directory"):
            self._host.folder = Path(earlier)
        self._begin(self._host)

    def _end_step(self) -> None:
        self._rounds.begin()
        self._host.step += 1
        self._end_batch(complete=True)

    def _end_step_in_progress(self) -> None:
        """Count a step that not every optimizer has made, since no more are coming."""
        if self._rounds.has_begun and self._rounds.counts_all:
            self._end_step()

    def _end_batch(self, *, complete: bool = False) -> None:
        """Make the records that are due.

        Args:
            complete: a step has just been counted.  On several ranks the first record waits for
                that: ranks may have different numbers of forwards before it, and a record is a
                collective.
        """
        self._forward_ends()
        if self._called:
            self._called.clear()
            self._batch += 1
        if (run := self._live) and (
            complete or run.recorded_step is not None or not is_distributed()
        ):
            run.batch_ends()

    def _forward_ends(self) -> None:
        if self._forward is not None:
            self._forward.end()
            self._forward = None

    def _note(self, text: str) -> None:
        """Note in the coverage what concerns instruments that read gradients."""
        instruments = self._run.recorder.instruments.values() if self._run else ()
        if any(type(each).before_step is not Instrument.before_step for each in instruments):
            self._notes[text] = None

    def _interrupt(self) -> None:
        if run := self._live:
            run.outcome = "interrupted"
        self._finish()

    def _end_unasked(self) -> None:
        """Close when nobody has: the optimizers are gone, or Python ends."""
        if id(_last_error()) != self._error_before:
            self._interrupt()
        elif is_distributed() and dist.get_world_size() > 1:
            self._finish()
        else:
            self.close()

    def _finish(self) -> None:
        self._forward_ends()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        _alive.discard(self)
        super()._finish()


def _hook_steps(named: Mapping[int | str, Optimizer], watch: LoopWatch) -> list[RemovableHandle]:
    """Register hooks that hold the watch as long as the optimizers live."""
    handles = []
    for name, optimizer in named.items():
        handles.append(optimizer.register_step_pre_hook(partial(watch._step_begins, name)))
        handles.append(optimizer.register_step_post_hook(partial(watch._step_ends, name)))
    return handles


def _last_error() -> BaseException | None:
    """Return the exception that ended the program, or in a notebook the last cell that had one."""
    return getattr(sys, "last_value", None)


#: Watches that nobody has closed.
_alive: "weakref.WeakSet[LoopWatch]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for watch in list(_alive):
        watch._end_unasked()


@accepts(LoopArguments)
def watch(model: Models, optimizer: Optimizers, arguments: LoopArguments) -> LoopWatch:  # noqa: D103
    return LoopWatch(model, optimizer, arguments)


watch.__doc__ = f"""Record a model that a loop of your own trains with a torch optimizer.

    One line before the loop is enough: records are made by hooks of the optimizer and of the model,
    of the untouched model first (step 0), then at log-spaced steps or as you say.  The watched run
    is the unwatched run, to the bit.

    A step is a step of the optimizer, however many forwards are accumulated for it.  Activations
    are counted in forwards of `model` in training mode with gradients; evaluation, and what
    activation checkpointing repeats, are left out.

    Args:
        model: the module that the loop calls, DDP or compiled as it may be; of a model in parts a
            sequence, or a mapping by name, of modules.
        optimizer: a torch optimizer, also within Accelerate's wrapper; or a sequence, or a mapping
            by name, of optimizers.
        {DESCRIPTION}
        loggers: where curves go: one or several of ``SummaryWriter``, W&B runs, and objects with
            ``log_metrics(metrics, step)``; ``()`` for none; by default the W&B run that is active
            when training begins.
        step: of several optimizers, the place or the name of the one whose steps count; by default
            a step is complete when each has stepped, or when one of them is about to step again.

    Unlike elsewhere, `every_n_steps` is ``log_spaced()`` by default; `every_n_epochs` matters only
    to loops that call ``epoch_ends()``; `dirpath` is by default the folder of the
    ``SummaryWriter``, else a new one in ``jaynes_runs``; `iota_from` can only be ``train``.
    Gradients are shown as the optimizer gets them, so after clipping.

    Returns:
        A handle with ``history``, ``records``, ``numbers``, ``report()``, ``close()``,
        ``state_dict()`` and ``load_state_dict()``; it is a context manager too.

    Raises:
        ValueError: for arguments out of range, patterns that match nothing, or a `min_size` above
            every layer.
        TypeError: for what is no module, optimizer, instrument, sink or tracker.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU())
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with watch(model, optimizer, every_n_steps=2, sinks=[]) as watched:
        ...     for _ in range(4):
        ...         optimizer.zero_grad()
        ...         model(torch.randn(8, 16)).square().mean().backward()
        ...         optimizer.step()
        >>> watched.history.step.unique().tolist()
        [0, 2, 4]
    """


def _listed(loggers: Any) -> list[Any]:
    """Return one logger or several as a list; an MLflow client with a run's id is one."""
    several = isinstance(loggers, list | tuple) and tracker_of(loggers) is None
    return list(loggers) if several else [loggers]
