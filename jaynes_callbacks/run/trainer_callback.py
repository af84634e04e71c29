"""The hooks of the callback that a Hugging Face Trainer is given.

Nothing here imports transformers.  The Trainer has no event between forward and backward: a forward
begins with the forward-pre hook of the module that the Trainer calls, and ends with its forward
hook, so that neither what activation checkpointing repeats in the backward pass nor evaluation is
listened to.  Hooks are on that module from the beginning of a step to its end.
"""

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.run.arguments import DESCRIPTION, Arguments, accepts
from jaynes_callbacks.run.huggingface import EVALUATION, HuggingFaceHost
from jaynes_callbacks.run.optimizers import parameters_of
from jaynes_callbacks.run.roots import ListenedForward, Root, hook_forwards, roots_of
from jaynes_callbacks.run.run import WatchedRun
from jaynes_callbacks.run.surroundings import Surroundings, surroundings_of
from jaynes_callbacks.run.watcher import Watcher

__all__ = ["TrainerWatch", "state_file"]


class TrainerWatch(Watcher):  # noqa: D101
    __doc__: str | None = f"""Watches whether training drives a network to arbitrage equilibrium.

    Give it to a Trainer: ``Trainer(..., callbacks=[EquilibriumCallback()])``.  Records how the
    magnitudes of the weights and the activations are distributed: the untouched network first (step
    0), then at every epoch.  The watched run is the unwatched run, to the bit.

    {DESCRIPTION}

    A batch is one forward and backward, of which ``gradient_accumulation_steps`` make a step.
    `dirpath` is by default ``output_dir``; `iota_from` can only be ``train``.  Each checkpoint has
    the state of this callback in its folder, as ``jaynes.pt``, from which
    ``resume_from_checkpoint`` goes on.  The last record's aggregates are among the metrics of every
    evaluation, as ``eval_equilibrium/...``, for ``metric_for_best_model`` and
    ``EarlyStoppingCallback``; where neither of these uses them, they may be up to 16 records by
    step old.  Gradients are shown as the optimizer gets them: after clipping.

    Raises:
        ValueError: at construction for arguments out of range; at the start of ``train`` for
            patterns that match nothing, or a `min_size` above every layer.
    """

    @accepts(Arguments)
    def __init__(self, arguments: Arguments) -> None:
        if arguments.iota_from != "train":
            raise ValueError(
                "iota_from must be 'train' under the Hugging Face Trainer, "
                f"got {arguments.iota_from!r}"
            )
        super().__init__(arguments)
        self._host: HuggingFaceHost | None = None
        self._roots: tuple[Root, ...] = ()
        self._handles: list[Any] = []
        self._forward: ListenedForward | None = None
        self._file = state_file(0)
        self._has_begun = self._was_called = False

    # Life cycle -----------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the streams; a wrong argument raises here."""
        self._interrupt()
        around = surroundings_of(self)
        watches = [each for each in around.callbacks if isinstance(each, TrainerWatch)]
        self._file = state_file(next((i for i, each in enumerate(watches) if each is self), 0))
        around.put_first(self)
        roots = roots_of(kwargs["model"] if around.called is None else around.called)
        self._roots = roots.roots
        self._has_begun = self._was_called = False
        self._host = HuggingFaceHost(args, state, kwargs["train_dataloader"], around.callbacks)
        if state.global_step > 0:
            self._load(around, args, state)
        self._attach(roots.whole)
        if self._run is not None:
            around.when_left(partial(self._left_amid, self._run))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the run, now that every other callback has set up its tracker."""
        if (host := self._host) and self._live and not self._has_begun:
            self._has_begun = True
            self._begin(host)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the forwards of this step."""
        if self._live and not self._handles:
            self._handles = hook_forwards(self._roots, self._forward_begins, self._forward_ends)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End a batch whose gradients are accumulated; the first record may be due."""
        self._batch_ends(is_step=False)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the gradients: of all batches of the step, unscaled, and clipped by the Trainer."""
        self._forward_ends()
        if (run := self._live) and (optimizer := kwargs.get("optimizer")) is not None:
            run.before_step(parameters_of(optimizer))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the records that are due."""
        self._unhook()
        self._batch_ends(is_step=True)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make the record due by epoch, if the last batch has not; the last one where it ends."""
        self._unhook()
        if (run := self._live) and (host := self._host) and self._has_begun:
            run.epoch_ends()
            host.epoch, host.batch = host.epoch + 1, 0
            self._record_last_if(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the last computed record's aggregates to the metrics of the evaluation."""
        if (run := self._live) and (metrics := kwargs.get("metrics")) is not None:
            metrics.update({f"{EVALUATION}{tag}": number for tag, number in run.numbers.items()})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the state of the run beside the checkpoint that has just been written."""
        if not self._live:
            return
        saved = self.state_dict()
        folder = _checkpoint(args, state)
        if args.should_save and saved and folder.is_dir():
            try:
                put(folder / self._file, partial(torch.save, saved))
            except OSError as error:
                warnings.warn(
                    f"{folder} lacks {self._file}, so a run resumed from it begins its records "
                    f"anew: {error}; training goes on",
                    stacklevel=2,
                )
        self._record_last_if(control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the last state, let go of the model and let the sinks finish.

        Where the Trainer has loaded the best model, the last state is gone; it was recorded at the
        end of the epoch.
        """
        if run := self._live:
            if args.load_best_model_at_end and state.best_model_checkpoint:
                run.outcome = "finished"
            elif self._has_begun:
                run.training_ends()
            self._finish()

    # Forwards -------------------------------------------------------------------------------

    def _forward_begins(self, module: nn.Module, shown: Callable[[], ShownBatch]) -> None:
        """Begin a batch with the first forward in training mode, or go on with one."""
        if (run := self._live) is None or (host := self._host) is None:
            return
        self._forward_ends()  # Of one that was interrupted.
        first = partial(run.batch_begins, host.batch, shown)
        begin = run.forward_begins if self._was_called else first
        self._was_called = True
        self._forward = ListenedForward(module, begin, run.forward_ends)

    def _forward_ends(self) -> None:
        if self._forward is not None:
            self._forward.end()
            self._forward = None

    def _batch_ends(self, *, is_step: bool) -> None:
        """Make the records that are due.

        Args:
            is_step: an optimizer step has been made.  Where several ranks train, the first record
                waits for that: ranks may have different numbers of batches before it, and a record
                is a collective.
        """
        self._forward_ends()
        self._was_called = False
        if (run := self._live) and (host := self._host):
            if is_step or host.is_alone or run.recorded_step is not None:
                run.batch_ends()
            host.batch += 1

    # The end --------------------------------------------------------------------------------

    def _record_last_if(self, control: Any) -> None:
        """Record the last state if training stops, before the best model may be loaded."""
        if control.should_training_stop and (run := self._live) and self._has_begun:
            run.training_ends()

    def _left_amid(self, run: WatchedRun) -> None:
        """Take a run for interrupted whose loop was left without its end."""
        if self._run is run:
            self._interrupt()

    def _interrupt(self) -> None:
        if run := self._live:
            run.outcome = "interrupted"
        self._finish()

    def _finish(self) -> None:
        self._unhook()
        self._roots = ()
        super()._finish()

    def _unhook(self) -> None:
        self._forward_ends()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # Resuming and copying -------------------------------------------------------------------

    def _load(self, around: Surroundings, args: Any, state: Any) -> None:
        """Read the state beside the checkpoint that is resumed, if there is one."""
        path = (around.checkpoint or _checkpoint(args, state)) / self._file
        if not path.is_file():
            return
        try:
            self.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            warnings.warn(
                f"records begin anew, for {path} cannot be read: {error}; training goes on",
                stacklevel=2,
            )

    def __getstate__(self) -> dict[str, Any]:
        """Copy what was recorded, but no hold on the Trainer."""
        own: dict[str, Any] = {"_host": None, "_roots": (), "_handles": [], "_forward": None}
        return {**super().__getstate__(), **own}


def state_file(place: int) -> str:
    """Return the name of the file beside a checkpoint.

    Args:
        place: of the callback among several of its kind that one Trainer has.
    """
    return "jaynes.pt" if place == 0 else f"jaynes-{place}.pt"


def _checkpoint(args: Any, state: Any) -> Path:
    """Return the folder of the checkpoint of the present step."""
    return Path(args.output_dir, f"checkpoint-{state.global_step}")
