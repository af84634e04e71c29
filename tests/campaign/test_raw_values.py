"""Fits to counts against maximum likelihood on the raw values, by scipy or in closed form.

Stated and tested: binning moves a parameter by less than a tenth of its standard error, whatever
the sample's size; for 1e5 values by less than a thousandth of itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import FAMILY_BY_NAME, fit_family, log_moments, occupied_bins
from tests.oracles import LAWS
from tests.statistics.standard_errors import standard_errors

Array = np.ndarray


def _lognormal(w: Array) -> tuple[float, ...]:
    shape, _, scale = stats.lognorm.fit(w, floc=0)
    return np.log(scale), shape


def _half_student_t(w: Array) -> tuple[float, ...]:
    dof, _, scale = stats.t.fit(np.concatenate([w, -w]), floc=0)
    return scale, dof


def _generalized_gamma(w: Array) -> tuple[float, ...]:
    """scipy's own search runs off to its bounds: maximise from beside the truth."""

    def loss(theta: Array) -> float:
        return -float(LAWS["generalized_gamma"](*theta).logpdf(w).mean())

    options = {"xatol": 1e-7, "fatol": 1e-13, "maxiter": 4000}
    found = optimize.minimize(loss, (-2.9, 0.5, 0.7), method="Nelder-Mead", options=options)
    return tuple(found.x)


def _shape_and_scale(law: Any) -> Callable[[Array], tuple[float, ...]]:
    def fitted(w: Array) -> tuple[float, ...]:
        shape, _, scale = law.fit(w, floc=0)
        return shape, scale

    return fitted


CASES: dict[str, tuple[Any, Callable[[Array], tuple[float, ...]]]] = {
    "lognormal": (stats.lognorm(0.5, scale=0.05), _lognormal),
    "half_normal": (stats.norm(scale=0.05), lambda w: (stats.halfnorm.fit(w, floc=0)[1],)),
    "exponential": (stats.expon(scale=0.05), lambda w: (stats.expon.fit(w, floc=0)[1],)),
    "half_student_t": (stats.t(4, scale=0.05), _half_student_t),
    "weibull": (stats.weibull_min(1.7, scale=0.05), _shape_and_scale(stats.weibull_min)),
    "gamma": (stats.gamma(3.0, scale=0.02), _shape_and_scale(stats.gamma)),
    "generalized_gamma": (LAWS["generalized_gamma"](-3.0, 0.6, 0.8), _generalized_gamma),
}


@pytest.mark.parametrize(
    ("size", "number"),
    # scipy takes seconds for each of the large ones.
    [(1_000, 3), (100_000, 1), pytest.param(100_000, 3, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sampled(4)
def test_binning_moves_parameters_by_less_than_a_tenth_of_their_error(
    name: str, size: int, number: int
) -> None:
    law, fit_by_scipy = CASES[name]
    generator = np.random.default_rng(20)
    samples = [np.abs(law.rvs(size, random_state=generator)) for _ in range(number)]
    counts = torch.zeros(number, CODES, dtype=torch.int64)
    for row, sample in enumerate(samples):
        count_(torch.from_numpy(sample), counts, row)
    binned = occupied_bins(counts)
    fit = fit_family(FAMILY_BY_NAME[name], binned, log_moments(binned))
    raw = torch.tensor(np.array([fit_by_scipy(sample) for sample in samples]))
    moved = (fit.parameters - raw).abs()
    assert (moved < 0.1 * standard_errors(binned, fit)).all()
    if size >= 100_000:
        assert (moved < 1e-3 * raw.abs()).all()


@pytest.mark.parametrize("limit", [0.05, 2.0**-4, 0.0633])
def test_the_uniform_s_limit_is_known_to_its_bin(limit: float) -> None:
    """Raw values give their maximum; counts the upper edge of its bin, at most 1/16 above it."""
    sample = stats.uniform(0, limit).rvs(100_000, random_state=np.random.default_rng(20))
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(torch.from_numpy(sample), counts, 0)
    binned = occupied_bins(counts)
    fit = fit_family(FAMILY_BY_NAME["uniform"], binned, log_moments(binned))
    ratio = fit.parameters.item() / sample.max()
    assert 1 <= ratio <= 1 + 1 / 16
