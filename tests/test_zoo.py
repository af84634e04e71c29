"""Train every model of the zoo, watched and unwatched: the losses are the same to the bit."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments import made
from jaynes_callbacks.instruments.saliency import Saliency
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.run.run import Listening, WatchedRun
from jaynes_callbacks.schedule import Cadence, every
from jaynes_callbacks.sinks.delivery import Delivery
from tests.zoo import ZOO, Specimen

_STEPS = 2


class Loop:
    """A plain loop, as a run sees it."""

    step, epoch, is_last_batch, is_main = 0, 0, False, True
    directory: Path | None = None
    loggers: tuple[Any, ...] = ()

    def decides_by(self, groups: tuple[str, ...]) -> bool:
        return False

    def describe(self) -> Mapping[str, Any]:
        return {}

    def publish(self, numbers: Mapping[str, float], *, on_step: bool) -> None:
        """Let nobody decide by the numbers."""

    def say(self, text: str) -> None:
        self.said = text


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, tuple):
        for value in output:
            yield from _tensors(value)


class Unwatched:
    """In place of a run: nobody looks."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        losses: one for each step, as text, so that nan equals nan.
        draws: one from each random source that a model may share.
        model: trained.
        run: that watched it.
    """

    losses: str
    draws: list[float]
    model: nn.Module
    run: Any


def _train(specimen: Specimen, watch: Callable[[nn.Module], Any]) -> Trained:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    model, x = specimen()
    run, host = watch(model), Loop()
    run.begin(host, None)
    losses = []
    try:
        for batch in range(_STEPS):
            host.is_last_batch = batch == _STEPS - 1
            losses.append(_step(model, x, run, batch))
            host.step += 1
            run.batch_ends()
        run.training_ends()
    finally:
        run.finish()
    draws = [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002
    return Trained(str(losses), draws, model, run)


def _step(model: nn.Module, x: Any, run: Any, batch: int) -> float:
    run.batch_begins(batch)
    outputs = _tensors(model(x))
    loss = sum((each.abs().square().mean() for each in outputs), torch.zeros(()))
    run.forward_ends()
    for parameter in model.parameters():
        parameter.grad = None
    loss.backward()
    parameters = [each for each in model.parameters() if each.grad is not None]
    run.before_step(parameters)
    torch.optim.SGD(parameters, lr=0.1).step()
    return float(loss)


def _watched(model: nn.Module) -> WatchedRun:
    names = ["magnitudes", "neurons", "gradients", "energy", "coalitions"]
    instruments = made([*names, Saliency(activations=True)], {})
    recorder = Recorder(model, instruments=instruments, min_size=1)
    recorder.attach()
    delivery = Delivery([], {each.name: each.schema for each in instruments})
    return WatchedRun(recorder, delivery, Cadence(1, None), Listening(every(1, what="batches")))


def _hooks(model: nn.Module) -> int:
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_forward_pre_hooks_with_kwargs",
    )
    return sum(len(vars(module).get(kind, ())) for module in model.modules() for kind in kinds)


@pytest.fixture(params=["unfitted", pytest.param("fitted", marks=pytest.mark.slow)])
def _fits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is computed after collecting, which no model notices and which takes long."""
    if request.param == "unfitted":
        monkeypatch.setattr(Recorder, "summarise", lambda self, moments: [{} for _ in moments])


@pytest.mark.usefixtures("_fits")
@pytest.mark.parametrize("name", ZOO)
def test_a_model_trains_as_if_nobody_looked(name: str) -> None:
    limit = sys.getrecursionlimit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = _train(ZOO[name], lambda model: Unwatched())
        watched = _train(ZOO[name], _watched)
    assert watched.losses == plain.losses
    assert watched.draws == plain.draws
    assert _hooks(watched.model) == _hooks(plain.model)
    assert torch.overrides._get_current_function_mode() is None
    assert sys.getrecursionlimit() == limit
    assert watched.run.recorded_step == _STEPS


class Task(L.LightningModule):
    """A specimen, trained by Lightning."""

    def __init__(self, specimen: Specimen) -> None:
        super().__init__()
        self.net, self.input = specimen()
        self.losses: list[float] = []

    def training_step(self, batch: Tensor) -> Tensor:
        outputs = _tensors(self.net(self.input))
        loss = sum((each.abs().square().mean() for each in outputs), torch.zeros(()))
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [each for each in self.parameters() if each.requires_grad]
        return torch.optim.SGD(trained, lr=0.1)


@pytest.mark.parametrize(
    "name",
    [
        *("counts its calls", "raises outside of training", "refuses attributes"),
        *("scripted", "two hundred deep"),
    ],
)
def test_under_lightning_too(name: str, make_trainer: Callable[..., L.Trainer]) -> None:
    def losses(*callbacks: L.Callback) -> list[float]:
        L.seed_everything(5, verbose=False)
        task = Task(ZOO[name])
        loader = DataLoader([torch.zeros(1)] * 3, 1)
        make_trainer(*callbacks, max_epochs=1).fit(task, loader)
        assert sum(len(vars(each)["_forward_hooks"]) for each in task.modules()) == 0
        return task.losses

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monitor = EquilibriumMonitor(sinks=[], min_size=1)
        assert losses(monitor) == losses()
    assert monitor.history.step.unique().tolist() == [0, 3]


#: What costs a stream (or more), by the specimen: words of the warning and of the coverage.
SAID = {
    "raises outside of training": ("weight '0.weight' is not recorded", "reading it failed with"),
    "cannot be copied": ("weight '0.weight' is not recorded", "one of a kind"),
    "refuses hooks": ("activation '1' is no longer recorded", "this module takes no hooks"),
    "nested": ("activation 'gelu' is no longer recorded", "counting failed with"),
    "loud subclass of tensor": ("activation '1' is no longer recorded", "counting failed with"),
    "float4 parameter": (None, "float4_e2m1fn_x2, which torch cannot convert"),
    "scripted": (None, "scripted: its functions are not seen"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_lost_is_said_and_all_else_is_recorded(name: str) -> None:
    warned, reason = SAID[name]
    torch.manual_seed(5)
    model, x = ZOO[name]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Recorder(model, min_size=1) as recorder:
            for step in range(_STEPS):
                model(x)
                records = recorder.snapshot(step)
    said = [str(each.message) for each in caught if "recorded" in str(each.message)]
    assert len(said) == (warned is not None)
    assert all(str(warned) in text and "training goes on" in text for text in said)
    skipped = [each for each in recorder.coverage.skipped if reason in each.reason]
    assert skipped
    assert {"weight", "iota"} >= set(records["kind"]) > set()
    assert not {each.name for each in skipped} & set(records["name"])
