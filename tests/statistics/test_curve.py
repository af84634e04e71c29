"""The batched least squares of a lognormal curve, apart from what the paper does with it."""

import numpy as np
import torch
from scipy import stats

from jaynes_callbacks.statistics.curve import fit_curve, paper_curve

X = (torch.arange(80, dtype=torch.float64) + 0.5) / 40


def test_the_curve_is_scipy_lognormal() -> None:
    mu, sigma = torch.tensor([-2.0, -1.0]).double(), torch.tensor([0.5, 1.5]).double()
    pairs = zip(mu.tolist(), sigma.tolist(), strict=True)
    expected = [stats.lognorm.pdf(X.numpy(), s, scale=np.exp(m)) for m, s in pairs]
    np.testing.assert_allclose(paper_curve(X, mu, sigma).numpy(), expected, rtol=1e-12)


def test_points_on_a_curve_give_it_back() -> None:
    mu = torch.linspace(-2.0, 0.5, 9).double().repeat_interleave(7)
    sigma = torch.linspace(0.2, 1.5, 7).double().repeat(9)
    y = paper_curve(X, mu, sigma)
    fit = fit_curve(X, y / y.amax(-1, keepdim=True))
    assert fit.converged.all()
    torch.testing.assert_close(fit.mu, mu, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(fit.sigma, sigma, rtol=1e-7, atol=1e-7)


def test_the_end_is_a_minimum() -> None:
    """No neighbour of the fitted curve comes closer to points that lie on no curve."""
    y = torch.tensor(stats.rayleigh.pdf(X.numpy(), scale=0.6))[None]
    mu, sigma, _ = fit_curve(X, y)

    def left(moved_mu: torch.Tensor, moved_sigma: torch.Tensor) -> float:
        curve = paper_curve(X, moved_mu, moved_sigma)
        return float((y**2).sum() - (curve * y).sum() ** 2 / (curve**2).sum())

    at_end = left(mu, sigma)
    for angle in np.linspace(0, 2 * np.pi, 12):
        assert left(mu + 1e-3 * np.cos(angle), sigma + 1e-3 * np.sin(angle)) > at_end


def test_a_ramp_has_no_sigma_or_no_peak_below_one() -> None:
    x = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    noise = torch.randn(50, 100, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mu, sigma, _ = fit_curve(x, x + 0.01 * noise * x.sqrt())
    assert not (mu < sigma**2).any()
