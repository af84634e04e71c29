"""The generalized normal, from heavy tails over Laplace and Gaussian weights to the uniform.

Also called the exponential power law or Subbotin's (M. T. Subbotin, Mat. Sb. 31 (1923) 296).
"""

import math

import torch
from torch import Tensor
from torch.special import digamma

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["GeneralizedNormal"]

#: Bounds of p; at the upper one the law is uniform but for an edge a hundredth wide in ln w.
_LIGHTEST, _HEAVIEST = 100.0, 0.02
#: y beyond which no mass is left; the square of its exponential is still finite.
_END = 300.0


class GeneralizedNormal(SmoothFamily):
    """Law of density p exp(−(w/a)ᵖ)/(a Γ(1/p)).

    p = 2 is the half-normal, p = 1 the exponential; p → ∞ tends to the uniform on [0, a].  It is
    Prentice's generalized gamma with q σ = 1: q = √p, σ = 1/√p, μ = ln a − (ln p)/p.
    """

    name = "generalized_normal"
    label = "generalized normal"
    color = "#b4656f"
    dashes = (0, (4, 1, 1, 1, 1, 1))
    parameters = (
        Parameter("scale", "w", "generalized normal's scale a"),
        Parameter(
            "power",
            "1",
            "generalized normal's power p, in [0.02, 100]",
            "log",
            math.log(_HEAVIEST),
            math.log(_LIGHTEST),
            symbol="p",
        ),
    )
    rough_start = True

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Match E w²/(E w)² = Γ(3/p) Γ(1/p)/Γ(2/p)², then take the maximum-likelihood a for that p.

        The ratio falls with p from ∞ to 4/3; the likelihood is stationary in a at aᵖ = p mean wᵖ.
        """
        powers = torch.logspace(
            math.log10(_LIGHTEST),
            math.log10(_HEAVIEST),
            400,
            dtype=torch.float64,
            device=moments.rms.device,
        )
        k = powers.reciprocal()
        ratios = torch.lgamma(3 * k) + torch.lgamma(k) - 2 * torch.lgamma(2 * k)
        found = 2 * (moments.rms / moments.linear_mean).log()
        place = torch.searchsorted(ratios, found.nan_to_num(0.0)).clamp(max=len(powers) - 1)
        power = powers[place]
        mean = torch.logsumexp(binned.share.log() + power[:, None] * binned.middle, -1)
        return torch.stack([((power.log() + mean) / power).exp(), power], -1)

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = ln p − ln Γ(1/p) + y/p − eʸ with y = p (x − ln a)."""
        scale, power = parameters[:, :1], parameters[:, 1:]
        y = (power * (x - scale.log())).clamp(max=_END)
        size = y.exp()
        k = power.reciprocal()
        value = y * k - size + (power.log() - torch.lgamma(k))
        level = 1 + digamma(k) * k
        return LogDensity(value, (power * size - 1, level - y * size))
