"""Monitor: Lightning's callback under no Lightning's base class.

One body serves `lightning` and `pytorch_lightning`; nothing here imports either.
"""

from functools import partial
from typing import Any

from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.run.arguments import DESCRIPTION, Arguments, accepts
from jaynes_callbacks.run.lightning import LightningHost
from jaynes_callbacks.run.watcher import Watcher

__all__ = ["Monitor"]


class Monitor(Watcher):  # noqa: D101
    __doc__: str | None = f"""Watches whether training drives a network to arbitrage equilibrium.

    Records how the magnitudes of the weights and the activations are distributed: the untouched
    network first (step 0), then at every epoch.  Each record holds the lognormal's gap in nats, its
    rivals' gaps, the theory's quantities and the paper's own figures.  The watched run is the
    unwatched run, to the bit.

    Args:
        {DESCRIPTION}

    Raises:
        ValueError: at construction for arguments out of range; at the start of ``fit`` for
            patterns that match nothing, or a `min_size` above every layer.
    """

    @accepts(Arguments)
    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)

    @property
    def state_key(self) -> str:
        """Tells the states of several monitors in one checkpoint apart; alike in all processes."""
        return f"EquilibriumMonitor({self._arguments.key})"

    # Life cycle -----------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the streams; a wrong argument raises here."""
        self._attach(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the model as the start, or go on where a checkpoint or an earlier fit left off.

        Only here has the trainer restored its step.
        """
        self._begin(LightningHost(trainer, pl_module))

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show this batch, and listen to it if its activations are to be counted."""
        if run := self._live:
            run.batch_begins(batch_idx, partial(ShownBatch.of_batch, batch))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Cease to listen: in this batch follow no forwards but repeated ones.

        With manual optimization there may be more, for another optimizer.
        """
        if (run := self._live) and pl_module.automatic_optimization:
            run.forward_ends()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Show the gradients: Lightning has unscaled them, and clips after this hook."""
        if run := self._live:
            groups = optimizer.param_groups
            run.before_step([parameter for group in groups for parameter in group["params"]])

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Make the records that are due."""
        if run := self._live:
            run.batch_ends()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Listen to validation if its activations are to be counted."""
        if (run := self._live) and not trainer.sanity_checking:
            run.validation_batch_begins(batch_idx)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Cease to listen."""
        if run := self._live:
            run.forward_ends()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the record due by epoch, with validation's activations."""
        if (run := self._live) and not trainer.sanity_checking:
            run.validation_ends()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the record due by epoch, if neither the last batch nor validation has."""
        if run := self._live:
            run.epoch_ends()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the final record: in `on_fit_end` the process group may already be destroyed."""
        if run := self._live:
            run.training_ends()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of the model and let the sinks finish."""
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the model; what was recorded is kept."""
        if run := self._live:
            run.outcome = "interrupted"
        self._finish()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the model, however the fit ended."""
        self._finish()
