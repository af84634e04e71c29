"""The batched engine against scipy's optimisers and distributions, one stream at a time."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES, log_edges
from jaynes_callbacks.statistics import (
    FAMILIES,
    GENERALIZED_GAMMA,
    Family,
    Fit,
    Status,
    fit_families,
    fit_family,
    log_moments,
    occupied_bins,
)
from tests.oracles import LAWS

TRUTHS = {
    "lognormal": stats.lognorm(0.7, scale=0.02),
    "narrow": stats.lognorm(0.05, scale=1.0),
    "half_normal": stats.halfnorm(scale=0.05),
    "exponential": stats.expon(scale=2.0),
    "cauchy": stats.halfcauchy(scale=0.1),
    "weibull": stats.weibull_min(1.7, scale=0.3),
    "gamma": stats.gamma(0.4, scale=1.0),
    "loggamma": stats.invgamma(1.5, scale=1.0),
}


def counts_of(*samples: np.ndarray) -> torch.Tensor:
    counts = torch.zeros(len(samples), CODES, dtype=torch.int64)
    for row, sample in enumerate(samples):
        count_(torch.from_numpy(sample), counts, row)
    return counts


@pytest.fixture(scope="module")
def counts() -> torch.Tensor:
    generator = np.random.default_rng(11)
    return counts_of(*(law.rvs(20_000, random_state=generator) for law in TRUTHS.values()))


def fitted(family: Family, counts: torch.Tensor) -> Fit:
    binned = occupied_bins(counts)
    return fit_family(family, binned, log_moments(binned))


def grouped_likelihood(name: str, counts: torch.Tensor, parameters: list[float]) -> float:
    """Mean log-likelihood of one row's counts, bin masses from the smaller tail by scipy."""
    law = LAWS[name](*parameters)
    code = counts.nonzero().squeeze(-1)
    edge = log_edges().exp()
    low, high = edge[code].numpy(), edge[code + 1].numpy()
    with np.errstate(divide="ignore"):
        mass = np.where(
            law.cdf(low) < 0.5, law.cdf(high) - law.cdf(low), law.sf(low) - law.sf(high)
        )
        share = counts[code].numpy() / counts.sum().item()
        return float((share * np.log(mass)).sum())


#: The uniform's limit is an edge, which Newton's method does not find.
FITTABLE = [family for family in FAMILIES if family.name != "uniform"]


@pytest.mark.parametrize("family", FITTABLE, ids=lambda family: family.name)
@pytest.mark.parametrize("row", range(len(TRUTHS)), ids=list(TRUTHS))
@pytest.mark.sampled(5)
def test_grouped_maximum_likelihood_is_scipy_s(
    family: Family, row: int, counts: torch.Tensor
) -> None:
    """No parameters near ours, and none that Nelder-Mead finds, have a higher likelihood."""
    fit = fitted(family, counts)
    if fit.status[row] == Status.AT_BOUND:
        pytest.skip("a boundary: another law is the optimum")
    if family is GENERALIZED_GAMMA and fit.parameters[row, 2].abs() < 0.1:
        pytest.skip("scipy's parametrisation has no lognormal limit")
    assert fit.status[row] == Status.CONVERGED
    ours = fit.parameters[row].tolist()
    positive = [parameter.scale != "linear" for parameter in family.parameters]

    def loss(theta: np.ndarray) -> float:
        natural = [math.exp(t) if p else t for t, p in zip(theta, positive, strict=True)]
        value = -grouped_likelihood(family.name, counts[row], natural)
        return value if math.isfinite(value) else 1e300

    theta = np.array([math.log(v) if p else v for v, p in zip(ours, positive, strict=True)])
    if not loss(theta) < 1e3:
        pytest.skip("a bin's mass underflows in scipy")
    log_mass = fit.log_mass[row].nan_to_num(neginf=0.0)
    share = occupied_bins(counts).share[row]
    assert loss(theta) == pytest.approx(-(share * log_mass).sum().item(), rel=1e-9)
    found = optimize.minimize(
        loss, theta + 0.02, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}
    )
    assert found.fun >= loss(theta) - 1e-11
    np.testing.assert_allclose(found.x, theta, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_edge_of_uniform_weights_is_reached(seed: int) -> None:
    """Torch's own initialisation: its edge falls anywhere within a bin, and q goes to its bound."""
    generator = np.random.default_rng(seed)
    bounds = 1 / np.sqrt([784, 1024, 300, 64])
    counts = counts_of(*(generator.uniform(0, bound, 200_000) for bound in bounds))
    fit = fitted(GENERALIZED_GAMMA, counts)
    allowed = {int(Status.CONVERGED), int(Status.AT_BOUND), int(Status.SKEW_OUT_OF_RANGE)}
    assert set(fit.status.tolist()) <= allowed
    assert fit.iterations.max() < 40


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_all_families_in_several_threads_are_those_one_by_one(
    counts: torch.Tensor, mode: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaynes_callbacks.statistics.fit._CPU_BATCH", 1000)
    with mode():
        binned = occupied_bins(counts)
        moments = log_moments(binned)
        together = fit_families(binned, moments, threads=2)
        assert list(together) == [family.name for family in FAMILIES]
        for family in FAMILIES:
            alone = fit_family(family, binned, moments)
            for got, expected in zip(together[family.name][1:], alone[1:], strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
