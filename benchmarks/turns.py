"""Two Trainers side by side, of which one is watched: what the watching costs.

They take turns, batch by batch, in two threads of which one always waits, so that whatever
disturbs the machine disturbs both alike; on one core each, for two pools of workers would disturb
each other.  A turn is all that the Trainer does from one batch to the next, records included; what
is drawn after training is not.  The answer is asserted too: both end with weights that are equal to
the bit.
"""

import logging
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

#: MNIST at batches of 128.
STEPS_PER_EPOCH, BATCH = 469, 128
EPOCHS = 1


def quiet() -> None:
    """One core, and nothing from Lightning but errors."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)


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

    def forward(self, images: Tensor) -> Tensor:
        """The network's."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy of one batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at its defaults."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Turns:
    """Lets two runs work in turn; each hands over before every batch and at its end."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._turn = 0
        self._ended = [False, False]

    def hand_over(self, own: int, *, ended: bool = False) -> None:
        """Let the other run work until it hands over; at the end, do not come back."""
        with self._change:
            self._ended[own] = ended
            self._turn = own if self._ended[1 - own] else 1 - own
            self._change.notify_all()
            if not ended:
                self._change.wait_for(lambda: self._turn == own)


class Clock(L.Callback):
    """Seconds of a run's own turns, from its first batch to its last record."""

    def __init__(self, turns: Turns, own: int) -> None:
        self.seconds = 0.0
        self._turns, self._own = turns, own
        self._since: float | None = None

    def on_train_batch_start(self, *_: object) -> None:
        """Stop, let the other run work, go on."""
        self._stop()
        self._turns.hand_over(self._own)
        self._since = time.perf_counter()

    def on_fit_end(self, *_: object) -> None:
        """Stop, after the last record; what others close and draw from here on is not timed."""
        self.end()

    def end(self) -> None:
        """Stop and let the other run work until its own end."""
        self._stop()
        self._turns.hand_over(self._own, ended=True)

    def _stop(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None


class Run(threading.Thread):
    """One Trainer and its task in a thread of their own."""

    def __init__(
        self, build: Callable[[], nn.Module], clock: Clock, callbacks: Sequence[L.Callback]
    ) -> None:
        super().__init__()
        L.seed_everything(1, verbose=False)
        self.task, self.clock, self._callbacks = Task(build), clock, callbacks
        self.done = False
        self._batches = [
            (torch.randn(BATCH, 784), torch.randint(10, (BATCH,))) for _ in range(STEPS_PER_EPOCH)
        ]

    def run(self) -> None:
        """Fit; whatever happens, the other run is not left waiting."""
        try:
            self._fit()
            self.done = True
        finally:
            self.clock.end()

    def _fit(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            trainer = L.Trainer(
                accelerator="cpu",
                max_epochs=EPOCHS,
                # Before the others: a turn begins and ends with it.
                callbacks=[self.clock, *self._callbacks],
                logger=TensorBoardLogger(directory),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            data = torch.utils.data.DataLoader(self._batches, batch_size=None)  # type: ignore[arg-type]
            trainer.fit(self.task, data)

    def weights(self) -> Tensor:
        """All parameters in one row."""
        return torch.cat([part.detach().flatten() for part in self.task.parameters()])


class Pair(NamedTuple):
    """Seconds of two runs that took turns."""

    watched: float
    alone: float

    @property
    def ratio(self) -> float:
        """Of the watched one to the other."""
        return self.watched / self.alone


def pair(build: Callable[[], nn.Module], watcher: Callable[[], L.Callback] | None = None) -> Pair:
    """Train the same network twice, turn by turn, once with a watcher."""
    turns = Turns()
    callbacks = [watcher()] if watcher else []
    runs = [Run(build, Clock(turns, 0), callbacks), Run(build, Clock(turns, 1), [])]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    if not all(run.done for run in runs):
        raise RuntimeError("a run did not come to its end; its error stands above")
    if not torch.equal(*(run.weights() for run in runs)):
        raise AssertionError("the watched run ended with other weights than the unwatched one")
    return Pair(runs[0].clock.seconds, runs[1].clock.seconds)


def summary(pairs: Sequence[Pair]) -> str:
    """Median and half the interquartile range of their ratios."""
    ratios = [pair.ratio for pair in pairs]
    quarter, _, three_quarters = statistics.quantiles(ratios, n=4)
    return f"{statistics.median(ratios):.3f} ± {(three_quarters - quarter) / 2:.3f}"
