"""The landmark table of THEORY §3, on 1e6 draws of each law."""

import math

import pytest
import torch
from scipy import stats

from jaynes_callbacks.counting import count_
from jaynes_callbacks.grid import CODES
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    fit_family,
    gap,
    gap_standard_error,
    log_moments,
    occupied_bins,
)

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
