"""The asymmetry of Jacobians against whole matrices, and growth against numpy's eigenvalues."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from jaynes_callbacks.statistics.jacobian import asymmetry, growth_rate, probe_squares


def _signs(size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (size,), generator=generator).double() * 2 - 1


def _estimate(jacobian: Tensor, probes: int, seed: int = 0) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(seed)
    squares = []
    for _ in range(probes):
        sign = _signs(len(jacobian), generator)
        squares.append(probe_squares(jacobian @ sign, jacobian.mT @ sign))
    value, error = asymmetry(torch.stack(squares))
    return value.item(), error.item()


def _exact(jacobian: Tensor) -> float:
    part = (jacobian - jacobian.mT) / 2
    return (part.square().sum() / jacobian.square().sum()).item()


@pytest.fixture
def matrix(generator: torch.Generator) -> Tensor:
    return torch.randn(60, 60, generator=generator, dtype=torch.float64)


def test_symmetric_and_antisymmetric_matrices(matrix: Tensor) -> None:
    value, error = _estimate(matrix + matrix.mT, 8)
    assert (value, error) == pytest.approx((0, 0), abs=1e-12)
    value, error = _estimate(matrix - matrix.mT, 8)
    assert value == pytest.approx(1, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_independent_entries_give_a_half(matrix: Tensor) -> None:
    assert _exact(matrix) == pytest.approx(0.5, abs=0.03)
    value, error = _estimate(matrix, 400)
    assert value == pytest.approx(_exact(matrix), abs=4 * error)
    assert error < 0.01


def test_errors_are_those_of_repeated_estimates(matrix: Tensor) -> None:
    found = np.array([_estimate(matrix, 8, seed) for seed in range(300)])
    assert found[:, 0].mean() == pytest.approx(_exact(matrix), abs=0.005)
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(), rel=0.12)


@pytest.mark.parametrize(("rank", "low", "high"), [(60, 0.93, 0.98), (1, 0.80, 0.92)])
def test_intervals_of_students_t_cover_the_exact_value(
    matrix: Tensor, rank: int, low: float, high: float
) -> None:
    # At rank 1 fewer: probes are products of two sums of signs.
    jacobian = matrix if rank == 60 else torch.outer(matrix[0], matrix[1])
    found = np.array([_estimate(jacobian, 8, seed) for seed in range(600)])
    quantile = scipy.stats.t.ppf(0.975, 7)
    assert quantile == pytest.approx(2.36, abs=0.005)
    covered = np.abs(found[:, 0] - _exact(jacobian)) < quantile * found[:, 1]
    assert low < covered.mean() < high


def test_squares_add_up_over_samples(matrix: Tensor, generator: torch.Generator) -> None:
    two = torch.block_diag(matrix, matrix.mT)
    sign = _signs(120, generator)
    whole = probe_squares(two @ sign, two.mT @ sign)
    parts = [
        probe_squares(each @ own, each.mT @ own)
        for each, own in ((matrix, sign[:60]), (matrix.mT, sign[60:]))
    ]
    torch.testing.assert_close(whole, parts[0] + parts[1])


def test_of_no_jacobian_and_of_one_probe_nothing_is_known() -> None:
    assert asymmetry(torch.zeros(2, 8, 2, dtype=torch.float64)).value.isnan().all()
    single = asymmetry(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    assert single.value.item() == 0.5
    assert single.error.isnan()


@pytest.mark.parametrize(
    ("matrix", "tolerance"),
    [
        (np.diag([0.9, 0.3, -0.2]), 1e-9),
        (np.diag([0.9, -0.9, 0.1]), 1e-9),
        (0.8 * np.array([[0.0, -1], [1, 0]]), 1e-12),
        # A complex pair whose eigenvectors are oblique.
        (np.array([[0.0, -0.5], [1, 0.4]]), 0.05),
    ],
)
def test_growth_is_the_spectral_radius_of_near_normal_matrices(
    matrix: np.ndarray, tolerance: float
) -> None:
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    found = _growth(matrix, np.ones(len(matrix)))
    assert found == pytest.approx(radius, rel=tolerance)


def _growth(matrix: np.ndarray, start: np.ndarray) -> float:
    tensor, vector = torch.from_numpy(matrix), torch.from_numpy(start)
    norms = []
    for _ in range(20):
        vector = tensor @ (vector / vector.norm())
        norms.append(vector.norm())
    return growth_rate(torch.stack(norms)).item()


def test_growth_is_transient_of_matrices_that_are_not_normal() -> None:
    generator = np.random.default_rng(0)
    # A causal convolution: triangular, so that all eigenvalues are zero.
    causal = np.diag(np.full(63, 0.9), -1) + np.diag(np.full(62, 0.3), -2)
    assert np.abs(np.diag(causal)).max() == 0
    assert 1.1 < _growth(causal, generator.normal(size=64)) < 1.2
    # A complex pair of radius .9 whose eigenvectors have the condition 10.
    cos, sin = 0.9 * np.cos(1), 0.9 * np.sin(1)
    oblique = np.array([[cos, -sin / 10], [10 * sin, cos]])
    assert np.abs(np.linalg.eigvals(oblique)) == pytest.approx([0.9, 0.9])
    found = [_growth(oblique, generator.normal(size=2)) for _ in range(50)]
    assert min(found) < 0.87
    assert max(found) > 0.93
    # Off by the tenth root of the condition at most.
    assert all(0.9 * 10**-0.1 <= each <= 0.9 * 10**0.1 for each in found)
