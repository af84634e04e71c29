"""Variance within and between neurons: landmarks, numpy's own analysis, and symmetries."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from jaynes_callbacks.counts.log_powers import POWERS, add_log_powers_
from jaynes_callbacks.statistics.neurons import NeuronMoments, NeuronStatus, neuron_moments

HALF_NORMAL = (math.pi**2 / 8, -1.5351, 4.0)


def _moments(y: Tensor, padding: int = 0) -> NeuronMoments:
    """Analyse one stream of samples × neurons."""
    table = torch.zeros(1, y.shape[1] + padding, POWERS, dtype=torch.float64)
    add_log_powers_(y, None, table, 0)
    return neuron_moments(table)


def _of_logs(logs: Sequence[Sequence[float]]) -> NeuronMoments:
    """Analyse neurons given by the logarithms of their values, of any number each."""
    rows = [[len(own), *(sum(x**power for x in own) for power in range(5))] for own in logs]
    return neuron_moments(torch.tensor([rows], dtype=torch.float64))


def _normal(rows: int, neurons: int, seed: int) -> Tensor:
    return torch.randn(rows, neurons, generator=torch.Generator().manual_seed(seed)).double()


# Landmarks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_independent_lognormal_values_have_nothing_between(sigma: float) -> None:
    rows, neurons = 2000, 500
    found = _moments((sigma * _normal(rows, neurons, 1)).exp())
    # V_r varies about 0 with standard deviation V_e √(2/J)/n.
    assert found.share.item() < 4 * math.sqrt(2 / neurons) / rows
    n = rows * neurons
    assert found.within.item() == pytest.approx(sigma, rel=4 / math.sqrt(2 * n))
    assert abs(found.skew.item()) < 4 * math.sqrt(6 / n)
    assert abs(found.kurtosis.item()) < 4 * math.sqrt(24 / n)
    assert found.status.item() == NeuronStatus.OK


@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 2.0])
def test_scales_of_half_normal_values_have_their_share(s: float) -> None:
    rows, neurons = 500, 2000
    scales = (s * _normal(1, neurons, 2)).exp()
    found = _moments(_normal(rows, neurons, 3).abs() * scales)
    variance, skew, kurtosis = HALF_NORMAL
    share = s**2 / (s**2 + variance)
    # The variance of 2,000 drawn scales has a relative standard error of √(2/J).
    error = share * (1 - share) * math.sqrt(2 / neurons)
    assert found.share.item() == pytest.approx(share, abs=4 * error + 3e-4)
    assert found.between.item() == pytest.approx(s, rel=4 / math.sqrt(2 * neurons), abs=0.01)
    assert found.within.item() ** 2 == pytest.approx(variance, rel=0.01)
    assert found.skew.item() == pytest.approx(skew, abs=0.02)
    assert found.kurtosis.item() == pytest.approx(kurtosis, abs=0.12)


def test_share_is_unbiased_where_neurons_have_few_values() -> None:
    shares, rows = [], 4
    for seed in range(200):
        scales = _normal(1, 100, 1000 + seed).exp()
        shares.append(_moments(_normal(rows, 100, seed).exp() * scales).share.item())
    # Variance 1 between and 1 within; without the correction it would be 5/9.
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.std(shares) / math.sqrt(200) + 0.003)


def test_centring_by_few_values_is_divided_out() -> None:
    """Three to six values a neuron: uncorrected, the skewness would be a third too small."""
    source = np.random.default_rng(4)
    logs = [np.log(np.abs(source.standard_normal(3 + place % 4))) for place in range(120_000)]
    found = _of_logs([own.tolist() for own in logs])
    variance, skew, kurtosis = HALF_NORMAL
    assert found.within.item() ** 2 == pytest.approx(variance, rel=0.01)
    assert found.skew.item() == pytest.approx(skew, abs=0.02)
    assert found.kurtosis.item() == pytest.approx(kurtosis, abs=0.15)


# Oracles ------------------------------------------------------------------------------------


def test_variances_are_those_of_numpy() -> None:
    source = np.random.default_rng(5)
    logs = [source.normal(source.normal(), 0.7, size).tolist() for size in (1, 2, 5, 9, 30, 4)]
    found = _of_logs([*logs, []])
    within = sum(np.sum((np.array(own) - np.mean(own)) ** 2) for own in logs) / (51 - 6)
    between = np.var([np.mean(own) for own in logs], ddof=1)
    between -= within * np.mean([1 / len(own) for own in logs])
    assert between > 0
    assert found.within.item() == pytest.approx(math.sqrt(within), rel=1e-12)
    assert found.between.item() == pytest.approx(math.sqrt(between), rel=1e-12)
    assert found.share.item() == pytest.approx(between / (between + within), rel=1e-12)
    assert found.n.item() == 51


def test_one_neuron_s_third_cumulant_is_scipy_s() -> None:
    own = np.random.default_rng(6).gamma(2.0, size=9)
    found = _of_logs([own.tolist()])
    cumulant = found.skew.item() * found.within.item() ** 3
    assert cumulant == pytest.approx(stats.kstat(own, 3), rel=1e-10)
    assert found.within.item() ** 2 == pytest.approx(stats.kstat(own, 2), rel=1e-10)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_fourth_moments_of_residuals_are_what_is_divided_out(size: int) -> None:
    """All draws of so many values from {0, 0, 3}: the expectations without sampling error."""
    population = np.array([0.0, 0.0, 3.0])
    draws = np.stack(np.meshgrid(*[population] * size), -1).reshape(-1, size)
    variance = population.var()
    kappa4 = np.mean((population - population.mean()) ** 4) - 3 * variance**2
    found = _of_logs(draws.tolist())
    # Many neurons: their pooled variance is the population's.
    assert found.within.item() ** 2 == pytest.approx(variance, rel=1e-12)
    assert found.kurtosis.item() == pytest.approx(kappa4 / variance**2, rel=1e-10)
    if size > 2:
        assert found.skew.item() == pytest.approx(stats.skew(population), rel=1e-10)
    else:
        assert math.isnan(found.skew.item())


# Symmetries ---------------------------------------------------------------------------------


def test_scales_of_neurons_change_nothing_within() -> None:
    y = _normal(400, 60, 7).float().relu()
    scales = (8 * _normal(1, 60, 8)).exp().float()
    plain, scaled = _moments(y), _moments(y * scales)
    for name in ("within", "skew", "kurtosis"):
        before, after = getattr(plain, name).item(), getattr(scaled, name).item()
        assert after == pytest.approx(before, abs=1e-6), name
    assert scaled.share > 0.9 > plain.share
    assert scaled.n == plain.n


def test_streams_and_padding_are_independent() -> None:
    one, other = _normal(50, 6, 9).exp(), _normal(80, 9, 10).abs()
    table = torch.zeros(2, 12, POWERS, dtype=torch.float64)
    add_log_powers_(one, None, table, 0)
    add_log_powers_(other, None, table, 1)
    together = neuron_moments(table)
    for place, alone in enumerate((_moments(one), _moments(other))):
        for field, values in zip(together._fields, together, strict=True):
            assert values[place].item() == pytest.approx(getattr(alone, field).item(), rel=1e-12), (
                field
            )


# What is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logs", "status", "missing"),
    [
        ([[], []], NeuronStatus.EMPTY, {"share", "between", "within", "skew", "kurtosis"}),
        (
            [[1.0], [2.0]],
            NeuronStatus.SINGLE_VALUES,
            {"share", "between", "within", "skew", "kurtosis"},
        ),
        ([[1.0, 1.0], [2.0, 2.0]], NeuronStatus.CONSTANT, {"skew", "kurtosis"}),
        ([[1.0, 2.0, 4.0], []], NeuronStatus.ONE_NEURON, {"share", "between"}),
        ([[1.0, 2.0, 4.0], [0.0, 1.5, 5.0]], NeuronStatus.OK, set()),
    ],
)
def test_missing_figures_have_a_reason(
    logs: list[list[float]], status: NeuronStatus, missing: set[str]
) -> None:
    found = _of_logs(logs)
    assert found.status.item() == status
    assert (status.reason == "ok") == (not missing)
    figures = ("share", "between", "within", "skew", "kurtosis")
    assert {name for name in figures if getattr(found, name).isnan().item()} == missing


def test_dead_neurons_are_counted() -> None:
    y = _normal(30, 5, 11).abs()
    y[:, 2] = 0
    found = _moments(y, padding=3)
    assert (found.neurons.item(), found.dead.item(), found.n.item()) == (5, 1, 120)
