"""Show one progress bar for a whole run."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["RunBar"]


class RunBar(ProgressBar):
    """A single line over all epochs, with the time that is left and a few numbers.

    Lightning's own bars start again at every epoch; on small data that is many times a second.
    The bar goes to the standard error, and where that is no terminal only its end is written.

    Args:
        show: label of each logged metric to show, by the metric's name; metrics that a run does
            not log are left out.
        console: where to draw.
    """

    def __init__(
        self, show: Mapping[str, str] | None = None, *, console: Console | None = None
    ) -> None:
        super().__init__()
        self._show = dict(show or {})
        self._console = console or Console(stderr=True)
        self._enabled = True
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Draw nothing: Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Draw again."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the empty bar."""
        super().on_train_start(trainer, pl_module)
        epochs = trainer.max_epochs or 0
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
            disable=not self._enabled,
        )
        self._task = self._progress.add_task(
            "",
            total=epochs if epochs > 0 else None,
            completed=trainer.current_epoch,
            numbers="",
        )
        self._progress.start()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance the bar by one batch."""
        if self._progress:
            share = (batch_idx + 1) / trainer.num_training_batches
            self._progress.update(self._task, completed=trainer.current_epoch + share)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the epoch's numbers."""
        self._show_numbers(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the last state on the screen."""
        self._show_numbers(trainer)
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Restore the terminal and its cursor."""
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a text above the bar."""
        self._console.print(*args)

    def _show_numbers(self, trainer: L.Trainer) -> None:
        if self._progress:
            logged = trainer.callback_metrics
            shown = [(label, logged[name]) for name, label in self._show.items() if name in logged]
            numbers = "  ".join(f"{label} {value:.3f}" for label, value in shown)
            self._progress.update(self._task, numbers=numbers)

    def _stop(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None
