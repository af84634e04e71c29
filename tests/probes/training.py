"""Runs on several ranks whose arithmetic is exact, so that one process over the same data agrees.

Small integers and powers of two in double precision: no sum rounds, whatever its order.  The loss
is a sum and linear in the output; data-parallel ranks average its gradients, so it is multiplied by
their number.
"""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.sinks.dataset import DatasetSink

#: Rows of each batch over all ranks; the last one is uneven, for two ranks and for four.
BATCHES = (8, 8, 5)


class Exact(L.LightningModule):
    """Seven hidden neurons, which two ranks cannot share evenly.

    Args:
        branching: rank 0 and rank 1 go through a ReLU of their own, other ranks through none.
        breaking: rank 1 raises in its second step.
    """

    def __init__(self, *, branching: bool = False, breaking: bool = False) -> None:
        super().__init__()
        self.branching, self.breaking = branching, breaking
        self.even, self.odd = nn.ReLU(), nn.ReLU()

    def configure_model(self) -> None:
        """Here, not above: what is made before a launch may lie in memory that ranks share."""
        source = torch.Generator().manual_seed(5)
        self.first = nn.Linear(32, 7, bias=False)
        self.last = nn.Linear(7, 32, bias=False)
        for layer in (self.first, self.last):
            whole = torch.randint(-4, 5, layer.weight.shape, generator=source)
            layer.weight = nn.Parameter(whole.double() / 4)

    def forward(self, batch: Tensor) -> Tensor:
        rank, size = _place()
        hidden = self.first(batch.tensor_split(size)[rank])
        if not self.branching:
            hidden = self.even(hidden)
        elif rank < 2:
            hidden = (self.odd if rank else self.even)(hidden)
        return self.last(hidden).sum() * size / 64

    def training_step(self, batch: Tensor) -> Tensor:
        if self.breaking and self.global_step == 1 and _place()[0] == 1:
            raise OSError("broken on rank 1")
        return self(batch)

    def validation_step(self, batch: Tensor) -> None:
        self(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.25)


class Sharded(Exact):
    """The same under FSDP2."""

    def configure_model(self) -> None:
        super().configure_model()
        for module in (self.first, self.last, self):
            fully_shard(module, mesh=self.device_mesh["data_parallel"])


def _place() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def data() -> DataLoader[Any]:
    """The same batches on every rank; each step takes its own part."""
    source = torch.Generator().manual_seed(6)
    batches = [torch.randint(-2, 3, (rows, 32), generator=source).double() for rows in BATCHES]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def train(
    path: Path,
    model: L.LightningModule,
    *,
    watch: dict[str, Any] | None = None,
    ckpt_path: Path | None = None,
    **options: Any,
) -> L.Trainer:
    """Fit under watch; what is written goes below `path`, a directory for each rank."""
    arguments = {"every_n_steps": 1, "iota_every_n_batches": 1, **(watch or {})}
    monitor = EquilibriumMonitor(sinks=[DatasetSink()], **arguments)
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=path / str(_place()[0]),
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 1, **options},
    )
    trainer.fit(model, data(), data(), ckpt_path=ckpt_path)
    return trainer


def history(trainer: L.Trainer) -> pd.DataFrame:
    """What the trainer's monitor remembers on this rank; the run has a name on rank 0 only."""
    (monitor,) = (each for each in trainer.callbacks if isinstance(each, EquilibriumMonitor))
    return monitor.history.drop(columns="run")


def dataset(path: Path, rank: int = 0) -> pd.DataFrame:
    """What a rank wrote, but for the name of the run, which no two runs share."""
    return pd.read_parquet(path / str(rank) / "jaynes").drop(columns="run")


if __name__ == "__main__":
    path, *options = sys.argv[1:]
    train(Path(path), Exact(breaking="breaking" in options), devices=2, strategy="ddp")
