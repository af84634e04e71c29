"""Moments from counts against numpy and scipy on the values themselves."""

import numpy as np
import pytest
import torch
from scipy import stats

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import LogMoments, log_moments, occupied_bins, totals

LAWS = {
    "lognormal": stats.lognorm(0.6, scale=0.03),
    "narrow": stats.lognorm(0.15, scale=2.0),
    "half_normal": stats.halfnorm(scale=0.05),
    "uniform": stats.uniform(0, 0.1),
    "heavy": stats.lomax(3.0, scale=4.0),
}
DRAWS = 200_000


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    generator = np.random.default_rng(17)
    return [law.rvs(DRAWS, random_state=generator) for law in LAWS.values()]


@pytest.fixture(scope="module")
def moments(samples: list[np.ndarray]) -> LogMoments:
    counts = torch.zeros(len(samples), CODES, dtype=torch.int64)
    for row, sample in enumerate(samples):
        count_(torch.from_numpy(sample), counts, row)
    return log_moments(occupied_bins(counts))


@pytest.mark.parametrize("row", range(len(LAWS)), ids=list(LAWS))
def test_moments_are_those_of_the_values(
    row: int, samples: list[np.ndarray], moments: LogMoments
) -> None:
    values = samples[row].astype(np.float32).astype(np.float64)
    logs = np.log(values)
    expected = {
        "mean": logs.mean(),
        "std": logs.std(),
        "skew": stats.skew(logs),
        "kurtosis": stats.kurtosis(logs),
        "linear_mean": values.mean(),
        "rms": np.sqrt((values**2).mean()),
    }
    # Relative to the spread: a bin is a third of the narrow law's.
    slack = {"mean": 0.003, "std": 0.002, "skew": 0.008, "kurtosis": 0.03}
    for name, value in expected.items():
        found = getattr(moments, name)[row].item()
        scale = logs.std() if name in ("mean", "std") else 1.0
        allowed = slack.get(name, 0.002 * abs(value)) * scale
        assert abs(found - value) < allowed, (name, found, value)


def test_sheppard_s_corrections_are_needed_and_right(samples: list[np.ndarray]) -> None:
    """Without them the variance of a narrow law is too large by the bins' own."""
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(torch.from_numpy(samples[1]), counts, 0)
    binned = occupied_bins(counts)
    share, middle = binned.share[0], binned.middle[0]
    mean = (share * middle).sum()
    plain = (share * (middle - mean) ** 2).sum().item()
    true = np.log(samples[1]).var()
    corrected = log_moments(binned).std[0].item() ** 2
    assert plain / true - 1 > 0.005
    assert abs(corrected / true - 1) < 0.002


def test_nothing_to_average_is_nan() -> None:
    counts = torch.zeros(2, CODES, dtype=torch.int64)
    counts[1, 2000] = 7
    empty, single = torch.stack(log_moments(occupied_bins(counts)), 1).tolist()
    assert np.isnan(empty).all()
    names = LogMoments._fields
    finite = {name for name, value in zip(names, single, strict=True) if np.isfinite(value)}
    assert finite == {"mean", "linear_mean", "rms"}


def test_totals_add_up() -> None:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(torch.tensor([0.0, -0.0, 1.0, -2.0, 3.0, torch.inf, torch.nan]), counts, 0)
    assert [column.item() for column in totals(counts)] == [3, 2, 2]
