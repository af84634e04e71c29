"""Norms of layers against whole matrices, and bounds of modules against their Jacobians."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from jaynes_callbacks.probes.operators import bound_of, is_layer, layer_gamma, layer_norm, slopes_of


def _matrix(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """The whole Jacobian of a layer, by one-hot inputs."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=next(module.parameters()).dtype).view(size, *shape)
    with torch.no_grad():
        columns = module(eye) - module(torch.zeros_like(eye))
    return columns.flatten(1).numpy().T


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(9, 5), (9,)),
    (nn.Linear(5, 9), (5,)),
    (nn.Conv1d(2, 4, 3, stride=2), (2, 15)),
    (nn.Conv2d(3, 4, 3, padding=1), (3, 5, 5)),
    (nn.Conv2d(4, 4, 3, groups=2, dilation=2, padding=2, padding_mode="circular"), (4, 5, 5)),
    (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 3, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
@pytest.mark.sampled(2)
def test_norms_are_those_of_the_maps_on_their_inputs(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    assert is_layer(layer)
    torch.manual_seed(0)
    layer.reset_parameters()  # type: ignore[operator]
    expected = scipy.linalg.svdvals(_matrix(layer, shape))[0]
    # All are small, and known.
    found = layer_norm(layer, shape)
    assert found.least == found.most
    assert found.most.item() == pytest.approx(expected, rel=1e-6)
    double = layer_norm(layer.double(), shape).most.item()
    layer.float()
    assert double == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(520, 520), (520,)), (nn.Conv2d(2, 4, 3, padding=1), (2, 17, 17))],
)
def test_norms_of_large_layers_lie_between_bounds(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer.reset_parameters()  # type: ignore[operator]
    expected = scipy.linalg.svdvals(_matrix(layer, shape))[0]
    found = layer_norm(layer, shape)
    assert found.least.item() == pytest.approx(expected, rel=0.01)
    assert found.least.item() <= expected * (1 + 1e-5)
    assert 1.03 * expected < found.most.item() < 1.1 * expected


def test_norms_of_weights_that_are_computed() -> None:
    torch.manual_seed(0)
    normed = parametrizations.spectral_norm(nn.Linear(8, 8), n_power_iterations=50)
    normed.eval()
    assert layer_norm(normed, (8,)).most.item() == pytest.approx(1, abs=1e-3)


def test_gammas_of_square_layers() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 20).double()
    with torch.no_grad():
        layer.weight *= 0.9 / torch.linalg.matrix_norm(layer.weight, 2)
    a = np.eye(20) - layer.weight.detach().numpy()
    expected = scipy.linalg.eigh(a.T @ a, a + a.T, eigvals_only=True)[-1]
    assert layer_gamma(layer, 20).item() == pytest.approx(expected, abs=1e-8)


def test_dilated_pooling_takes_a_value_into_as_many_windows_as_its_bound_says() -> None:
    for size, stride, dilation in itertools.product(range(1, 5), range(1, 5), range(1, 5)):
        pool = nn.MaxPool1d(size, stride, dilation=dilation)
        zero = torch.zeros(1, 1, 40)
        # The largest change that a single value above all others makes.
        one = torch.eye(40)[:, None] * 1.0
        attained = (pool(one) - pool(zero)).flatten(1).norm(dim=-1).max().item()
        bound = bound_of(pool)
        assert bound is not None
        assert bound.lipschitz == pytest.approx(attained)


MODULES: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.ReLU(), (6,)),
    (nn.LeakyReLU(0.2), (6,)),
    (nn.LeakyReLU(1.5), (6,)),
    (nn.ELU(2.0), (6,)),
    (nn.GELU(), (6,)),
    (nn.GELU("tanh"), (6,)),
    (nn.Softmax(-1), (6,)),
    (nn.Sigmoid(), (6,)),
    (nn.Dropout(0.5), (6,)),
    (nn.MaxPool2d(2), (2, 4, 4)),
    (nn.MaxPool2d(3, stride=1), (1, 4, 4)),
    (nn.MaxPool1d(3, 2), (1, 7)),
    (nn.MaxPool1d(3, stride=2, dilation=2), (1, 13)),
    (nn.MaxPool1d(3, stride=2, dilation=3), (1, 13)),
    (nn.AvgPool2d(3, stride=1, padding=1), (1, 4, 4)),
    (nn.AdaptiveAvgPool2d(1), (2, 3, 3)),
    (nn.BatchNorm1d(6), (6,)),
    (nn.PixelShuffle(2), (4, 2, 2)),
]


@pytest.mark.parametrize(("module", "shape"), MODULES)
@pytest.mark.sampled(3)
def test_bounds_are_not_exceeded(
    module: nn.Module, shape: tuple[int, ...], generator: torch.Generator
) -> None:
    if isinstance(module, nn.BatchNorm1d):
        assert module.running_var is not None
        module.running_var.copy_(torch.rand(6, generator=generator) + 0.1)
        nn.init.uniform_(module.weight, -2, 2, generator=generator)
    module.eval()
    bound = bound_of(module)
    assert bound is not None
    largest, averaged = 0.0, True
    gamma = float(bound.gamma)
    for x in 2 * torch.randn(200, *shape, generator=generator):
        jacobian: Any = torch.autograd.functional.jacobian(lambda z: module(z[None])[0], x)
        matrix = jacobian.reshape(-1, x.numel())
        largest = max(largest, torch.linalg.matrix_norm(matrix, 2).item())
        if not math.isnan(gamma):
            # J = (1 − γ) Id + γR with ‖R‖ ≤ 1.
            rest = matrix - (1 - gamma) * torch.eye(len(matrix)) if gamma else matrix
            averaged &= torch.linalg.matrix_norm(rest, 2).item() <= (gamma or 1) + 1e-5
    # Not exceeded, and not by far out of reach.
    assert 0.3 * float(bound.lipschitz) <= largest <= float(bound.lipschitz) + 1e-5
    assert averaged


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(4),
        nn.PReLU(),
        nn.RReLU(),
        nn.AvgPool2d(3, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(7),
        nn.Softshrink(),
        nn.BatchNorm1d(3, track_running_stats=False),
    ],
)
def test_of_other_modules_nothing_is_claimed(module: nn.Module) -> None:
    assert bound_of(module) is None
    assert not is_layer(module)


def test_subclasses_may_do_anything() -> None:
    class Doubled(nn.GELU):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return 2 * super().forward(input)

    assert slopes_of(Doubled()) is None
    assert bound_of(Doubled()) is None
    assert slopes_of(nn.GELU()) is not None


class Cosine(nn.Linear):
    """A layer whose weight is not its map."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight, dim=1))


def test_a_layer_with_a_forward_of_its_own_is_none() -> None:
    assert is_layer(nn.Linear(3, 3))
    assert is_layer(nn.Conv2d(1, 2, 3))
    assert not is_layer(Cosine(3, 3))
