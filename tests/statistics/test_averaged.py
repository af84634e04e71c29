"""Averaged operators against scipy's eigenvalues, the definition on pairs, and closed forms."""

from collections.abc import Callable
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional

from jaynes_callbacks.statistics.averaged import (
    SLOPES,
    composed_gamma,
    contraction_gamma,
    difference_bounds,
    iteration_rate,
    linear_gamma,
    pair_bounds,
    slopes_gamma,
)

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z * 1.0,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "gaussian": lambda z: (-z.square()).exp(),
    "sin": torch.sin,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def _gamma(weight: Any) -> float:
    return linear_gamma(torch.as_tensor(weight)).item()


def _oracle(weight: Any) -> float:
    """The smallest γ with AᵀA ≼ γ(A + Aᵀ), by scipy."""
    a = np.eye(len(weight)) - weight
    return float(scipy.linalg.eigh(a.T @ a, a + a.T, eigvals_only=True)[-1])


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_those_of_the_functions(name: str) -> None:
    # Slopes may be limits: at a kink (0, ±3) or far out.
    far = torch.logspace(-12, 6, 1001, dtype=torch.float64)
    z = torch.cat(
        [torch.linspace(-9, 9, 360_001).double(), far, -far, 3 - far, far - 3]
    ).requires_grad_()
    function = FUNCTIONS.get(name) or getattr(functional, name)
    (slopes,) = torch.autograd.grad(function(z).sum(), z)
    assert slopes.min().item() == pytest.approx(SLOPES[name].low, abs=1e-8)
    assert slopes.max().item() == pytest.approx(SLOPES[name].high, abs=1e-8)


def test_gammas_of_activations() -> None:
    half = ("relu", "tanh", "sigmoid", "softplus", "elu", "relu6", "hardtanh", "softsign")
    assert {name: SLOPES[name].gamma for name in half} == dict.fromkeys(half, 0.5)
    assert SLOPES["leaky_relu"].gamma == pytest.approx(0.495)
    assert SLOPES["sin"].gamma == 1
    assert SLOPES["gaussian"].gamma == pytest.approx(0.9289, abs=5e-5)
    for name in ("gelu", "silu", "mish", "selu", "hardswish"):
        assert isnan(SLOPES[name].gamma)
    assert isnan(slopes_gamma(-1.1, 0.0))


def test_gammas_of_gaussian_matrices() -> None:
    generator = np.random.default_rng(0)
    expected = [(0.3, 0.588, 0.7400), (0.45, 0.875, 0.8941), (0.49, 0.943, 0.9476)]
    for scale, norm, gamma in expected:
        weight = generator.normal(size=(100, 100)) * scale / 10
        assert scipy.linalg.svdvals(weight)[0] == pytest.approx(norm, abs=6e-4)
        assert _gamma(weight) == pytest.approx(gamma, abs=5e-5)
        assert _gamma(weight) == pytest.approx(_oracle(weight), abs=1e-8)
        assert _gamma(weight.astype(np.float32)) == pytest.approx(_oracle(weight), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gammas_of_known_matrices(dtype: torch.dtype) -> None:
    angle = torch.tensor(0.7, dtype=dtype)
    rotation = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    basis, _ = torch.linalg.qr(
        torch.randn(9, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    )
    projection = basis[:, :4] @ basis[:, :4].mT
    eye = torch.eye(9, dtype=dtype)
    expected: list[tuple[Tensor, float]] = [
        (0 * eye, 0.5),
        (eye / 2, 0.25),
        (-eye, 1.0),
        (rotation, 1.0),
        # With fixed points besides.
        (torch.block_diag(rotation, eye), 1.0),
        (projection, 0.5),
        (eye, 0.0),
    ]
    for weight, gamma in expected:
        assert _gamma(weight) == pytest.approx(gamma, abs=1e-5)
    assert isnan(_gamma(1.01 * rotation))
    assert isnan(_gamma(2 * eye))


def test_gammas_of_clustered_spectra() -> None:
    generator = np.random.default_rng(2)
    left, right = (np.linalg.qr(generator.normal(size=(256, 256)))[0] for _ in range(2))
    weight = (left * generator.uniform(0.9, 0.99, 256)) @ right
    assert _gamma(weight) == pytest.approx(_oracle(weight), abs=1e-8)
    assert _gamma(weight.astype(np.float32)) == pytest.approx(_oracle(weight), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gammas_of_small_rotations(dtype: torch.dtype) -> None:
    angle = torch.tensor(0.01, dtype=dtype)
    weight = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    # 1 but for rounding of the cosine, which the tiny angle magnifies.
    assert _gamma(weight) == pytest.approx(1, abs=1e-3)


def test_a_gamma_is_what_the_definition_says() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = 0.4 * torch.randn(6, 6, generator=generator, dtype=torch.float64) / 6**0.5
    gamma = _gamma(weight)
    # O = (1 − γ) Id + γR with R nonexpansive, and with no smaller γ.
    for factor, holds in ((1.0001, True), (0.9999, False)):
        rest = weight - (1 - factor * gamma) * torch.eye(6)
        assert (torch.linalg.matrix_norm(rest, 2) <= factor * gamma) == holds


def test_pairs_are_a_lower_bound_and_approach_it() -> None:
    generator = np.random.default_rng(0)
    weight = torch.from_numpy(generator.normal(size=(100, 100)) * 0.3 / 10)
    x = torch.from_numpy(generator.normal(size=(101, 100)))
    found = pair_bounds(x, x @ weight.mT)
    # Of 5,050 random pairs; the smallest γ is .7400.
    assert found.gamma.item() == pytest.approx(0.60, abs=0.02)
    d = torch.stack([x[i] - x[j] for i in range(101) for j in range(i)])
    ratio = (d @ weight.mT).norm(dim=-1) / d.norm(dim=-1)
    assert found.lipschitz.item() == pytest.approx(ratio.max().item(), rel=1e-12)


def test_pairs_of_known_maps() -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    quarter = torch.tensor([[0.0, -1], [1, 0]])
    rotation = torch.block_diag(quarter, quarter)
    for y, lipschitz, gamma in (
        (x / 2, 0.5, 0.25),
        (-x, 1.0, 1.0),
        (0 * x, 0.0, 0.5),
        (x @ rotation, 1.0, 1.0),
        (x + 1, 1.0, 0.0),
        (1.5 * x, 1.5, inf),
        (-2 * x, 2.0, inf),
        (x[:, :3], None, nan),
    ):
        found = pair_bounds(x, y)
        if lipschitz is not None:
            assert found.lipschitz.item() == pytest.approx(lipschitz, abs=1e-6)
        assert found.gamma.item() == pytest.approx(gamma, abs=1e-5, nan_ok=True)
    # Equal inputs say nothing.
    assert pair_bounds(torch.ones(3, 2), torch.ones(3, 2)).lipschitz.isnan()


def test_differences_of_pairs_say_the_same() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    y = x @ (torch.randn(30, 30, generator=generator, dtype=torch.float64) / 12)
    whole = pair_bounds(x, y)
    found = difference_bounds(x[:1] - x[1:], y[:1] - y[1:], x.norm())
    assert [*map(float, found)] == pytest.approx([*map(float, whole)], rel=1e-9)


def test_compositions() -> None:
    def composed(*gammas: float) -> float:
        return composed_gamma(torch.tensor(gammas, dtype=torch.float64)).item()

    assert composed(0.5, 0.5) == pytest.approx(2 / 3)
    assert composed(0.5, 0.5, 0.5) == pytest.approx(3 / 4)
    assert composed(0.3, 1.0) == 1
    assert composed(0.0, 0.4) == pytest.approx(0.4)
    assert isnan(composed(0.5, nan))
    kappa = torch.tensor([0.5, 1.0, 1.1], dtype=torch.float64)
    torch.testing.assert_close(
        contraction_gamma(kappa), torch.tensor([0.75, 1.0, nan]).double(), equal_nan=True
    )


def test_a_composition_of_matrices_is_averaged_with_the_composed_gamma() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = 0.1 * torch.randn(2, 8, 8, generator=generator, dtype=torch.float64)
    bound = composed_gamma(torch.tensor([_gamma(first), _gamma(second)]).double())
    assert _gamma(second @ first) <= bound.item()


def test_a_rotation_by_a_right_angle_is_iterated() -> None:
    quarter = torch.tensor([[0.0, -1], [1, 0]], dtype=torch.float64)
    assert torch.linalg.matrix_power(quarter, 4).equal(torch.eye(2).double())
    point, residuals = torch.tensor([1.0, 0], dtype=torch.float64), []
    for step in range(11):
        assert point.norm().item() == pytest.approx(2 ** (-step / 2))
        moved = quarter @ point - point
        residuals.append(moved.norm())
        point = point + moved / 2
    assert iteration_rate(torch.stack(residuals)).item() == pytest.approx(2**-0.5)
    # The second half alone: what comes before is how the iteration began.
    assert iteration_rate(torch.tensor([[9.0, 5, 1, 3, 9]]).double()).item() == pytest.approx(3)
