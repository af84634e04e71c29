"""The Hugging Face Trainer as a host: its settings, its state, and its other callbacks.

Nothing here imports transformers.
"""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["EVALUATION", "HuggingFaceHost"]

#: The Trainer looks for metrics under this prefix, also for those that are named without it.
EVALUATION = "eval_"
_HYPERPARAMETERS = (
    "learning_rate",
    "per_device_train_batch_size",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "seed",
)
_CHOICES = ("optim", "lr_scheduler_type")


class HuggingFaceHost:
    """A Hugging Face Trainer, as a run sees it.

    Args:
        args: the Trainer's settings.
        state: the Trainer's state.
        dataloader: of the training, which may have no length.
        callbacks: of the Trainer, of which some hold trackers.

    Attributes:
        epoch: the present epoch, counted from 0.
        batch: the present batch of the epoch, counted from 0: as in other hosts one forward and
            backward, of which the Trainer accumulates several for a step.
    """

    def __init__(self, args: Any, state: Any, dataloader: Any, callbacks: Sequence[Any]) -> None:
        self._args, self._state, self._callbacks = args, state, callbacks
        self._batches = _length(dataloader)
        done = float(state.epoch or 0)
        self.epoch, self.batch = math.floor(done), 0
        if self._batches is not None and not args.ignore_data_skip:
            self.batch = round((done - self.epoch) * self._batches)

    @property
    def step(self) -> int:
        """Optimizer steps that are complete."""
        return int(self._state.global_step)

    @property
    def is_last_batch(self) -> bool:
        """True if the present batch is the last of its epoch; False where nobody can know."""
        return self._batches is not None and self.batch + 1 == self._batches

    @property
    def is_main(self) -> bool:
        """True in the process of rank 0."""
        return bool(self._state.is_world_process_zero)

    @property
    def is_alone(self) -> bool:
        """True if there is one process only."""
        return int(self._args.world_size) == 1

    @property
    def directory(self) -> Path | None:
        """The Trainer's output directory."""
        return Path(self._args.output_dir)

    @property
    def loggers(self) -> Sequence[Any]:
        """The trackers to which the Trainer reports, as they are."""
        found = (_tracker_of(each) for each in self._callbacks)
        return tuple(tracker for tracker in found if tracker is not None)

    def decides_by(self, groups: tuple[str, ...]) -> bool:
        """Tell whether the best model is chosen by a number of ours, or hyperparameters may be."""
        metric = str(self._args.metric_for_best_model or "")
        ours = metric.removeprefix(EVALUATION).startswith(groups)
        return ours or bool(self._state.is_hyper_param_search)

    def describe(self) -> Mapping[str, Any]:
        """Return settings of the training, under the names that they have in other hosts too."""
        args = self._args
        precision = next((name for name in ("bf16", "fp16") if getattr(args, name)), "fp32")
        numbers = {name: getattr(args, name, None) for name in _HYPERPARAMETERS}
        choices = {name: _value(getattr(args, name, None)) for name in _CHOICES}
        return {
            "trainer": {
                "max_epochs": args.num_train_epochs,
                "max_steps": args.max_steps,
                "precision": precision,
                "world_size": args.world_size,
                "accumulate_grad_batches": args.gradient_accumulation_steps,
            },
            "hyperparameters": numbers | choices,
        }

    def publish(self, numbers: Mapping[str, float], *, on_step: bool) -> None:
        """Do nothing: the callback adds them to the metrics of an evaluation."""

    def say(self, text: str) -> None:
        """Show a message above the progress bar, unless transformers is told to say errors only."""
        log = logging.getLogger("transformers.jaynes_callbacks")
        if log.isEnabledFor(logging.INFO):
            log.info("%s", text)
        elif log.isEnabledFor(logging.WARNING):
            from tqdm import tqdm  # a dependency of transformers

            tqdm.write(text, file=sys.stderr)


def _length(dataloader: Any) -> int | None:
    """Return the number of batches of an epoch; None for a stream of unknown length."""
    try:
        return len(dataloader)
    except (TypeError, NotImplementedError):
        return None


def _value(choice: Any) -> Any:
    """Return what an enumeration's member stands for."""
    return getattr(choice, "value", choice)


def _tracker_of(callback: Any) -> Any:
    """Return the writer or the run to which a callback of transformers reports; None if none.

    The packages are loaded already where there is such a callback.
    """
    kinds = {kind.__name__ for kind in type(callback).__mro__}
    if "TensorBoardCallback" in kinds:
        return callback.tb_writer
    if "WandbCallback" in kinds:
        return getattr(sys.modules.get("wandb"), "run", None)
    if "MLflowCallback" in kinds and (mlflow := sys.modules.get("mlflow")) is not None:
        return mlflow.active_run()
    if "TrackioCallback" in kinds and (module := sys.modules.get("trackio.context_vars")):
        return module.current_run.get()
    return None
