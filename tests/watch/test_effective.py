"""Weights that modules compute: the recorded one is the one that multiplies, and nothing moves."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from jaynes_callbacks.api import analyse
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.watch.effective import effective_weights


class Noisy(nn.Module):
    """Draws from the global random state and counts its calls, whatever its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return self.dropout(weight) + 0 * torch.rand(())


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


@pytest.mark.parametrize("change", CHANGES)
def test_to_look_changes_nothing(change: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(CHANGES[change](nn.Linear(16, 24, bias=False)))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    _snapshot(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


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
