"""What others cost at the same cadence: histograms of weights and activations, and ours with fits.

Each watches the same network in the same loop, ten times an epoch, and writes to TensorBoard (W&B:
to an offline run); the loop without a watcher takes turns with it (see `turns`).  Others record
histograms alone, W&B without activations but with gradients; ours all fits too.

    python benchmarks/bench_rivals.py
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from turns import STEPS_PER_EPOCH, cnn, mlp, pair, quiet, summary

from jaynes_callbacks import EquilibriumMonitor

PAIRS = 3
RECORDS = 10
EVERY = STEPS_PER_EPOCH // RECORDS


def ours() -> L.Callback:
    """The monitor with all its sinks."""
    return EquilibriumMonitor(
        every_n_epochs=None, every_n_steps=EVERY, iota_every_n_batches=STEPS_PER_EPOCH
    )


class AddHistogram(L.Callback):
    """As one would write it: `add_histogram` of every weight and every ReLU's output."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hooks that keep the outputs while a record is due."""
        self._outputs: dict[str, Tensor] = {}
        self._due = False
        for name, module in pl_module.named_modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._due:
            self._outputs[name] = output.detach()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Whether this batch is recorded."""
        self._due = trainer.global_step % EVERY == 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Write."""
        if not self._due:
            return
        assert trainer.logger is not None
        writer = trainer.logger.experiment  # type: ignore[attr-defined]
        weights = {n: p.detach() for n, p in pl_module.named_parameters() if p.dim() > 1}
        for name, values in {**weights, **self._outputs}.items():
            writer.add_histogram(name, values, trainer.global_step)
        self._outputs.clear()


class WandbWatch(L.Callback):
    """`wandb.watch(log="all")` of an offline run."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a run."""
        import wandb

        os.environ["WANDB_SILENT"] = "true"
        self._run = wandb.init(mode="offline", dir=tempfile.mkdtemp(), project="bench")
        self._run.watch(pl_module, log="all", log_freq=EVERY)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """What was watched goes out with the next row that is logged."""
        if trainer.global_step % EVERY == 1:
            self._run.log({"step": trainer.global_step})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the run; not timed."""
        self._run.finish()


class TorchLensWatch(L.Callback):
    """`torchlens.watch` of parameters and of the ReLUs' outputs."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach."""
        from torchlens.observability import WatchSettings
        from torchlens.trackers import TensorBoardSink, watch

        assert trainer.logger is not None
        names = [n for n, m in pl_module.named_modules() if isinstance(m, nn.ReLU)]
        weights = [n for n, p in pl_module.named_parameters() if p.dim() > 1]
        self._session = watch(
            pl_module,
            to=TensorBoardSink(trainer.logger.experiment),  # type: ignore[attr-defined]
            signals=("parameters", "activations"),
            select=names + weights,
            optimizer=trainer.optimizers[0],
            step=lambda: trainer.global_step,
            every=EVERY,
            hist_every=EVERY,
            example_input=torch.zeros(1, 784),
            settings=WatchSettings(ram_policy="drop_oldest"),
        )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Detach; not timed."""
        self._session.close()


WATCHERS: dict[str, Callable[[], L.Callback]] = {
    "jaynes_callbacks, with all fits": ours,
    "TensorBoard add_histogram": AddHistogram,
    'wandb.watch(log="all")': WandbWatch,
    "TorchLens watch": TorchLensWatch,
}


def main() -> None:
    """Print a table per model."""
    quiet()
    print(
        f"time with a watcher over time without, {RECORDS} records in {STEPS_PER_EPOCH} batches, "
        f"median of {PAIRS} pairs; what a record costs, in batches"
    )
    for build in (mlp, cnn):
        print(build.__name__)
        ours_costs = 0.0
        for name, watcher in WATCHERS.items():
            pairs = [pair(build, watcher) for _ in range(PAIRS)]
            extra = statistics.median(each.ratio for each in pairs) - 1
            costs = extra * STEPS_PER_EPOCH / RECORDS
            ours_costs = ours_costs or costs
            print(
                f"  {name:32} {summary(pairs)}  {costs:5.1f} batches  "
                f"{costs / ours_costs:4.1f} times ours",
                flush=True,
            )


if __name__ == "__main__":
    main()
