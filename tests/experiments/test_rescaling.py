"""Rescaled networks compute what they did, and refused ones are left as they were."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from experiments.models import CNN, MLP
from experiments.rescaling import rescale_


def _linear() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 12),
        nn.LeakyReLU(0.2),
        nn.Sequential(nn.Linear(12, 12, bias=False), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(12, 4),
        nn.Tanh(),
    )


def _volumes() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 1, 4, 4)),
        nn.Conv3d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(2),
        nn.Conv3d(3, 5, 2, padding=1, padding_mode="replicate"),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(5 * 27, 4),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": _linear,
    "volumes": _volumes,
    "mlp": lambda: nn.Sequential(nn.Unflatten(1, (1, 4, 4)), MLP((1, 4, 4), 10, width=20, depth=3)),
    "cnn": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), CNN((1, 4, 4), 10, channels=(6, 8), width=12)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_outputs_stay_equal(name: str, scale: float) -> None:
    torch.manual_seed(1)
    network = NETWORKS[name]().double().eval()
    inputs = torch.randn(32, 16, dtype=torch.float64)
    before = copy.deepcopy(network)
    rescale_(network, scale, seed=3)
    torch.testing.assert_close(network(inputs), before(inputs), rtol=1e-12, atol=1e-12)
    weights = [each for each in network.parameters() if each.dim() > 1]
    old = [each for each in before.parameters() if each.dim() > 1]
    assert not any(map(torch.equal, weights, old))


def test_the_factors_are_lognormal_and_follow_the_seed() -> None:
    def factors(seed: int) -> torch.Tensor:
        network = nn.Sequential(nn.Linear(1, 20_000, bias=False), nn.ReLU(), nn.Linear(20_000, 1))
        nn.init.ones_(network[0].weight)
        rescale_(network.double(), 0.7, seed)
        return network[0].weight.detach().flatten().log()

    first = factors(0)
    assert first.std().item() == pytest.approx(0.7, rel=0.02)
    assert first.mean().item() == pytest.approx(0, abs=0.02)
    assert torch.equal(first, factors(0))
    assert not torch.equal(first, factors(1))


def test_a_scale_of_zero_changes_nothing() -> None:
    network = _linear()
    before = copy.deepcopy(network.state_dict())
    rescale_(network, 0, seed=0)
    assert all(torch.equal(now, before[name]) for name, now in network.state_dict().items())


class _Residual(nn.Sequential):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + super().forward(values)


def _pruned() -> nn.Linear:
    return prune.random_unstructured(nn.Linear(8, 8), "weight", 0.5)


_SHARED = nn.Linear(8, 8)
REFUSED = {
    "1 is a Tanh": lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)),
    "1 is a BatchNorm1d": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)
    ),
    "1 is a _Residual": lambda: nn.Sequential(
        nn.Linear(8, 8), _Residual(nn.Linear(8, 8)), nn.Linear(8, 8)
    ),
    "1 is a MaxPool1d": lambda: nn.Sequential(nn.Linear(8, 16), nn.MaxPool1d(2), nn.Linear(8, 8)),
    "only an nn.Sequential can be rescaled, got _Residual": lambda: _Residual(nn.Linear(8, 8)),
    "2 has 2 groups": lambda: nn.Sequential(
        nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3, groups=2)
    ),
    "1.0 shares its weight": lambda: nn.Sequential(_SHARED, nn.Sequential(_SHARED)),
    "1 takes 6 inputs and the layer before it has 3 outputs": lambda: nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.Linear(6, 2)
    ),
    "2 takes 24 inputs and the layer before it has 8 outputs": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.Flatten(), nn.Linear(24, 8)
    ),
    "2 takes 1 inputs and the layer before it has 8 outputs": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), nn.Conv1d(1, 2, 3)
    ),
    "weight of 0 is computed from other parameters": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 8)
    ),
    "weight of 2 is computed from other parameters": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), _pruned()
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_would_change_the_outputs_is_refused(sentence: str) -> None:
    network = REFUSED[sentence]()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=sentence):
        rescale_(network, 1.0, seed=0)
    assert all(torch.equal(now, before[name]) for name, now in network.state_dict().items())


@pytest.mark.parametrize("scale", [-0.1, math.nan, math.inf])
def test_an_impossible_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a number of at least 0, got"):
        rescale_(_linear(), scale, seed=0)
