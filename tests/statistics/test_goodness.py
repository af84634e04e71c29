"""Distances against direct computation on one stream's bins, by numpy and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    LOGNORMAL,
    Binned,
    Fit,
    distances,
    fit_family,
    gap,
    gap_standard_error,
    log_moments,
    occupied_bins,
    vuong_z,
)

HALF_NORMAL = FAMILY_BY_NAME["half_normal"]


def counts_of(*tensors: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64)
    for row, tensor in enumerate(tensors):
        count_(tensor, counts, row)
    return counts


def fitted(counts: torch.Tensor) -> tuple[Binned, Fit]:
    binned = occupied_bins(counts)
    return binned, fit_family(LOGNORMAL, binned, log_moments(binned))


@pytest.fixture
def normal(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(50_000, generator=generator)


def test_distances_against_numpy(normal: torch.Tensor) -> None:
    # The second row pads the first, which is narrower.
    binned, fit = fitted(counts_of((normal / 3).exp(), normal))
    ours = distances(binned, fit)
    for row in range(2):
        number = int(binned.occupied_number[row])
        mu, sigma = fit.parameters[row].tolist()
        low, high = (
            (edge[row, :number].numpy() - mu) / sigma for edge in (binned.lower, binned.upper)
        )
        share = binned.share[row, :number].numpy()
        model = stats.norm.cdf(high) - stats.norm.cdf(low)
        assert ours.tv[row].item() == pytest.approx(
            (np.abs(share - model).sum() + 1 - model.sum()) / 2, rel=1e-8
        )
        above = np.cumsum(share)
        ks = max(
            np.abs(above - stats.norm.cdf(high)).max(),
            np.abs(above - share - stats.norm.cdf(low)).max(),
        )
        assert ours.ks[row].item() == pytest.approx(ks, rel=1e-8)
        assert ours.n_star[row].item() == pytest.approx((0.895 / ks) ** 2, rel=1e-8)


def test_transport_against_the_raw_values(normal: torch.Tensor) -> None:
    """The sorted values' distance to their normal quantiles; bins move it by less than 1 %."""
    two_heaps = torch.cat([(normal / 20).exp(), 50 * (normal / 10).exp()])
    samples = [normal, (normal / 3).exp(), two_heaps, normal.abs() ** 0.4]
    binned, fit = fitted(counts_of(*samples))
    ours = distances(binned, fit).w1
    for row, sample in enumerate(samples):
        mu, sigma = fit.parameters[row].tolist()
        z = np.sort((sample.double().abs().log().numpy() - mu) / sigma)
        quantiles = stats.norm.ppf((np.arange(len(z)) + 0.5) / len(z))
        exact = np.abs(z - quantiles).mean()
        assert ours[row].item() == pytest.approx(exact, rel=0.01, abs=5e-4), row


def test_the_gap_is_the_bias_corrected_divergence(normal: torch.Tensor) -> None:
    binned, fit = fitted(counts_of(normal))
    share, log_mass = binned.share[0], fit.log_mass[0]
    plain = (share * (share.log() - log_mass)).sum().item()
    correction = (len(share) - 1 - 2) / (2 * len(normal))
    assert gap(binned, fit).item() == pytest.approx(plain - correction, abs=1e-12)


def test_the_correction_removes_the_bias(generator: torch.Generator) -> None:
    """Of a true lognormal, whose gap is zero, but for the rest that `gap` states: 20/n."""
    number, n = 200, 20_000
    draws = [torch.randn(n, generator=generator).exp() for _ in range(number)]
    binned, fit = fitted(counts_of(*draws))
    rest = 20 / n
    corrected = gap(binned, fit)
    assert abs(corrected.mean().item()) < rest
    plain = corrected + (binned.occupied_number - 3) / (2 * n)
    assert plain.mean().item() > 3 * rest
    tilted = binned.tilted(0.3)
    tilted_gaps = gap(tilted, fit_family(LOGNORMAL, tilted, log_moments(tilted)))
    assert abs(tilted_gaps.mean().item()) < 2 * rest


def test_the_gap_s_error_is_its_spread_over_draws(generator: torch.Generator) -> None:
    draws = [torch.randn(20_000, generator=generator) for _ in range(200)]
    binned, fit = fitted(counts_of(*draws))
    spread = gap(binned, fit).std().item()
    assert gap_standard_error(binned, fit).mean().item() == pytest.approx(spread, rel=0.2)


def test_vuong_s_z(normal: torch.Tensor) -> None:
    binned, lognormal = fitted(counts_of(normal))
    rival = fit_family(HALF_NORMAL, binned, log_moments(binned))
    z = vuong_z(binned, lognormal, rival).item()
    count = binned.weights[0].numpy()
    ratio = (lognormal.log_mass - rival.log_mass)[0].numpy()
    n = count.sum()
    spread = np.sqrt((count * (ratio - (count * ratio).sum() / n) ** 2).sum() / n)
    expected = ((count * ratio).sum() - (2 - 1) * math.log(n) / 2) / (math.sqrt(n) * spread)
    assert z == pytest.approx(expected)
    assert z < -10
    assert vuong_z(binned, rival, lognormal).item() == pytest.approx(-z)


def test_a_mean_likelihood_ratio_is_the_difference_of_gaps(normal: torch.Tensor) -> None:
    binned, lognormal = fitted(counts_of(normal))
    rival = fit_family(HALF_NORMAL, binned, log_moments(binned))
    ratio = (binned.share * (lognormal.log_mass - rival.log_mass)).sum().item()
    corrected = (gap(binned, rival) - gap(binned, lognormal)).item()
    assert corrected == pytest.approx(ratio - 1 / (2 * len(normal)), abs=1e-12)


def test_censoring_opens_the_lowest_bins(normal: torch.Tensor) -> None:
    """A lognormal spoilt near zero is one again; what lies above counts as it did."""
    clean = (0.5 * normal).exp()
    spoilt = torch.cat([clean, torch.full((500,), 1e-6)])
    binned, fit = fitted(counts_of(clean, spoilt))
    censored = binned.censored()
    assert censored.total.tolist() == binned.total.tolist()
    # The same moments may start both: they need not be the censored law's.
    found = fit_family(LOGNORMAL, censored, log_moments(binned))
    assert gap(binned, fit)[1].item() > 0.1
    assert gap(censored, found).abs().max().item() < 0.005
    assert found.parameters[1].tolist() == pytest.approx([0.0, 0.5], abs=0.03)


def test_tilting_a_lognormal_keeps_its_width(normal: torch.Tensor) -> None:
    binned, _ = fitted(counts_of((0.5 * normal).exp(), normal))
    tilted = log_moments(binned.tilted())
    assert tilted.std[0].item() == pytest.approx(0.5, abs=0.01)
    assert tilted.mean[0].item() == pytest.approx(0.25, abs=0.01)
    assert tilted.std[1].item() == pytest.approx(math.pi / math.sqrt(24), abs=0.01)
