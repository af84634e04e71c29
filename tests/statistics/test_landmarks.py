"""Landmarks of the microstructure map: on 1e6 draws of each law, and by the cumulants' formulas."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    fit_family,
    gap,
    gap_standard_error,
    generalized_gamma_shape,
    half_student_t_shape,
    landmarks,
    log_moments,
    occupied_bins,
)
from jaynes_callbacks.statistics.landmarks import GAUSSIAN_GAP

DRAWS = 1_000_000

#: Law of w, and of ln w: standard deviation, skewness, excess kurtosis; gap in nats.
LANDMARKS = {
    "lognormal": (stats.lognorm(s=0.5), 0.5, 0.0, 0.0, 0.0),
    "laplace": (stats.expon(), 1.283, -1.140, 2.400, 0.091),
    "gaussian": (stats.halfnorm(), 1.111, -1.535, 4.000, 0.163),
    "uniform": (stats.uniform(), 1.000, -2.000, 6.000, 0.419),
    "t10": (stats.t(df=10), 1.135, -1.433, 3.66, 0.134),
    "t5": (stats.t(df=5), 1.165, -1.313, 3.32, 0.108),
    "t3": (stats.t(df=3), 1.211, -1.125, 2.87, 0.080),
    "cauchy": (stats.cauchy(), math.pi / 2, 0.0, 2.000, 0.033),
    "rayleigh": (stats.rayleigh(), 0.641, -1.140, 2.400, 0.091),
}


@pytest.fixture(scope="module")
def counts() -> torch.Tensor:
    """One row per law: seeded draws, one in each of 1e6 strata.

    Strata remove most of the sampling error (0.001 in a gap, 0.05 in a kurtosis): what is compared
    is the binning and the formulas.
    """
    source = torch.Generator().manual_seed(20240517)
    strata = torch.arange(DRAWS, dtype=torch.float64)
    rows = torch.zeros(len(LANDMARKS), CODES, dtype=torch.int64)
    for row, (law, *_) in enumerate(LANDMARKS.values()):
        uniform = (strata + torch.rand(DRAWS, generator=source, dtype=torch.float64)) / DRAWS
        count_(torch.from_numpy(law.ppf(uniform.numpy())), rows, row)
    return rows


def test_landmarks(counts: torch.Tensor) -> None:
    binned = occupied_bins(counts)
    moments = log_moments(binned)
    gaps = gap(binned, fit_family(LOGNORMAL, binned, moments))
    for row, (name, (_, std, skew, kurtosis, nats)) in enumerate(LANDMARKS.items()):
        assert moments.std[row].item() == pytest.approx(std, abs=0.003), name
        assert moments.skew[row].item() == pytest.approx(skew, abs=0.003), name
        # The table gives two decimals of t's kurtosis, a fourth moment of a long tail.
        assert moments.kurtosis[row].item() == pytest.approx(kurtosis, abs=0.02), name
        assert gaps[row].item() == pytest.approx(nats, abs=0.003), name


def test_independent_draws_agree_within_their_stated_error(counts: torch.Tensor) -> None:
    source = torch.Generator().manual_seed(7)
    rows = torch.zeros_like(counts)
    for row, (law, *_) in enumerate(LANDMARKS.values()):
        uniform = torch.rand(DRAWS, generator=source, dtype=torch.float64)
        count_(torch.from_numpy(law.ppf(uniform.numpy())), rows, row)
    binned = occupied_bins(rows)
    fit = fit_family(LOGNORMAL, binned, log_moments(binned))
    exact = torch.tensor([landmark[-1] for landmark in LANDMARKS.values()], dtype=torch.float64)
    # 0.0006: the table's last digit.
    assert ((gap(binned, fit) - exact).abs() < 4 * gap_standard_error(binned, fit) + 0.0006).all()


# Formulas ----------------------------------------------------------------------------------------


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_formulas_give_the_table() -> None:
    names = {"lognormal": "lognormal", "Laplace": "laplace", "Gaussian": "gaussian"}
    names |= {"uniform": "uniform", "Cauchy": "cauchy"}
    assert landmarks().keys() == names.keys()
    for name, place in landmarks().items():
        assert place == pytest.approx(LANDMARKS[names[name]][2:4], abs=5e-4), name
    shapes = half_student_t_shape(column(10, 5, 3))
    for row, name in enumerate(("t10", "t5", "t3")):
        assert shapes.skew[row].item() == pytest.approx(LANDMARKS[name][2], abs=5e-4), name
        assert shapes.kurtosis[row].item() == pytest.approx(LANDMARKS[name][3], abs=5e-3), name


def shape_by_quadrature(log_density: Callable[[mpmath.mpf], mpmath.mpf]) -> tuple[float, float]:
    """Skewness and excess kurtosis of x from the logarithm of its unnormalised density."""

    def moment(power: int, centre: mpmath.mpf) -> mpmath.mpf:
        return mpmath.quad(
            lambda x: (x - centre) ** power * mpmath.exp(log_density(x)),
            [-400, -60, -20, -8, -4, -1, 0, 1, 3, 8, 20, 60, 400],
        )

    mass = moment(0, mpmath.mpf(0))
    mean = moment(1, mpmath.mpf(0)) / mass
    second, third, fourth = (moment(power, mean) / mass for power in (2, 3, 4))
    return float(third / second**1.5), float(fourth / second**2 - 3)


@pytest.mark.parametrize("q", [-1.7, -0.3, 0.2, 0.7, 1.0, math.sqrt(2), 3.0])
def test_the_generalized_gamma_s_place_is_that_of_its_density(q: float) -> None:
    expected = shape_by_quadrature(lambda x: (q * x - mpmath.exp(q * x)) / q**2)
    shape = generalized_gamma_shape(column(q))
    assert (shape.skew.item(), shape.kurtosis.item()) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("dof", [0.7, 1.0, 3.0, 10.0, 200.0])
def test_student_s_place_is_that_of_its_density(dof: float) -> None:
    expected = shape_by_quadrature(
        lambda x: x - (dof + 1) / 2 * mpmath.log1p(mpmath.exp(2 * x) / dof)
    )
    shape = half_student_t_shape(column(dof))
    assert (shape.skew.item(), shape.kurtosis.item()) == pytest.approx(expected, abs=1e-8)


def polygamma(order: int, x: float) -> mpmath.mpf:
    return mpmath.polygamma(order, mpmath.mpf(x))


@pytest.mark.parametrize("q", [0.05, 0.4, 1.0, 1.9, 9.0])
def test_the_generalized_gamma_s_place_is_exact_to_rounding(q: float) -> None:
    """torch's own ψ' is wrong by up to 5e-10."""
    k = q**-2
    spread = polygamma(1, k)
    shape = generalized_gamma_shape(column(q))
    assert shape.skew.item() == pytest.approx(
        float(polygamma(2, k) / spread ** mpmath.mpf("1.5")), rel=1e-14
    )
    assert shape.kurtosis.item() == pytest.approx(float(polygamma(3, k) / spread**2), rel=1e-14)


@pytest.mark.parametrize("dof", [0.3, 1.0, 4.0, 50.0])
def test_student_s_place_is_exact_to_rounding(dof: float) -> None:
    half, tail = 0.5, dof / 2
    second = (polygamma(1, half) + polygamma(1, tail)) / 4
    third = (polygamma(2, half) - polygamma(2, tail)) / 8
    fourth = (polygamma(3, half) + polygamma(3, tail)) / 16
    shape = half_student_t_shape(column(dof))
    assert shape.skew.item() == pytest.approx(
        float(third / second ** mpmath.mpf("1.5")), rel=1e-14, abs=1e-15
    )
    assert shape.kurtosis.item() == pytest.approx(float(fourth / second**2), rel=1e-14)


def test_the_curves_end_in_their_limits() -> None:
    shape = generalized_gamma_shape(column(-math.inf, -1e9, 0.0, 1e-9, 1e9, math.inf))
    torch.testing.assert_close(shape.skew, column(2, 2, 0, 0, -2, -2), atol=1e-5, rtol=0)
    torch.testing.assert_close(shape.kurtosis, column(6, 6, 0, 0, 6, 6), atol=1e-5, rtol=0)
    light = half_student_t_shape(column(1e9))
    assert (light.skew.item(), light.kurtosis.item()) == pytest.approx(
        landmarks()["Gaussian"], abs=1e-6
    )


def test_the_gap_of_gaussian_weights_is_that_of_a_quadrature() -> None:
    law = stats.halfnorm()
    mean = law.expect(np.log)
    variance = law.expect(lambda w: (np.log(w) - mean) ** 2)
    best = stats.lognorm(math.sqrt(variance), scale=math.exp(mean))
    found = law.expect(lambda w: law.logpdf(w) - best.logpdf(w))
    assert pytest.approx(found, abs=1e-7) == GAUSSIAN_GAP
