import pytest
import torch

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import FAMILIES, Status, fit_family, gap, log_moments
from jaynes_callbacks.statistics import likelihood as likelihoods
from jaynes_callbacks.statistics.binned import occupied_bins
from jaynes_callbacks.statistics.families import SmoothFamily
from jaynes_callbacks.statistics.likelihood import CoarseLikelihood, Likelihood
from tests.statistics.standard_errors import standard_errors

SMOOTH = [family for family in FAMILIES if isinstance(family, SmoothFamily)]


@pytest.fixture(scope="module")
def binned():
    source = torch.Generator().manual_seed(3)
    gaussian = torch.randn(3, 40_000, generator=source)
    values = [gaussian[0], (0.6 * gaussian[1]).exp(), gaussian[2] * (0.5 * gaussian[1]).exp()]
    counts = torch.zeros(len(values), CODES, dtype=torch.int64)
    for row, each in enumerate(values):
        count_(each, counts, row)
    return occupied_bins(counts)


def coordinates(family, binned):
    return family.coordinates(family.start(binned, log_moments(binned))) + 0.1


@pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)
def test_the_derivatives_are_those_of_the_value(family, binned):
    function = Likelihood.of(family, binned, exact_hessian=False)
    theta, by = coordinates(family, binned), 1e-5
    point = function.at(theta)
    for place in range(theta.shape[1]):
        step = torch.zeros_like(theta)
        step[:, place] = by
        ahead, behind = function.at(theta + step), function.at(theta - step)
        slope = (ahead.value - behind.value) / (2 * by)
        torch.testing.assert_close(point.gradient[:, place], slope, rtol=1e-6, atol=1e-7)
        curvature = (ahead.gradient - behind.gradient) / (2 * by)
        # Its start is far from the optimum of heavy tails, where the density falls within a bin.
        coarse = 0.15 if family.name == "generalized_normal" else 0.05
        torch.testing.assert_close(point.hessian[:, place], curvature, rtol=coarse, atol=5e-3)


@pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)
def test_the_exact_hessian_is_exact(family, binned):
    function = Likelihood.of(family, binned, exact_hessian=True)
    theta, by = coordinates(family, binned), 1e-5
    step = torch.zeros_like(theta)
    step[:, 0] = by
    curvature = (function.at(theta + step).gradient - function.at(theta - step).gradient) / (2 * by)
    torch.testing.assert_close(function.at(theta).hessian[:, 0], curvature, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)
def test_merged_bins_have_nearly_the_same_optimum(family, binned):
    fine = Likelihood.of(family, binned, exact_hessian=False)
    theta = coordinates(family, binned)
    coarse = CoarseLikelihood.of(fine)
    limits = (0.15, 0.04) if family.name == "generalized_normal" else (0.02, 5e-3)
    torch.testing.assert_close(
        coarse.at(theta).gradient, fine.at(theta).gradient, rtol=limits[0], atol=limits[1]
    )
    torch.testing.assert_close(coarse.merged.share.sum(-1), fine.share.sum(-1))
    means = [(part.share * part.middle).sum(-1) for part in (coarse.merged, fine.merged)]
    torch.testing.assert_close(*means)


@pytest.mark.parametrize("family", SMOOTH, ids=lambda family: family.name)
def test_two_nodes_are_enough_to_fit(family, binned, monkeypatch):
    moments = log_moments(binned)
    fit = fit_family(family, binned, moments)
    monkeypatch.setattr(likelihoods, "FIT_NODES", 8)
    exact = fit_family(family, binned, moments)
    ok = fit.status == Status.CONVERGED
    assert ok.any()
    moved = (fit.parameters - exact.parameters).abs() / standard_errors(binned, exact)
    assert moved[ok].max() < 1e-3
    assert (gap(binned, fit) - gap(binned, exact))[ok].abs().max() < 1e-10
