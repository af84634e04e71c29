"""What watching costs: time of the training loop with the monitor over the same without it.

The loop is timed from its first batch to its last, records included; what is drawn after training
is not.

Runs come in pairs, one after the other, so that a noisy machine disturbs both; the figure is the
median of the paired ratios, its noise the same figure of two runs without a monitor.  The answer
is asserted too: after each pair the weights are equal to the bit.

    python benchmarks/bench_overhead.py
"""

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor, nn

from jaynes_callbacks import EquilibriumMonitor

PAIRS = 5
STEPS_PER_EPOCH = 200
EPOCHS = 2


def mlp() -> nn.Module:
    """784-1024-1024-10, the MNIST classic."""
    return nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def cnn() -> nn.Module:
    """Three convolutions on 1×28×28."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class Task(L.LightningModule):
    """Any network, random images, AdamW."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.net = build()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy of one batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at its defaults."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Clock(L.Callback):
    """Seconds from the first batch to the end of the last epoch; stands after all others."""

    seconds = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the time so far."""
        self.seconds = time.perf_counter() - self.start


def fit(build: Callable[[], nn.Module], callbacks: list[L.Callback]) -> tuple[float, Tensor]:
    """Seconds of one seeded run's loop, and its final weights."""
    L.seed_everything(1, verbose=False)
    batches = [(torch.randn(128, 784), torch.randint(10, (128,))) for _ in range(STEPS_PER_EPOCH)]
    task, clock = Task(build), Clock()
    with tempfile.TemporaryDirectory() as directory:
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            callbacks=[*callbacks, clock],
            logger=False,
            default_root_dir=directory,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    weights = torch.cat([parameter.detach().flatten() for parameter in task.parameters()])
    return clock.seconds, weights


def paired_ratio(
    build: Callable[[], nn.Module], callbacks: Callable[[], list[L.Callback]]
) -> tuple[float, float]:
    """Median and half the interquartile range of the paired ratios."""
    ratios = []
    for pair in range(PAIRS):
        if pair % 2:
            without, plain = fit(build, [])
            watched, weights = fit(build, callbacks())
        else:
            watched, weights = fit(build, callbacks())
            without, plain = fit(build, [])
        if not torch.equal(plain, weights):
            raise AssertionError("the watched run ended with other weights than the unwatched one")
        ratios.append(watched / without)
    quarter, _, three_quarters = statistics.quantiles(ratios, n=4)
    return statistics.median(ratios), (three_quarters - quarter) / 2


def main() -> None:
    """Print one line per model."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(2)
    for build in (mlp, cnn):
        fit(build, [])  # warm up
        defaults, spread = paired_ratio(build, lambda: [EquilibriumMonitor()])
        noise, noise_spread = paired_ratio(build, list)
        print(
            f"{build.__name__}: with the monitor at its defaults / without: {defaults:.3f} ± "
            f"{spread:.3f}; without / without: {noise:.3f} ± {noise_spread:.3f} (median and half "
            f"the interquartile range of {PAIRS} pairs; {EPOCHS} epochs of {STEPS_PER_EPOCH} steps)"
        )


if __name__ == "__main__":
    main()
