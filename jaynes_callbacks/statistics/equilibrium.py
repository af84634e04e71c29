"""Utility, potential and entropy of a stream; equation numbers are of the paper, arXiv 2405.10955.

The paper's α, β are those of weights; for iota the same formulas give its η, ζ (Eq. 24).  They are
fitted to the same data, so that "equal utility" and "lognormal" are one statement, not two pieces
of evidence, and φ under refitted α, β cannot be compared across records; the gap can.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.statistics.binned import Binned

__all__ = [
    "Equilibrium",
    "bin_appeal",
    "effective_utility",
    "equilibrium",
    "exponents",
    "log_partition",
]


class Equilibrium(NamedTuple):
    """The theory's quantities of each stream, in nats; nan where there is no lognormal fit.

    Attributes:
        alpha: α = μ/σ² − 1 (Eq. 13; η of Eq. 24).
        beta: β = 1/(2σ²) (Eq. 13; ζ of Eq. 24).
        utility_std: standard deviation of the effective utility h_k, weighted by x_k.
        potential: φ = φ_u + φ_v + φ_s (Eqs 8-11, 25), which `log_partition` bounds.
        potential_u: φ_u = Σ x_k α ln w_k, the benefit.
        potential_v: φ_v = −Σ x_k β ln² w_k, the cost.
        entropy: φ_s = −Σ x_k ln(x_k/Δ_k), the competition.
    """

    alpha: Float64[Tensor, " streams"]
    beta: Float64[Tensor, " streams"]
    utility_std: Float64[Tensor, " streams"]
    potential: Float64[Tensor, " streams"]
    potential_u: Float64[Tensor, " streams"]
    potential_v: Float64[Tensor, " streams"]
    entropy: Float64[Tensor, " streams"]


def equilibrium(
    binned: Binned, mu: Float64[Tensor, " streams"], sigma: Float64[Tensor, " streams"]
) -> Equilibrium:
    """Compute the theory's quantities from the bins and the lognormal's μ, σ."""
    alpha, beta = exponents(mu, sigma)
    share = binned.share
    benefit = (share * binned.middle).sum(-1) * alpha
    cost = -(share * binned.middle**2).sum(-1) * beta
    entropy = -(share * _log_density(binned)).sum(-1)
    entropy = torch.where(binned.total > 0, entropy, torch.nan)
    potential = benefit + cost + entropy
    utility = effective_utility(binned, alpha, beta)
    spread = (share * (utility - potential[:, None]) ** 2).sum(-1).sqrt()
    return Equilibrium(alpha, beta, spread, potential, benefit, cost, entropy)


def exponents(mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return α = μ/σ² − 1 and β = 1/(2σ²) of the lognormal with μ, σ (Eq. 13)."""
    return mu / sigma**2 - 1, 1 / (2 * sigma**2)


def effective_utility(
    binned: Binned, alpha: Float64[Tensor, " streams"], beta: Float64[Tensor, " streams"]
) -> Float64[Tensor, "streams bins"]:
    """Return h_k = α ln w_k − β ln² w_k − ln(x_k/Δ_k) (Eq. 7); zero at padding.

    Eq. 7 divides by the width of equal bins; here each bin has its own width Δ_k, so that h does
    not depend on the binning.  The mean of h, weighted by x_k, is φ.
    """
    utility = _benefit_less_cost(binned.middle, alpha, beta) - _log_density(binned)
    return torch.where(binned.occupied, utility, 0.0 * alpha[:, None])


def log_partition(
    alpha: Float64[Tensor, " streams"], beta: Float64[Tensor, " streams"]
) -> Float64[Tensor, " streams"]:
    """Return ln Z_Δ = ln Σ_k Δ_k exp(α ln w_k − β ln² w_k), over every positive finite bin.

    It is the greatest potential that any distribution x reaches on the grid, at the x* ∝ Δ e^u.
    The arbitrage gap of x is what it lacks, ln Z_Δ − φ = KL(x ‖ x*) ≥ 0.
    """
    return torch.logsumexp(bin_appeal(alpha, beta), -1)


def bin_appeal(
    alpha: Float64[Tensor, " streams"], beta: Float64[Tensor, " streams"]
) -> Float64[Tensor, "streams 4079"]:
    """Return ln Δ_k + α ln w_k − β ln² w_k: what each positive finite bin offers while empty."""
    log_edge = log_edges(alpha.device)[FIRST_POSITIVE : FIRST_NONFINITE + 1]
    middle = ((log_edge[1:] + log_edge[:-1]) / 2)[None]
    return _benefit_less_cost(middle, alpha, beta) + log_edge.exp().diff().log()


def _benefit_less_cost(log_w: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return u = α ln w − β ln² w."""
    return alpha[:, None] * log_w - beta[:, None] * log_w**2


def _log_density(binned: Binned) -> Float64[Tensor, "streams bins"]:
    """Return ln(x_k/Δ_k), Δ_k the bin's width in w; zero at padding."""
    log_width = (binned.upper.exp() - binned.lower.exp()).log()
    return torch.where(binned.occupied, binned.share.clamp(min=1e-300).log() - log_width, 0.0)
