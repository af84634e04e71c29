"""Weights that modules compute: the recorded one is the one that multiplies, and nothing moves."""

import random
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from jaynes_callbacks.api import analyse
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.probes.effective import effective_weights
from jaynes_callbacks.recorder import Recorder

pytestmark = pytest.mark.usefixtures("unfitted")


class Noisy(nn.Module):
    """Draws from the global random states and writes into its buffers, whatever its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        self.last = weight.detach().sum()
        noise = torch.rand(()) + random.random()
        noise += np.random.rand()  # noqa: NPY002
        return self.dropout(weight) + 0 * noise


def _noisy(module: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(module, "weight", Noisy())


def _twice_pruned(module: nn.Module) -> nn.Module:
    prune.random_unstructured(module, "weight", 0.3)
    return prune.l1_unstructured(module, "weight", 0.5)


def _quietly(change: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def quiet(module: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return change(module)

    return quiet


def _snapshot(model: nn.Module) -> Records:
    recorder = Recorder(model, kinds="weight")
    recorder.attach()
    return recorder.snapshot()


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "weight norm, by hook": _quietly(nn.utils.weight_norm),
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm, by hook": _quietly(nn.utils.spectral_norm),
    "orthogonal": parametrizations.orthogonal,
    "noise": _noisy,
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.5),
    "pruned twice": _twice_pruned,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_multiplies_is_what_is_recorded(change: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 16), CHANGES[change](nn.Linear(16, 24, bias=False)))
    model.eval()
    with torch.no_grad():
        weight = model[1](torch.eye(16)).t()
    records = _snapshot(model)
    assert [record.name for record in records] == ["0.weight", "1.weight"]
    assert records[1].shape == (24, 16)
    (expected,) = analyse(weight)
    assert records[1].n == expected.n
    assert records[1].rms == pytest.approx(expected.rms, rel=1e-2)
    assert records[1].max == pytest.approx(expected.max, rel=1e-5)


def _state_of_numpy() -> tuple[Any, ...]:
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return (*keys, *rest)


@pytest.mark.parametrize("change", CHANGES)
def test_to_look_changes_nothing(change: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(CHANGES[change](nn.Linear(16, 24, bias=False)))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    buffers = dict(model.named_buffers())
    of_torch, of_numpy = torch.get_rng_state(), _state_of_numpy()
    _snapshot(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), of_torch)
    assert _state_of_numpy() == of_numpy
    # Not around the snapshot: beartype, which checks types in tests, draws from Python's state.
    of_python = random.getstate()
    for weight in effective_weights(model):
        weight.value()
    assert random.getstate() == of_python


class Doubling(nn.Module):
    """Notes the memory of every weight that it, or a copy of it, computes."""

    computed: ClassVar[list[weakref.ref[Any]]] = []

    def forward(self, weight: Tensor) -> Tensor:
        value = 2 * weight
        self.computed.append(weakref.ref(value.untyped_storage()))
        return value


def _doubled(include: str = "*") -> tuple[Doubling, nn.Module, Recorder]:
    """A watched model with one parametrized weight, of which no computation is noted yet."""
    doubling = Doubling()
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    parametrize.register_parametrization(model[0], "weight", doubling)
    doubling.computed.clear()
    recorder = Recorder(model, kinds="weight", include=include)
    recorder.attach()
    return doubling, model, recorder


def test_a_weight_is_computed_once_a_record_and_let_go() -> None:
    doubling, model, recorder = _doubled()
    assert len(doubling.computed) == 1
    recorder.begin()
    assert len(doubling.computed) == 2
    recorder.snapshot(step=0)  # of `begin`
    assert len(doubling.computed) == 2
    with torch.no_grad():
        model[0].parametrizations.weight.original *= 1.5
    record, _ = recorder.snapshot(step=1)
    assert len(doubling.computed) == 3
    assert record.moved == pytest.approx(0.5)
    assert not [memory for memory in doubling.computed if memory() is not None]


def test_a_weight_that_is_left_out_is_computed_once_for_all() -> None:
    doubling, _, recorder = _doubled(include="1.*")
    for step in range(3):
        assert [record.name for record in recorder.snapshot(step)] == ["1.weight"]
    assert len(doubling.computed) == 1
    assert ("0.weight", "excluded by pattern") in recorder.coverage.skipped


class Upper(nn.Module):
    """Leaves the upper half of the rows."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight[: len(weight) // 2]


def test_a_weight_is_looked_at_anew_when_what_computes_it_is_changed() -> None:
    _, model, recorder = _doubled()
    (record, _) = recorder.snapshot(step=0)
    assert record.shape == (16, 16)
    parametrize.register_parametrization(model[0], "weight", Upper(), unsafe=True)
    (record, _) = recorder.snapshot(step=1)
    assert record.shape == (8, 16)
    model[0].parametrizations.weight.original = nn.Parameter(torch.randn(32, 16))
    (record, _) = recorder.snapshot(step=2)
    assert record.shape == (16, 16)


def test_the_parameters_behind_are_covered() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(16, 24)))
    (weight,) = effective_weights(model)
    assert weight.name == "0.weight"
    assert set(weight.parameters) == set(dict(model.named_parameters())) - {"0.bias"}


def test_patterns_name_the_weight_that_multiplies() -> None:
    model = nn.Sequential(nn.Linear(16, 16), parametrizations.weight_norm(nn.Linear(16, 16)))
    recorder = Recorder(model, kinds="weight", include="1.weight")
    recorder.attach()
    assert [stream.name for stream in recorder.streams] == ["1.weight"]


def test_tied_parametrised_modules_are_one_stream() -> None:
    layer = parametrizations.weight_norm(nn.Linear(16, 16))
    recorder = Recorder(nn.ModuleDict({"in": layer, "out": layer}), kinds="weight")
    recorder.attach()
    (stream,) = recorder.streams
    assert (stream.name, stream.aliases) == ("in.weight", ("out.weight",))


def test_lazy_weights_are_watched_from_their_first_forward_on() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.LazyLinear(16))
    recorder = Recorder(model, kinds="weight")
    recorder.attach()
    assert ("1.weight", "not initialised yet (lazy)") in recorder.coverage.skipped
    recorder.begin()
    model(torch.randn(3, 8))
    assert [record.name for record in recorder.snapshot(step=0)] == ["0.weight"]
    records = recorder.snapshot(step=1)
    assert [(record.name, record.moved) for record in records] == [("0.weight", 0), ("1.weight", 0)]
    assert not [name for name, reason in recorder.coverage.skipped if "lazy" in reason]


def test_exchanged_weights_are_found_again() -> None:
    model = nn.Sequential(nn.Linear(16, 16))
    recorder = Recorder(model, kinds="weight")
    recorder.attach()
    model[0].weight = nn.Parameter(torch.ones(16, 16))
    (record,) = recorder.snapshot()
    assert record.max == 1
