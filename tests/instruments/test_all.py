"""All instruments at once: the run stays what it was to the bit, and each has its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments import DEFAULT, KNOWN, made
from jaynes_callbacks.records.parts import read_parts

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]


class Network(nn.Module):
    """Convolutions, a residual block, normalisation, dropout: something for every instrument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.hidden = nn.Linear(96, 24)
        self.block = Block(24)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of images given as rows of 16 pixels."""
        x = torch.relu(self.norm(self.conv(x.view(-1, 1, 4, 4))))
        x = torch.relu(self.hidden(x.flatten(1)))
        scores: Tensor = self.out(self.drop(self.block(x)))
        return scores


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with what two layers make of it."""
        out: Tensor = x + self.back(torch.relu(self.into(x)))
        return out


class Classifier(L.LightningModule):
    """The network in Lightning, with a loss that is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Network()
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        scores: Tensor = self.net(x)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy."""
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use AdamW, whose state must not differ either."""
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def _assert_same(watched: Any, plain: Any) -> None:
    for one, other in zip(watched, plain, strict=True):
        if isinstance(other, dict):
            assert list(one) == list(other)
            for name, values in other.items():
                assert torch.equal(one[name], values), name
        elif isinstance(other, Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other


def test_a_run_with_all_instruments_is_the_run_without(
    loader: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def run(*callbacks: L.Callback) -> tuple[Any, ...]:
        L.seed_everything(3, verbose=False)
        model = Classifier()
        trainer = make_trainer(*callbacks, max_epochs=2)
        trainer.fit(model, loader)
        states = trainer.optimizers[0].state_dict()["state"].values()
        of_optimizer = {
            f"{place}.{key}": each
            for place, state in enumerate(states)
            for key, each in state.items()
        }
        draws = torch.cat([torch.rand(3), torch.from_numpy(np.random.rand(3))])  # noqa: NPY002
        return model.losses, model.state_dict(), of_optimizer, torch.get_rng_state(), draws

    monitor = EquilibriumMonitor(instruments="all", every_n_steps=2, dirpath=tmp_path)
    watched = run(monitor)
    _assert_same(watched, run())
    for name in KNOWN:
        folder = tmp_path / "jaynes" / ("" if name == "magnitudes" else f"_{name}")
        frame = read_parts(folder, counts=False)
        assert len(set(frame["step"].tolist())) >= 4, name
        # Each has measured something of this network.
        measured = [
            each.name
            for each in frame.schema.curves
            if np.isfinite(np.ma.filled(frame[each.name].astype(float), np.nan)).any()
        ]
        assert measured, name


def _loop(compiled: str, instruments: Any, rank: int = 0) -> tuple[Any, ...]:
    """Train some steps in a loop of one's own, watched or not."""
    torch.manual_seed(5)
    model = Network()
    if dist.is_initialized():
        called: nn.Module = nn.parallel.DistributedDataParallel(model)
    else:
        called = model
    if compiled:
        called = torch.compile(called, backend=compiled)  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    recorder: Any = MagicMock(record=lambda step: {})
    if instruments is not None:
        recorder = Recorder(model, instruments=instruments, min_size=0)
    recorder.attach()
    losses, seen = [], set()
    generator = torch.Generator().manual_seed(rank)
    for step in range(1, 5):
        x = torch.randn(12, 16, generator=generator)
        labels = torch.randint(4, (12,), generator=generator)
        recorder.open(one_forward=True)
        loss = nn.functional.cross_entropy(called(x), labels)
        recorder.close()
        optimizer.zero_grad()
        loss.backward()
        recorder.before_step(list(model.parameters()))
        optimizer.step()
        losses.append(loss.item())
        seen |= {name for name, frame in recorder.record(step).items() if len(frame)}
    recorder.detach()
    return (losses, model.state_dict(), torch.get_rng_state()), seen


@pytest.mark.parametrize("compiled", ["", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_loop_with_all_instruments_is_the_loop_without(compiled: str) -> None:
    watched, seen = _loop(compiled, "all")
    plain, _ = _loop(compiled, None)
    _assert_same(watched, plain)
    assert {"magnitudes", "scales", "gradients"} <= seen


def _on_ranks(compiled: str) -> None:
    rank = dist.get_rank()
    watched, seen = _loop(compiled, "all", rank)
    plain, _ = _loop(compiled, None, rank)
    _assert_same(watched, plain)
    assert {"magnitudes", "scales", "gradients"} <= seen


@pytest.mark.parametrize("compiled", ["", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_two_ranks_with_all_instruments_are_those_without(compiled: str, ranks: Ranks) -> None:
    ranks(_on_ranks, compiled)


def test_all_are_chosen_by_one_word() -> None:
    assert [each.name for each in made("all", {})] == list(KNOWN)
    assert set(DEFAULT) < set(KNOWN)
    with pytest.raises(ValueError, match=r"there is no instrument 'all'.*not in a list"):
        made(["all"], {})
