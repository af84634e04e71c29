"""The theory's identities, on exact bin masses and on draws (docs/statistics.md)."""

import math

import numpy as np
import pytest
import torch
from scipy import special

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.statistics import (
    GENERALIZED_GAMMA,
    LOGNORMAL,
    Binned,
    Equilibrium,
    Fit,
    deviance,
    effective_utility,
    equilibrium,
    fit_family,
    log_moments,
    log_partition,
    occupied_bins,
)


def counts_of(*tensors: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64)
    for row, tensor in enumerate(tensors):
        count_(tensor, counts, row)
    return counts


def fit_of(binned: Binned) -> Fit:
    return fit_family(LOGNORMAL, binned, log_moments(binned))


def plain_gap(binned: Binned, fit: Fit) -> torch.Tensor:
    """KL(p̂ ‖ P_θ) without the bias correction."""
    return (binned.share * deviance(binned, fit)).sum(-1)


def arbitrage_gap(theory: Equilibrium) -> torch.Tensor:
    """φ_max − φ, what a stream lacks to its greatest potential."""
    return log_partition(theory.alpha, theory.beta) - theory.potential


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def binned(generator: torch.Generator) -> Binned:
    normal = torch.randn(100_000, generator=generator)
    return occupied_bins(
        counts_of(0.02 * normal, (0.7 * normal - 3).exp(), normal / (0.1 + normal**2))
    )


def x_star(binned: Binned, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """Equilibrium law on the bins, x*_k = Δ_k e^{u_k}/Z_Δ, by scipy over every bin of the grid."""
    edges = log_edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1].numpy()
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(np.exp(edges))
    laws = []
    for a, b in zip(alpha.tolist(), beta.tolist(), strict=True):
        law = special.softmax(a * middle - b * middle**2 + np.log(width))
        laws.append(law)
    place = torch.searchsorted(torch.from_numpy(edges), binned.lower.contiguous())
    return torch.from_numpy(np.array(laws)).gather(1, place)


def test_the_potential_s_distance_to_its_greatest_is_the_divergence(binned: Binned) -> None:
    """φ_max − φ = KL(x ‖ x*), for any α, β, fitted or not."""
    for mu, sigma in [
        (column(-4.0, -3.0, 0.0), column(1.1, 0.7, 1.0)),
        fit_of(binned).parameters.T,
    ]:
        theory = equilibrium(binned, mu, sigma)
        share, reference = binned.share, x_star(binned, theory.alpha, theory.beta)
        ratio = torch.where(binned.occupied, share / reference, 1.0)
        divergence = (share * ratio.log()).sum(-1)
        torch.testing.assert_close(arbitrage_gap(theory), divergence, rtol=0, atol=1e-10)
        assert (arbitrage_gap(theory) > 0).all()


def test_the_arbitrage_gap_is_the_gap(binned: Binned) -> None:
    """They differ by taking a bin's density at its middle, not by the integral: (h/σ)²/24."""
    fit = fit_of(binned)
    theory = equilibrium(binned, *fit.parameters.T)
    torch.testing.assert_close(arbitrage_gap(theory), plain_gap(binned, fit), rtol=2e-3, atol=1e-4)


def test_the_potential_is_the_sum_of_its_parts_and_the_mean_utility(binned: Binned) -> None:
    theory = equilibrium(binned, *fit_of(binned).parameters.T)
    parts = theory.potential_u + theory.potential_v + theory.entropy
    torch.testing.assert_close(theory.potential, parts)
    mean = (binned.share * effective_utility(binned, theory.alpha, theory.beta)).sum(-1)
    torch.testing.assert_close(theory.potential, mean)


def test_utility_is_constant_at_equilibrium_and_there_only() -> None:
    codes = torch.arange(1800, 2100)
    edges = log_edges()
    mu, sigma = column(-1.0), column(0.5)
    alpha, beta = mu / sigma**2 - 1, 1 / (2 * sigma**2)
    bare = Binned(
        torch.ones(1, 300).double(),
        torch.ones(1, 300).double(),
        edges[codes][None],
        edges[codes + 1][None],
    )
    law = x_star(bare, alpha, beta)
    at = bare._replace(weights=law)
    theory = equilibrium(at, mu, sigma)
    utility = effective_utility(at, alpha, beta)
    assert theory.utility_std.item() < 1e-7
    assert (utility.max() - utility.min()).item() < 1e-9
    assert utility[0, 0].item() == pytest.approx(log_partition(alpha, beta).item(), abs=1e-9)
    assert abs(arbitrage_gap(theory).item()) < 1e-9
    away = at._replace(weights=law * (1 + 0.2 * torch.sin(bare.middle)))
    theory = equilibrium(away, mu, sigma)
    assert theory.utility_std.item() > 0.01
    assert arbitrage_gap(theory).item() > 1e-5


def test_pythagoras(binned: Binned) -> None:
    """KL(x ‖ x°) = gap + KL(x_fit ‖ x°) for a postulated universal law x°."""
    fit = fit_of(binned)
    mu, sigma = fit.parameters.T
    other_mu, other_sigma = column(-3.5, -2.0, 0.3), column(0.9, 0.8, 1.4)
    # In the exponential family of the binned x*, whose sufficient statistics the fit matches.
    middle, share = binned.middle, binned.share
    edges = log_edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1]
    at, width = ((edges[1:] + edges[:-1]) / 2)[None], edges.exp().diff()[None]

    def law(theta: torch.Tensor) -> torch.Tensor:
        u = theta[:, :1] * at - theta[:, 1:] * at**2 + width.log()
        return u - torch.logsumexp(u, -1, keepdim=True)

    theta = torch.stack([mu / sigma**2 - 1, 1 / (2 * sigma**2)], -1)
    target = torch.stack([(share * middle).sum(-1), (share * middle**2).sum(-1)], -1)
    for _ in range(50):
        mass = law(theta).exp()
        powers = torch.stack([at, -(at**2)], -1)
        mean = (mass[..., None] * powers).sum(1)
        centred = powers - mean[:, None]
        fisher = torch.einsum("lk,lki,lkj->lij", mass, centred, centred)
        theta = theta + torch.linalg.solve(fisher, target * column(1, -1) - mean)
    postulated = torch.stack([other_mu / other_sigma**2 - 1, 1 / (2 * other_sigma**2)], -1)

    def divergence(
        first: torch.Tensor, log_first: torch.Tensor, log_second: torch.Tensor
    ) -> torch.Tensor:
        return (first * (log_first - log_second)).sum(-1)

    log_fit, log_other = law(theta), law(postulated)
    inner = divergence(log_fit.exp(), log_fit, log_other)
    column_of = torch.searchsorted(edges, binned.lower.contiguous())
    log_share = torch.where(binned.occupied, share.clamp(min=1e-300).log(), 0.0)
    to_fit = divergence(share, log_share, log_fit.gather(1, column_of))
    to_other = divergence(share, log_share, log_other.gather(1, column_of))
    torch.testing.assert_close(to_other, to_fit + inner, rtol=0, atol=1e-9)
    # The arbitrage gaps under these two laws are these two.
    matched_sigma = (2 * theta[:, 1]) ** -0.5
    matched_mu = matched_sigma**2 * (theta[:, 0] + 1)
    ours = arbitrage_gap(equilibrium(binned, matched_mu, matched_sigma))
    torch.testing.assert_close(ours, to_fit, rtol=0, atol=1e-9)
    ours = arbitrage_gap(equilibrium(binned, other_mu, other_sigma))
    torch.testing.assert_close(ours, to_other, rtol=0, atol=1e-9)


def test_gap_and_q_do_not_change_under_powers_and_scalings(generator: torch.Generator) -> None:
    """Of w → c·wᵃ, but for the bins, which are then others; a square's are twice as wide."""
    w = torch.empty(400_000).exponential_(generator=generator)
    binned = occupied_bins(counts_of(w, 3.7e-4 * w, w**2, w**0.5))
    moments = log_moments(binned)
    gaps = plain_gap(binned, fit_of(binned))
    q = fit_family(GENERALIZED_GAMMA, binned, moments).parameters[:, 2]
    torch.testing.assert_close(gaps, gaps[:1].expand(4), rtol=0.01, atol=0)
    torch.testing.assert_close(q, q[:1].expand(4), rtol=0, atol=0.003)


def test_the_gap_does_not_depend_on_the_bins(generator: torch.Generator) -> None:
    """Neighbouring bins merged in pairs: the gap falls by the detail lost, (h/σ)² of it."""
    counts = counts_of(torch.randn(1_000_000, generator=generator))
    binned = occupied_bins(counts)
    pairs = torch.zeros_like(counts)
    pairs[:, 0::2] = counts[:, 0::2] + counts[:, 1::2]
    halves = occupied_bins(pairs)
    position = torch.searchsorted(log_edges()[1:], halves.lower[0].contiguous())
    coarse = halves._replace(upper=log_edges()[1:][position + 2][None])
    fine = plain_gap(binned, fit_of(binned))
    torch.testing.assert_close(plain_gap(coarse, fit_of(coarse)), fine, rtol=0, atol=5e-4)


def test_a_network_s_potential_is_the_sum_over_its_layers(binned: Binned) -> None:
    """Φ = Σ φ and S = Σ φ_s (Eqs 14, 15, 26), layers taken together or one after the other."""
    together = equilibrium(binned, *fit_of(binned).parameters.T)
    layers = [binned.subset(torch.tensor([row])) for row in range(len(binned.total))]
    alone = [equilibrium(layer, *fit_of(layer).parameters.T) for layer in layers]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert whole.sum().item() == pytest.approx(sum(part.item() for part in parts), rel=1e-9)


def test_an_output_s_coefficients_are_those_of_its_own_fit(generator: torch.Generator) -> None:
    """Of Z = y²: a fit to y finds 4ζ, and η̂ = 2η + 1 rather than the 2η of Eqs 28-31.

    η ln Z − ζ ln² Z is 2η ln y − 4ζ ln² y; on bins of y itself its density has the factor
    dZ/dy = 2y besides, where Eqs 28-31 take the numbers N_q of the bins of Z over.
    """
    y = (0.4 * torch.randn(500_000, generator=generator) - 1).exp()
    binned = occupied_bins(counts_of(y**2, y))
    theory = equilibrium(binned, *fit_of(binned).parameters.T)
    (eta, own_eta), (zeta, own_zeta) = theory.alpha.tolist(), theory.beta.tolist()
    assert own_zeta == pytest.approx(4 * zeta, rel=1e-3)
    assert own_eta == pytest.approx(2 * eta + 1, rel=1e-3)


def test_the_unit_shifts_the_potential_and_nothing_that_is_compared(binned: Binned) -> None:
    """Of w/max: α' = α − 2βL, φ' = φ − (α + 1)L + βL², φ_s' = φ_s − L with L = ln max."""
    mu, sigma = fit_of(binned).parameters.T
    own, unit = equilibrium(binned, mu, sigma), column(0.3, -1.2, 2.0)
    of_maximum = equilibrium(binned.shifted(-unit), mu - unit, sigma)
    expected = own._asdict() | {
        "alpha": own.alpha - 2 * own.beta * unit,
        "potential": own.potential - (own.alpha + 1) * unit + own.beta * unit**2,
        "entropy": own.entropy - unit,
    }
    for name in ("alpha", "beta", "utility_std", "potential", "entropy"):
        torch.testing.assert_close(getattr(of_maximum, name), expected[name])


def test_without_a_fit_there_is_no_figure() -> None:
    binned = occupied_bins(counts_of(torch.zeros(5)))
    theory = equilibrium(binned, *fit_of(binned).parameters.T)
    assert all(math.isnan(part.item()) for part in theory)
