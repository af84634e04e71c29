"""Train every model of the zoo, watched and unwatched: the losses are the same to the bit."""

import random
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
    decides_at_any_step = False

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


def _train(specimen: Specimen, run: bool) -> tuple[list[float], Any, nn.Module, WatchedRun | None]:
    """Return the losses, three draws from all random sources, the model and the run."""
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    model, x = specimen()
    watched, host = (_watched(model), Loop()) if run else (None, Loop())
    if watched:
        watched.begin(host, None)
    losses = []
    for batch in range(_STEPS):
        host.is_last_batch = batch == _STEPS - 1
        if watched:
            watched.batch_begins(batch)
        output = model(x)
        loss = sum(
            (each.abs().square().mean() for each in _tensors(output)), torch.zeros(())
        )
        if watched:
            watched.forward_ends()
        model.zero_grad()
        loss.backward()
        parameters = [each for each in model.parameters() if each.grad is not None]
        if watched:
            watched.before_step(parameters)
        torch.optim.SGD(parameters, lr=0.1).step()
        host.step += 1
        if watched:
            watched.batch_ends()
        losses.append(float(loss))
    if watched:
        watched.training_ends()
        watched.finish()
    draws = [random.random(), np.random.rand(), float(torch.rand(()))]  # noqa: NPY002
    return losses, draws, model, watched


def _watched(model: nn.Module) -> WatchedRun:
    instruments = made(["magnitudes", "neurons", "gradients", Saliency(activations=True)], {})
    recorder = Recorder(model, instruments=instruments, min_size=1)
    recorder.attach()
    delivery = Delivery([], {each.name: each.schema for each in instruments})
    return WatchedRun(recorder, delivery, Cadence(1, None), Listening(every(1, what="batches")))


def _hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_pre_hooks_with_kwargs")
    return sum(len(vars(module).get(kind, ())) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("name", ZOO)
def test_a_model_trains_as_if_nobody_looked(name: str) -> None:
    limit = sys.getrecursionlimit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, draws, model, _ = _train(ZOO[name], run=False)
        watched, draws_of_watched, looked_at, run = _train(ZOO[name], run=True)
    assert str(watched) == str(plain)  # where a loss is nan, too
    assert draws_of_watched == draws
    assert _hooks(looked_at) == _hooks(model)
    assert torch.overrides._get_current_function_mode() is None
    assert sys.getrecursionlimit() == limit
    assert run is not None
    assert run.recorded_step == _STEPS
