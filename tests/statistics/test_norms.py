"""Spectral norms against scipy's singular values, and bounds that spectra cannot exceed."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from jaynes_callbacks.statistics.norms import (
    NormBounds,
    krylov_norm,
    largest_eigenvalue,
    spectral_norm,
)


def _krylov(weight: Tensor, steps: int = 24, seed: int = 3) -> NormBounds:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(weight.shape[1], generator=generator, dtype=weight.dtype)
    return krylov_norm(lambda v: weight @ v, lambda u: weight.mT @ u, start, steps)


def _clustered(size: int, norm: float) -> Tensor:
    """A matrix whose singular values crowd below the largest."""
    generator = torch.Generator().manual_seed(size)
    left, right = torch.linalg.qr(
        torch.randn(2, size, size, generator=generator, dtype=torch.float64)
    ).Q
    values = 1 - 0.3 * torch.rand(size, generator=generator, dtype=torch.float64) ** 2
    values = values / values.max()
    values[0] = norm
    return (left * values) @ right


@pytest.mark.parametrize("shape", [(40, 40), (10, 60), (60, 10), (1, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_norms_of_matrices_are_exact(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    expected = scipy.linalg.svdvals(weight.double())[0]
    assert spectral_norm(weight).item() == pytest.approx(expected, rel=1e-12)
    found = _krylov(weight, steps=64)
    # As many steps as the smaller side.
    assert found.least == found.most
    assert found.least.item() == pytest.approx(expected, rel=1e-5)


def test_norms_of_clustered_spectra_are_exact_and_the_steps_of_krylov_are_not() -> None:
    weight = _clustered(256, 1.002)
    assert spectral_norm(weight).item() == pytest.approx(1.002, rel=1e-12)
    found = _krylov(weight)
    assert found.least < 1.0015
    assert found.most > 1.002


@pytest.mark.parametrize("gap", [0.001, 0.01, 0.03, 0.1])
def test_upper_bounds_are_not_exceeded_whatever_the_start(gap: float) -> None:
    # A single singular value above a band: the start's share of it decides what is found.
    values = torch.linspace(0, 1 - gap, 2000, dtype=torch.float64)
    values[0] = 1
    weight = torch.diag(values)
    found = [_krylov(weight, 12, seed) for seed in range(20)]
    assert all(each.least <= 1 + 1e-12 <= each.most + 2e-12 for each in found)
    assert min(float(each.least) for each in found) < 1


def test_norms_of_wide_matrices_are_close_and_never_above() -> None:
    weight = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(5))
    found = _krylov(weight)
    norm = torch.linalg.matrix_norm(weight, 2).item()
    assert 0.995 < found.least.item() / norm < 1 + 1e-6
    assert found.most.item() / found.least.item() == pytest.approx(1.08, abs=0.001)
    assert _krylov(weight, steps=4).most == torch.inf
    zero = krylov_norm(lambda v: 0 * v, lambda u: 0 * u, torch.ones(70), 24)
    assert (zero.least, zero.most) == (0, 0)


@pytest.mark.parametrize("by_powers", [None, False, True])
def test_eigenvalues_by_powers_and_by_the_solver(by_powers: bool | None) -> None:
    gram = _clustered(120, 1.0001)
    gram = gram @ gram.mT
    found = largest_eigenvalue(gram, by_powers=by_powers).item()
    assert found == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-8)
    assert largest_eigenvalue(torch.zeros(3, 3).double(), by_powers=by_powers) == 0
    assert largest_eigenvalue(gram * torch.nan, by_powers=by_powers).isnan()
    assert largest_eigenvalue(gram * torch.inf, by_powers=by_powers).isnan()
