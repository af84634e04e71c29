"""Generate -> fit: parameters come back within their standard errors, which are the right ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    Binned,
    Family,
    Fit,
    Status,
    fit_family,
    log_moments,
    occupied_bins,
)
from tests.statistics.standard_errors import standard_errors

Laws = dict[str, Callable[..., Any]]
Draw = Callable[..., Tensor]

GRID: list[tuple[str, tuple[float, ...]]] = [
    ("lognormal", (-3.0, 0.5)),
    ("lognormal", (0.0, 1.5)),
    ("lognormal", (2.0, 0.1)),
    ("half_normal", (0.02,)),
    ("half_normal", (5.0,)),
    ("exponential", (0.1,)),
    ("exponential", (30.0,)),
    ("half_student_t", (0.2, 1.0)),
    ("half_student_t", (0.05, 3.0)),
    ("half_student_t", (1.0, 8.0)),
    ("weibull", (0.7, 0.1)),
    ("weibull", (1.5, 1.0)),
    ("weibull", (4.0, 3.0)),
    ("gamma", (0.4, 1.0)),
    ("gamma", (2.0, 0.1)),
    ("gamma", (20.0, 3.0)),
    ("generalized_gamma", (-3.0, 0.5, 0.5)),
    ("generalized_gamma", (0.0, 1.0, 1.5)),
    ("generalized_gamma", (0.0, 0.7, -0.6)),
]
SIZES = (1_000, 100_000, 10_000_000)


def _fit(family: Family, counts: Tensor) -> tuple[Binned, Fit]:
    binned = occupied_bins(counts)
    return binned, fit_family(family, binned, log_moments(binned))


def _errors(binned: Binned, fit: Fit, truth: tuple[float, ...]) -> Tensor:
    """Errors of the converged streams over their standard errors."""
    converged = fit.status == Status.CONVERGED
    difference = fit.parameters - torch.tensor(truth, dtype=torch.float64)
    return (difference / standard_errors(binned, fit))[converged]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "truth"), GRID)
@pytest.mark.sampled(4)
def test_parameters_come_back_within_four_standard_errors(
    name: str, truth: tuple[float, ...], size: int, laws: Laws, draw: Draw
) -> None:
    counts = draw(laws[name](*truth), size, repeats=5, seed=size)
    errors = _errors(*_fit(FAMILY_BY_NAME[name], counts), truth)
    # A thousand values of a law whose ln is as skewed as a uniform's can leave the family's range.
    assert len(errors) >= (5 if name != "generalized_gamma" else 4)
    assert errors.abs().max() < 4


@pytest.mark.parametrize(("name", "truth"), GRID)
@pytest.mark.sampled(4)
def test_standard_errors_cover(name: str, truth: tuple[float, ...], laws: Laws, draw: Draw) -> None:
    """Over 600 draws of 20,000 values: 95 % intervals hold 95 %, errors scatter by one."""
    counts = draw(laws[name](*truth), 20_000, repeats=600, seed=77)
    errors = _errors(*_fit(FAMILY_BY_NAME[name], counts), truth)
    assert len(errors) == 600
    covered = (errors.abs() < 1.96).double().mean(0)
    # Four binomial standard errors of 600 draws.
    assert ((covered - 0.95).abs() < 0.036).all(), covered
    assert ((errors.std(0) - 1).abs() < 0.12).all(), errors.std(0)
    assert (errors.mean(0).abs() < 4 / np.sqrt(600)).all(), errors.mean(0)


@pytest.mark.parametrize("limit", [0.05, 1.0, 1.37, 60.0])
@pytest.mark.parametrize("size", SIZES)
def test_uniform_limit(limit: float, size: int, laws: Laws, draw: Draw) -> None:
    """From the share of the highest bin, whose binomial scatter gives the error.

    A limit on an edge is found exactly: its bin holds what a whole bin of that law would.
    """
    counts = draw(laws["uniform"](limit), size, repeats=50, seed=5)
    binned, fit = _fit(FAMILY_BY_NAME["uniform"], counts)
    found = fit.parameters[:, 0]
    top = int((counts[0] > 0).nonzero().max())
    share = counts[:, top].double() / size
    edge = binned.lower.exp().amax()
    scatter = edge * (share * (1 - share) / size).sqrt() / (1 - share) ** 2
    assert ((found - limit).abs() <= 4.5 * scatter + 1e-9).all()
    assert ((found - limit) / scatter).mean().abs() < 1.0
