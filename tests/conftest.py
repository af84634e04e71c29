"""Shared by all tests: shapes and types are checked at run time, one thread a worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import lightning as L
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# Before the first import of the package: beartype checks every annotation of these from here on.
# Not of what torch.compile traces: the sources and the counting.
install_import_hook(
    [f"jaynes_callbacks.{part}" for part in ("counts.grid", "statistics", "instruments.summary")],
    "beartype.beartype",
)

torch.set_num_threads(1)
# Tests share their cores: how long one example takes says nothing.  The same examples every time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def generator() -> torch.Generator:
    """A private source of random numbers, so that tests do not share a global state."""
    return torch.Generator().manual_seed(20240517)


class SmallTask(L.LightningModule):
    """A network with dropout, batch norm, a module ReLU and a functional one."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(16, width)
        self.norm = nn.BatchNorm1d(width)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(width, 4)
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.drop(self.act(self.norm(self.first(x))))))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.losses.append(float(nn.functional.cross_entropy(self(batch[0]), batch[1])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.fixture
def task() -> SmallTask:
    """A fresh seeded network."""
    torch.manual_seed(7)
    return SmallTask()


@pytest.fixture
def loader() -> DataLoader[Any]:
    """96 random samples in six shuffled batches."""
    source = torch.Generator().manual_seed(3)
    data = TensorDataset(
        torch.randn(96, 16, generator=source), torch.randint(4, (96,), generator=source)
    )
    return DataLoader(data, 16, shuffle=True)


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Trainers that say and show nothing and write below the test's own directory."""

    def make(*callbacks: L.Callback, **changes: Any) -> L.Trainer:
        options: dict[str, Any] = {
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "default_root_dir": tmp_path,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 1,
        }
        return L.Trainer(callbacks=list(callbacks), **{**options, **changes})

    return make
