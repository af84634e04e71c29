"""The theory's quantities (THEORY §5); equation numbers are the paper's (arXiv 2405.10955).

α, β belong to weights; for iota the same formulas give η, ζ (Eq. 24).  They are fitted to the
same data, so "equal utility" and "lognormal" are one statement, not two pieces of evidence, and φ
at refitted α, β cannot be compared across records; the gap can.
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
    """Per stream, in nats; nan where there is no lognormal fit.

    Attributes:
        alpha: α = μ/σ² − 1 (Eq. 13; η of Eq. 24).
        beta: β = 1/(2σ²) (Eq. 13; ζ of Eq. 24).
        utility_std: x-weighted standard deviation of the effective utility h_k.
        potential: φ = φ_u + φ_v + φ_s (Eqs 8-11, 25).
        potential_u: φ_u = Σ x_k α ln w_k, the benefit.
        potential_v: φ_v = −Σ x_k β ln² w_k, the cost.
        entropy: φ_s = −Σ x_k ln(x_k/Δ_k), the competition.
        log_partition: ln Z_Δ, the greatest potential that any distribution reaches.
        arbitrage_gap: φ_max − φ = ln Z_Δ − φ = KL(x ‖ x*) ≥ 0.
    """

    alpha: Float64[Tensor, " streams"]
    beta: Float64[Tensor, " streams"]
    utility_std: Float64[Tensor, " streams"]
    potential: Float64[Tensor, " streams"]
    potential_u: Float64[Tensor, " streams"]
    potential_v: Float64[Tensor, " streams"]
    entropy: Float64[Tensor, " streams"]
    log_partition: Float64[Tensor, " streams"]
    arbitrage_gap: Float64[Tensor, " streams"]


class NetworkTotals(NamedTuple):
    """Sums over the layers of a network, in nats; nan where a layer has no fit.

    Attributes:
        potential: Φ = Σ φ (Eqs 14, 26).
        entropy: S = Σ φ_s (Eq. 15).
        arbitrage_gap: Σ (φ_max − φ), what the layers have to gain yet.
    """

    potential: Float64[Tensor, ""]
    entropy: Float64[Tensor, ""]
    arbitrage_gap: Float64[Tensor, ""]


class ActivationReading(NamedTuple):
    """Coefficients of y where iota Z = y² has η, ζ: those of ln y and of −ln² y.

    Attributes:
        same_agents: η̂ = 2η as Eqs 28-31 have it, the numbers N_q of the bins of Z taken over.
        own_bins: η̂ = 2η + 1 on bins of y itself, with the Jacobian dZ/dy = 2y: what a fit to y
            finds.
        cost: ζ̂ = 4ζ, the same in both.
    """

    same_agents: Float64[Tensor, " streams"]
    own_bins: Float64[Tensor, " streams"]
    cost: Float64[Tensor, " streams"]


def equilibrium(
    binned: Binned, mu: Float64[Tensor, " streams"], sigma: Float64[Tensor, " streams"]
) -> Equilibrium:
    """Utility, potential, entropy and arbitrage gap of the bins under fitted μ, σ."""
    alpha, beta = exponents(mu, sigma)
    share = binned.share
    benefit = (share * binned.middle).sum(-1) * alpha
    cost = -(share * binned.middle**2).sum(-1) * beta
    entropy = -(share * _log_density(binned)).sum(-1)
    entropy = torch.where(binned.total > 0, entropy, torch.nan)
    potential = benefit + cost + entropy
    utility = effective_utility(binned, alpha, beta)
    spread = (share * (utility - potential[:, None]) ** 2).sum(-1).sqrt()
    highest = log_partition(alpha, beta)
    return Equilibrium(
        alpha, beta, spread, potential, benefit, cost, entropy, highest, highest - potential
    )


def exponents(mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """α = μ/σ² − 1 and β = 1/(2σ²) of the theory's utility, by the lognormal's μ, σ (Eq. 13)."""
    return mu / sigma**2 - 1, 1 / (2 * sigma**2)


def network_totals(layers: Equilibrium) -> NetworkTotals:
    """Φ and S of a network whose layers are the streams of `layers` (Eqs 14, 15, 26)."""
    return NetworkTotals(layers.potential.sum(), layers.entropy.sum(), layers.arbitrage_gap.sum())


def activation_reading(
    eta: Float64[Tensor, " streams"], zeta: Float64[Tensor, " streams"]
) -> ActivationReading:
    """Both readings of Eqs 28-31 for a ReLU's output y, whose iota is Z = y².

    η ln Z − ζ ln² Z is 2η ln y − 4ζ ln² y; the density of y has the factor 2y besides.
    """
    return ActivationReading(2 * eta, 2 * eta + 1, 4 * zeta)


def effective_utility(
    binned: Binned, alpha: Float64[Tensor, " streams"], beta: Float64[Tensor, " streams"]
) -> Float64[Tensor, "streams bins"]:
    """h_k = α ln w_k − β ln² w_k − ln(x_k/Δ_k) (Eq. 7); zero at padding.

    Eq. 7 divides by equal bins; here each bin's own width Δ_k stands, so that the figure does not
    depend on the binning.  The x-weighted mean of h is φ.
    """
    utility = _benefit_less_cost(binned.middle, alpha, beta) - _log_density(binned)
    return torch.where(binned.occupied, utility, 0.0 * alpha[:, None])


def log_partition(
    alpha: Float64[Tensor, " streams"], beta: Float64[Tensor, " streams"]
) -> Float64[Tensor, " streams"]:
    """ln Z_Δ = ln Σ_k Δ_k exp(α ln w_k − β ln² w_k), over all positive finite bins of the grid."""
    return torch.logsumexp(bin_appeal(alpha, beta), -1)


def bin_appeal(
    alpha: Float64[Tensor, " streams"], beta: Float64[Tensor, " streams"]
) -> Float64[Tensor, "streams 4079"]:
    """ln Δ_k + α ln w_k − β ln² w_k: what each positive finite bin of the grid offers, if empty."""
    log_edge = log_edges(alpha.device)[FIRST_POSITIVE : FIRST_NONFINITE + 1]
    middle = ((log_edge[1:] + log_edge[:-1]) / 2)[None]
    return _benefit_less_cost(middle, alpha, beta) + log_edge.exp().diff().log()


def _benefit_less_cost(log_w: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """u = α ln w − β ln² w."""
    return alpha[:, None] * log_w - beta[:, None] * log_w**2


def _log_density(binned: Binned) -> Float64[Tensor, "streams bins"]:
    """ln(x_k/Δ_k), Δ_k the bin's width in w; zero at padding."""
    log_width = (binned.upper.exp() - binned.lower.exp()).log()
    return torch.where(binned.occupied, binned.share.clamp(min=1e-300).log() - log_width, 0.0)
