"""What watching costs: time of a training run with the monitor over the same run without it.

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
STEPS_PER_EPOCH = 150
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


def fit(build: Callable[[], nn.Module], callbacks: list[L.Callback]) -> tuple[float, Tensor]:
    """Seconds per step of one seeded run, and its final weights."""
    L.seed_everything(1, verbose=False)
    batches = [(torch.randn(128, 784), torch.randint(10, (128,))) for _ in range(STEPS_PER_EPOCH)]
    task = Task(build)
    with tempfile.TemporaryDirectory() as directory:
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            callbacks=callbacks,
            logger=False,
            default_root_dir=directory,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = time.perf_counter()
        trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
    weights = torch.cat([parameter.detach().flatten() for parameter in task.parameters()])
    return seconds / (EPOCHS * STEPS_PER_EPOCH), weights


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
        every_step, every_spread = paired_ratio(
            build, lambda: [EquilibriumMonitor(every_n_steps=1)]
        )
        noise, noise_spread = paired_ratio(build, list)
        print(
            f"{build.__name__}: time with the monitor / without: defaults {defaults:.3f} "
            f"± {spread:.3f}, a record every step {every_step:.3f} ± {every_spread:.3f} "
            f"(no monitor at all: {noise:.3f} ± {noise_spread:.3f}; median of {PAIRS} pairs of "
            f"{EPOCHS} x {STEPS_PER_EPOCH} steps)"
        )


if __name__ == "__main__":
    main()
