"""Collecting waits for no device: no value of a tensor is read, nor a shape that depends on one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from jaynes_callbacks import Recorder
from jaynes_callbacks.instruments.saliency import Saliency
from jaynes_callbacks.instruments.tally import tally_of_tensors
from jaynes_callbacks.statistics import influence

_WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}


class Refusing(TorchDispatchMode):
    """Refuses what an accelerator would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A mask's indices are found on the device, and their number decides the shape.
        indices = args[1] if func is torch.ops.aten.index.Tensor else ()
        masked = any(each is not None and each.dtype == torch.bool for each in indices)
        if func in _WAITING or masked:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def _all_columns(counts: Tensor) -> Tensor:
    """What an accelerator takes: on a CPU there is nothing to wait for."""
    return torch.arange(counts.shape[1])


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.nonzero()],
    ids=["a value", "a mask", "indices"],
)
def test_waiting_is_seen(wait: Any) -> None:
    with Refusing(), pytest.raises(AssertionError, match="waits for the device"):
        wait(torch.ones(3))


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("magnitudes", 4),
        ("gradients", 4),
        ("neurons", 2),
        ("saliency", 4),
        ("energy", 2),
        ("operators", 3),
        ("jacobian", 1),
    ],
)
@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.sampled(3)
def test_collecting_waits_for_nothing(
    name: str, streams: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influence, "_occupied_columns", _all_columns)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    instrument = Saliency(activations=True) if name == "saliency" else name
    recorder = Recorder(model, instruments=instrument, iota_groups=groups)
    recorder.attach()
    collected = []
    for step in range(2):
        recorder.open()
        x = torch.randn(8, 64)
        with Refusing():
            loss = model(x).square().sum()
        recorder.close()
        with Refusing():
            loss.backward()
        with Refusing():
            recorder.before_step(list(model.parameters()))
        optimizer.step()
        with Refusing():
            collected.append(recorder.count(step))
    records = recorder.summarise(collected)
    recorder.detach()
    assert [len(each[name]) for each in records] == [streams, streams]


def test_what_is_asked_of_no_device_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.randn(40, 30, generator=torch.Generator().manual_seed(1))]
    here = tally_of_tensors(tensors).errors
    monkeypatch.setattr(influence, "_occupied_columns", _all_columns)
    torch.testing.assert_close(tally_of_tensors(tensors).errors, here, rtol=1e-12, atol=0)
