"""An ordinary project of someone else's, run without and with one more callback."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from jaynes_callbacks import EquilibriumMonitor

OURS = re.compile(r"(equilibrium|scales|gap_\w+|q_\w+|core_gap_\w+|scale_share_\w+)/|jaynes")


# The project --------------------------------------------------------------------------------------


class Shapes(Dataset[tuple[Tensor, int]]):
    """Noisy squares and crosses; training draws flips and noise from the global state."""

    def __init__(self, samples: int, augment: bool) -> None:
        source = torch.Generator().manual_seed(samples)
        self.labels = torch.randint(2, (samples,), generator=source)
        self.images = torch.randn(samples, 3, 12, 12, generator=source) / 2
        self.images[self.labels == 0, :, 3:9, 3:9] += 1
        self.images[self.labels == 1, :, 5:7, :] += 1
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.augment:
            image = image.flip(-1) if torch.rand(()) < 0.5 else image
            image = image + 0.1 * torch.randn_like(image)
        return image, int(self.labels[index])


class BasicBlock(nn.Module):
    """As torchvision writes it: one in-place ReLU, applied twice."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample: nn.Module | None = None
        if stride != 1 or inplanes != planes:
            shortcut = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(width, width))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, stride=2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(2 * width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.avgpool(self.layer2(self.layer1(x))).flatten(1)
        return self.fc(self.dropout(x))


class Project(L.LightningModule):
    def __init__(self, compiled: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.net = compiled(ResNet())

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        logits = self.net(batch[0])
        accuracy = (logits.argmax(-1) == batch[1]).float().mean()
        self.log("val/loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val/accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


# Two runs of it -----------------------------------------------------------------------------------


class Ran(NamedTuple):
    weights: dict[str, Tensor]
    checkpoint: dict[str, Any]
    curves: pd.DataFrame
    tags: dict[str, list[tuple[int, float]]]
    metrics: dict[str, float]
    draws: Tensor
    said: list[str]
    graphs: int


class Counting:
    """A backend of torch.compile that counts the graphs it is given."""

    def __init__(self, backend: str) -> None:
        self.backend, self.graphs = backend, 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs += 1
        return torch._dynamo.lookup_backend(self.backend)(graph, inputs)


def run(place: Path, backend: str, *appended: L.Callback) -> Ran:
    torch._dynamo.reset()
    counting = Counting(backend)
    L.seed_everything(5, verbose=False)
    task = Project(lambda net: torch.compile(net, backend=counting))
    saving = ModelCheckpoint(place / "ckpt", monitor="val/accuracy", mode="max", save_last=True)
    csv, board = CSVLogger(place, "csv"), TensorBoardLogger(place, "tb")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=3,
            gradient_clip_val=1.0,
            logger=[csv, board],
            log_every_n_steps=1,
            callbacks=[
                LearningRateMonitor(),
                EarlyStopping("val/loss", patience=5),
                saving,
                EMAWeightAveraging(decay=0.9),
                *appended,
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        train = DataLoader(Shapes(64, augment=True), 16, shuffle=True, drop_last=True)
        trainer.fit(task, train, DataLoader(Shapes(32, augment=False), 16))
    tags = EventAccumulator(board.log_dir, size_guidance={"scalars": 0}).Reload()
    return Ran(
        task.state_dict(),
        torch.load(saving.last_model_path, weights_only=True),
        pd.read_csv(Path(csv.log_dir) / "metrics.csv"),
        {
            tag: [(event.step, event.value) for event in tags.Scalars(tag)]
            for tag in tags.Tags()["scalars"]
        },
        {name: float(value) for name, value in trainer.callback_metrics.items()},
        torch.get_rng_state(),
        [str(each.message) for each in caught if "jaynes" in str(each.filename)],
        counting.graphs,
    )


def theirs(names: Any) -> list[str]:
    return [name for name in names if not OURS.match(name)]


def assert_same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


#: Seen to differ by 4e-9 after twelve steps.
FUSES_OTHERWISE = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="inductor fuses a graph that counts in another way, so sums round differently",
)


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, FUSES_OTHERWISE])],
)
def test_a_foreign_project_runs_as_before(backend: str, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", backend)
    monitor = EquilibriumMonitor()
    watched = run(tmp_path / "watched", backend, monitor)

    assert_same(watched.weights, plain.weights)
    assert torch.equal(watched.draws, plain.draws)
    assert watched.said == []
    # The graphs of training and of evaluation, and one more for the watch.
    assert watched.graphs == plain.graphs + 1

    for part in ("state_dict", "current_model_state", "averaging_state"):
        if part in plain.checkpoint:
            assert_same(watched.checkpoint[part], plain.checkpoint[part])
    assert_same(watched.checkpoint["optimizer_states"], plain.checkpoint["optimizer_states"])
    assert watched.checkpoint["lr_schedulers"] == plain.checkpoint["lr_schedulers"]
    keys = set(watched.checkpoint["callbacks"]) - set(plain.checkpoint["callbacks"])
    assert all("EquilibriumMonitor" in key for key in keys)

    assert theirs(watched.metrics) == list(plain.metrics)
    assert {name: watched.metrics[name] for name in plain.metrics} == plain.metrics
    assert theirs(watched.tags) == list(plain.tags)
    assert {tag: watched.tags[tag] for tag in plain.tags} == plain.tags
    assert any(tag.startswith("equilibrium/weight/") for tag in watched.tags)
    _assert_same_curves(watched.curves, plain.curves)

    assert monitor.history.step.unique().tolist() == [0, 4, 8, 12]
    names = set(monitor.history.name)
    assert {"net._orig_mod.conv1.weight", "net._orig_mod.layer2.0.downsample.0.weight"} <= names
    assert {"net._orig_mod.relu", "net._orig_mod.layer1.0.relu#1"} <= names


def _assert_same_curves(watched: pd.DataFrame, plain: pd.DataFrame) -> None:
    """Every figure of theirs is there, at its step; rows of ours may lie between."""
    assert set(theirs(watched.columns)) == set(plain.columns)
    for name in plain.columns.difference(["step", "epoch"]):
        kept = watched[["step", name]].dropna().to_numpy().tolist()
        assert kept == plain[["step", name]].dropna().to_numpy().tolist(), name
