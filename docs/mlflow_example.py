"""Train a small network with MLflow; the argument is the address of a store or of a server.

python docs/mlflow_example.py sqlite:///mlflow.db
"""

import sys

import lightning as L
import torch
from lightning.pytorch.loggers import MLFlowLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from jaynes_callbacks import EquilibriumMonitor


class Task(L.LightningModule):
    """Random classes of random points."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    L.seed_everything(0)
    points = TensorDataset(torch.randn(512, 64), torch.randint(10, (512,)))
    logger = MLFlowLogger("equilibrium", tracking_uri=sys.argv[1])
    trainer = L.Trainer(max_epochs=3, logger=logger, callbacks=[EquilibriumMonitor()])
    trainer.fit(Task(), DataLoader(points, 32))
