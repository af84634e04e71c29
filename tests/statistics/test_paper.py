"""The paper's protocol against `scipy.optimize.curve_fit`, its landmarks and its limits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from scipy import optimize, stats
from torch import Tensor

from jaynes_callbacks.counts.counting import count, count_
from jaynes_callbacks.counts.grid import CODES, FIRST_POSITIVE, edges
from jaynes_callbacks.statistics.paper import (
    PaperFit,
    gaussian_masses,
    gaussian_paper_fit,
    linear_from_counts,
    paper_protocol,
)
from jaynes_callbacks.statistics.status import Status

Array = np.ndarray
BINS = 100
CENTRES = (np.arange(BINS) + 0.5) / BINS

LAWS: dict[str, Callable[[Generator, int], Array]] = {
    "gaussian": lambda rng, n: rng.normal(size=n),
    "student": lambda rng, n: rng.standard_t(rng.uniform(4, 20), n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, rng.uniform(0.2, 1.2), n),
    "weibull": lambda rng, n: rng.weibull(rng.uniform(0.8, 4), n),
    "gamma": lambda rng, n: rng.gamma(rng.uniform(0.5, 10), size=n),
    "triangular": lambda rng, n: rng.beta(1, rng.uniform(1.5, 6), n),
}


def _protocol_on(samples: list[Array], bins: int = BINS) -> PaperFit:
    tensors = [torch.tensor(sample, dtype=torch.float32) for sample in samples]
    binned = [count(tensor, bins) for tensor in tensors]
    rms = torch.stack([tensor.double().square().mean().sqrt() for tensor in tensors])
    maximum = torch.stack([one.maximum for one in binned]).double()
    return paper_protocol(torch.stack([one.linear for one in binned]), maximum, rms)


def _density(x: Array, amplitude: float, mu: float, sigma: float) -> Array:
    return amplitude * stats.lognorm.pdf(x, sigma, scale=np.exp(mu))


def _slopes(x: Array, amplitude: float, mu: float, sigma: float) -> Array:
    density, z = _density(x, 1.0, mu, sigma), (np.log(x) - mu) / sigma
    by_mu, by_sigma = amplitude * density * z / sigma, amplitude * density * (z**2 - 1) / sigma
    return np.stack([density, by_mu, by_sigma], axis=1)


def _curve_fit(counts: Array) -> tuple[float, float, float, float]:
    """R², μ', σ', A' by scipy, driven to the limits of float64."""
    y = counts * CENTRES
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
    start = [y.sum() / BINS / y.max(), -1.5, 0.7]
    (amplitude, mu, sigma), _ = optimize.curve_fit(
        _density, CENTRES, y / y.max(), p0=start, jac=_slopes, method="lm", maxfev=4000, **tight
    )
    amplitude *= y.max()
    left = ((y - _density(CENTRES, amplitude, mu, sigma)) ** 2).sum()
    return 1 - left / ((y - y.mean()) ** 2).sum(), mu, sigma, amplitude


@pytest.mark.parametrize(
    ("law", "r2", "sigma"),
    [
        (lambda rng, n: rng.normal(size=n), (0.945, 0.97), 0.63),
        (lambda rng, n: rng.standard_t(10, n), (0.975, 0.985), 0.68),
        (lambda rng, n: rng.standard_t(5, n), (0.98, 0.995), 0.74),
        (lambda rng, n: rng.laplace(size=n), (0.975, 0.985), 0.85),
        (lambda rng, n: rng.lognormal(0, 0.5, n), (0.9995, 1.0), 0.50),
    ],
    ids=["gaussian", "t10", "t5", "laplace", "lognormal"],
)
def test_landmarks_of_theory(
    law: Callable[[Generator, int], Array], r2: tuple[float, float], sigma: float
) -> None:
    fit = _protocol_on([law(np.random.default_rng(5), 1_000_000)])
    assert fit.status.tolist() == [Status.CONVERGED]
    assert r2[0] <= fit.r2.item() <= r2[1]
    assert fit.sigma.item() == pytest.approx(sigma, abs=0.011)


def test_lognormal_gives_its_own_parameters() -> None:
    """μ' = μ + σ² − ln max, σ' = σ: the size-weighted lognormal is a lognormal."""
    sample = np.random.default_rng(1).lognormal(-3.0, 0.5, 1_000_000)
    fit = _protocol_on([sample])
    assert fit.mu.item() == pytest.approx(-3.0 + 0.25 - np.log(sample.max()), abs=0.005)
    assert fit.sigma.item() == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("law", LAWS)
def test_equals_curve_fit(law: str) -> None:
    rng = np.random.default_rng(11)
    samples = [LAWS[law](rng, int(10 ** rng.uniform(3.5, 5.5))) for _ in range(8)]
    counts = [count(torch.tensor(s, dtype=torch.float32)).linear.numpy() for s in samples]
    expected = np.array([_curve_fit(row) for row in counts]).T
    fit = _protocol_on(samples)
    assert (fit.status == Status.CONVERGED).all()
    for ours, theirs in zip(fit, expected, strict=False):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6, atol=1e-8)


def test_gaussian_reference_equals_curve_fit_of_expected_counts() -> None:
    ratio = np.array([2.0, 3.0, 4.0, 5.0, 6.5, 12.0])
    edges = np.linspace(0, 1, BINS + 1)
    expected = [np.diff(stats.halfnorm.cdf(edges, scale=1 / one)) for one in ratio]
    endless = torch.full((len(ratio), BINS), 1e15)
    fit = paper_protocol(endless, torch.tensor(ratio), torch.ones(len(ratio), dtype=torch.float64))
    r2 = [_curve_fit(row)[0] for row in expected]
    np.testing.assert_allclose(fit.r2_gaussian.numpy(), r2, rtol=1e-6)


def test_gaussian_weights_score_what_is_said_of_gaussian_weights() -> None:
    rng = np.random.default_rng(3)
    fit = _protocol_on([rng.normal(size=1_000_000) for _ in range(4)])
    torch.testing.assert_close(fit.r2, fit.r2_gaussian, atol=0.002, rtol=0)


@pytest.mark.parametrize(("size", "slack"), [(1_000, 0.04), (5_000, 0.012), (50_000, 0.002)])
@pytest.mark.parametrize(("split", "bins"), [(False, 100), (False, 1000), (True, 1000)])
@pytest.mark.sampled(4)
def test_as_many_gaussian_weights_score_the_reference_on_average(
    size: int, slack: float, split: bool, bins: int
) -> None:
    """Scatter of few counts lowers R², of a layer and of its reference."""
    generator = torch.Generator().manual_seed(size)
    fits = []
    for row in range(60):
        weights = (1 + row / 60) * torch.randn(size, generator=generator)
        found = count(weights, bins)
        maximum = found.maximum.double()
        rms = weights.double().square().mean().sqrt()[None]
        if split:
            made = linear_from_counts(_grid_counts(weights.numpy()), maximum[None], bins)
            fits.append(paper_protocol(made, maximum[None], rms, split=True))
        else:
            fits.append(paper_protocol(found.linear[None], maximum[None], rms))
    observed = torch.cat([fit.r2 for fit in fits]).nanmean().item()
    expected = torch.cat([fit.r2_gaussian for fit in fits]).nanmean().item()
    assert observed == pytest.approx(expected, abs=slack)


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_a_uniform_layer_never_scores(size: int) -> None:
    rng = np.random.default_rng(size)
    fit = _protocol_on([rng.uniform(-0.05, 0.05, size) for _ in range(100)])
    assert (fit.status == Status.NO_INTERIOR_OPTIMUM).all()
    assert fit.r2.isnan().all()
    assert fit.r2_gaussian.isfinite().all()


def _row(**bins: float) -> list[float]:
    return [bins.get(f"b{i}", 0.0) for i in range(BINS)]


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (_row(), Status.EMPTY),
        (_row(b7=1e15), Status.TOO_FEW_BINS),
        (_row(b0=1.0, b99=1.0), Status.TOO_FEW_BINS),
        (_row(b3=5.0, b4=9.0, b5=2.0), Status.TOO_FEW_BINS),
        (_row(b0=1e6, b50=1.0, b60=1.0, b99=1.0), Status.TOO_FEW_BINS),
        (_row(b40=1e6, b2=2e5, b70=1e4, b99=1e4), Status.AT_BOUND),
        (list(CENTRES**-2.5 * np.exp(-0.002 * np.log(CENTRES) ** 2)), Status.AT_BOUND),
        (list(CENTRES), Status.NO_INTERIOR_OPTIMUM),
        (list(CENTRES**-2.5), Status.NO_INTERIOR_OPTIMUM),
        (list(np.exp(10 * CENTRES)), Status.NO_INTERIOR_OPTIMUM),
    ],
    ids=[
        "empty",
        "one",
        "two",
        "three",
        "outliers",
        "spike",
        "wide",
        "rising",
        "power law",
        "piled up",
    ],
)
def test_degenerate_rows_get_a_reason(row: list[float], status: Status) -> None:
    one = torch.ones(1, dtype=torch.float64)
    fit = paper_protocol(torch.tensor([row], dtype=torch.float64), one, 0.3 * one)
    assert fit.status.tolist() == [status]
    assert all(figure.isnan().all() for figure in fit[:4])


@given(
    st.lists(
        st.lists(st.integers(0, 10**15) | st.just(0), min_size=BINS, max_size=BINS),
        min_size=1,
        max_size=3,
    )
)
def test_any_counts_give_figures_or_a_reason(rows: list[list[int]]) -> None:
    ones = torch.ones(len(rows), dtype=torch.float64)
    fit = paper_protocol(torch.tensor(rows), ones, ones / 3)
    converged = fit.status == Status.CONVERGED
    for figure in fit[:4]:
        assert torch.equal(figure.isfinite(), converged)
    assert (fit.r2[converged] <= 1).all()


def test_nothing_known_of_the_maximum_leaves_only_the_reference_out() -> None:
    sample = LAWS["gaussian"](np.random.default_rng(0), 9_999)
    binned = count(torch.tensor(sample)).linear[None]
    nan = torch.full((1,), torch.nan, dtype=torch.float64)
    fit = paper_protocol(binned, nan, nan)
    assert fit.r2.isfinite().all()
    assert fit.r2_gaussian.isnan().all()


def test_no_streams_give_no_figures() -> None:
    none = torch.zeros(0, dtype=torch.float64)
    assert all(len(figure) == 0 for figure in paper_protocol(torch.zeros(0, BINS), none, none))


def test_a_stream_does_not_see_its_neighbours() -> None:
    rng = np.random.default_rng(8)
    samples = [LAWS[law](rng, 20_000) for law in LAWS] + [rng.uniform(size=20_000)]
    together = _protocol_on(samples)
    for row, sample in enumerate(samples):
        alone = _protocol_on([sample])
        for whole, single in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[row : row + 1], single, equal_nan=True)


def test_more_values_of_the_same_law_scale_the_amplitude_only() -> None:
    linear = count(torch.tensor(LAWS["gaussian"](np.random.default_rng(0), 50_000))).linear
    one = torch.ones(1, dtype=torch.float64)
    few = paper_protocol(linear[None], one, one / 4)
    many = paper_protocol(1000 * linear[None], one, one / 4)
    scaled = many._replace(amplitude=many.amplitude / 1000, r2_gaussian=few.r2_gaussian)
    torch.testing.assert_close(scaled, few)
    assert many.r2_gaussian > few.r2_gaussian


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_masses_of_powers_of_gaussian_values(power: float) -> None:
    rms = np.sqrt(stats.norm.expect(lambda x: abs(x) ** (2 * power)))
    maximum, cuts = 4.0**power, np.linspace(0, 1, 51)
    expected = np.diff(2 * stats.norm.cdf((cuts * maximum) ** (1 / power)) - 1)
    scale, p = torch.tensor([rms / maximum]), torch.tensor([power], dtype=torch.float64)
    assert gaussian_masses(scale, 50, p)[0].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_squares_of_gaussian_values_are_compared_with_such() -> None:
    rng, one = np.random.default_rng(9), torch.ones(20, dtype=torch.float64)
    samples = rng.normal(size=(20, 20_000)) ** 2
    counts = np.stack([np.histogram(sample, BINS, (0, 16))[0] for sample in samples])
    fit = paper_protocol(torch.tensor(counts), 16 * one, np.sqrt(3) * one, power=2 * one)
    error = 4 * fit.r2.std().item() / np.sqrt(20) + 1e-3
    assert fit.r2.mean().item() == pytest.approx(fit.r2_gaussian[0].item(), abs=error)
    # Not of the values themselves, whose curve has another shape.
    plain = paper_protocol(torch.tensor(counts), 16 * one, np.sqrt(3) * one)
    assert abs(plain.r2_gaussian[0] - fit.r2_gaussian[0]) > 2 * error


def _grid_counts(sample: Array) -> Tensor:
    counts = torch.zeros(1, 4096, dtype=torch.int64)
    count_(torch.tensor(sample, dtype=torch.float32), counts, 0)
    return counts


@pytest.mark.parametrize("bins", [100, 1000])
def test_bins_made_from_counts_move_r2_little(bins: int) -> None:
    """The figures stated in `linear_from_counts`' docstring, on 1e6 draws of five laws."""
    for law in ("gaussian", "student", "laplace", "lognormal", "gamma"):
        sample = LAWS[law](np.random.default_rng(2), 1_000_000)
        raw = _protocol_on([sample], bins)
        maximum = torch.tensor([np.abs(sample).max()])
        linear = linear_from_counts(_grid_counts(sample), maximum, bins)
        made = paper_protocol(linear, maximum, torch.tensor([np.sqrt((sample**2).mean())]))
        assert abs(made.r2 - raw.r2).item() < 5e-4, law
        assert abs(made.mu - raw.mu).item() < 1e-3, law
        assert abs(made.sigma - raw.sigma).item() < 1e-3, law


def test_bins_made_from_counts_keep_every_value() -> None:
    sample = np.random.default_rng(4).laplace(size=10_000)
    sample[:100] = 0.0
    counts = _grid_counts(sample)
    for maximum in (np.abs(sample).max(), 1.0):
        linear = linear_from_counts(counts, torch.tensor([maximum]).double(), 37)
        assert linear.sum().item() == pytest.approx(9_900, rel=1e-12)
        assert (linear >= 0).all()


def test_values_spread_evenly_are_split_exactly() -> None:
    """Up to a maximum in mid-bin: the grid's bin that holds it ends there."""
    sample = 1.03 * (np.arange(1 << 20) + 0.5) / (1 << 20)
    linear = linear_from_counts(_grid_counts(sample), torch.tensor([sample.max()]), 128)
    np.testing.assert_allclose(linear.numpy(), np.full((1, 128), 1 << 13), atol=1.0)


def test_a_curve_that_vanishes_on_all_bins_is_no_lognormal() -> None:
    """Its peak lies at e^−205, so that it underflows on the bins: a power law on the data."""
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    for code, number in {191: 4_173_483, 270: 222, 2726: 7346}.items():
        counts[0, code] = number
    maximum = edges()[FIRST_POSITIVE:][2726 - FIRST_POSITIVE + 1].double()[None]
    linear = linear_from_counts(counts, maximum, 1000)
    fit = paper_protocol(linear, maximum, 0.041 * maximum, split=True)
    assert fit.status.tolist() == [Status.NO_INTERIOR_OPTIMUM]
    assert all(part.isnan().all() for part in (fit.r2, fit.mu, fit.sigma, fit.amplitude))


def test_gaussian_values_by_number_have_the_figures_of_draws() -> None:
    """Means over draws; the largest of few values scatters, and with it μ'."""
    rng = np.random.default_rng(0)
    for n in (36_864, 200_000):
        draws = _protocol_on([rng.normal(size=n) for _ in range(40)])
        found = gaussian_paper_fit([n])
        assert found.mu.item() == pytest.approx(draws.mu.median().item(), abs=0.02)
        assert found.sigma.item() == pytest.approx(draws.sigma.mean().item(), abs=0.003)
        assert found.r2_gaussian.item() == pytest.approx(draws.r2.mean().item(), abs=0.003)
