"""Draw initial weights from a chosen law, every law at the same variance.

Only several starts show whether training makes a layer lognormal or keeps what it was given.  So
that they differ in nothing but the law, each has He's variance 2/fan_in
(He et al., ICCV 2015, Eq. 10): ``w = √(2/fan_in) · X`` with E X = 0 and E X² = 1.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.check import number_above

__all__ = [
    "Law",
    "he_scaled",
    "keep",
    "laplace",
    "lognormal",
    "normal",
    "orthogonal",
    "paper_lognormal",
    "student_t",
    "uniform",
]

#: Draws X, mean 0 and variance 1, of the shape of a weight; uses torch's global generator.
Law = Callable[[Float[Tensor, "out *fan_in"]], Float[Tensor, "out *fan_in"]]


def keep(model: nn.Module) -> None:
    """Leave the model as torch made it."""


@torch.no_grad()
def he_scaled(model: nn.Module, *, law: Law) -> None:
    """Draw all linear and convolution weights from a law, at variance 2/fan_in; biases become 0.

    Args:
        model: initialised in place; other kinds of layers stay as they are.
        law: one of this module's, by Hydra's ``_partial_: true``.

    Example:
        >>> layer = nn.Linear(512, 512)
        >>> he_scaled(layer, law=normal)
        >>> bool((layer.weight.var() * 512 - 2).abs() < 0.1)
        True
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(law(layer.weight).mul_(math.sqrt(2 / fan_in)))
            if layer.bias is not None:
                layer.bias.zero_()


def normal(weight: Tensor) -> Tensor:
    """Draw Gaussians; |w| is half-normal.  With `he_scaled` this is `nn.init.kaiming_normal_`."""
    return torch.randn_like(weight)


def uniform(weight: Tensor) -> Tensor:
    """Draw uniformly on ±√3.  With `he_scaled` this is `nn.init.kaiming_uniform_` for ReLU."""
    return torch.empty_like(weight).uniform_(-math.sqrt(3), math.sqrt(3))


def laplace(weight: Tensor) -> Tensor:
    """Draw from Laplace's law of scale 1/√2; |w| is exponential."""
    return torch.distributions.Laplace(0.0, math.sqrt(0.5)).sample(weight.shape).to(weight)


def student_t(weight: Tensor, *, dof: float) -> Tensor:
    """Draw from Student's t, divided by its standard deviation √(ν/(ν−2)).

    Raises:
        ValueError: for ``dof`` ≤ 2, where the variance is infinite.
    """
    dof = number_above("dof", dof, 2)
    draws = torch.distributions.StudentT(torch.tensor(dof)).sample(weight.shape)
    return draws.to(weight) * math.sqrt((dof - 2) / dof)


def lognormal(weight: Tensor, *, sigma: float) -> Tensor:
    """Draw magnitudes exp(σz − σ²), z standard normal, and random signs: E w² = 1 for every σ.

    Raises:
        ValueError: for a ``sigma`` that is not positive.
    """
    sigma = number_above("sigma", sigma, 0)
    magnitude = torch.randn_like(weight).mul_(sigma).sub_(sigma**2).exp_()
    return magnitude * _signs(weight)


def paper_lognormal(weight: Tensor, *, mu: float = -2.4, sigma: float = 0.65) -> Tensor:
    """Draw the paper's universal lognormal of v = |w|/max, cut at v = 1, random signs: E w² = 1.

    Its μ' belongs to the size-weighted curve, so that ln v has the mean μ = μ' − σ'².  Scaled to
    one variance nothing is left of μ' as a place on the axis of |w|.  What is left is where the
    maximum lies: −μ/σ standard deviations of ln|w| above its mean (4.34 at the defaults), which no
    weight exceeds; of fewer than about 1e5 weights hardly one would have.  With c = −μ/σ and Φ the
    normal distribution function, E v² = exp(2μ + 2σ²) Φ(c − 2σ)/Φ(c).

    Args:
        weight: gives the shape.
        mu: μ' of the paper's protocol, below `sigma`².
        sigma: σ' of the paper's protocol.

    Raises:
        ValueError: for a `sigma` that is not positive, or a `mu` whose curve peaks above 1.
    """
    sigma = number_above("sigma", sigma, 0)
    if not mu < sigma**2:
        raise ValueError(f"mu must be below sigma² = {sigma**2:g}, got {mu!r}")
    mean = mu - sigma**2
    highest = -mean / sigma
    scores = nn.init.trunc_normal_(torch.empty_like(weight), a=-math.inf, b=highest)
    mean_square = math.exp(2 * mean + 2 * sigma**2) * _phi(highest - 2 * sigma) / _phi(highest)
    magnitude = scores.mul_(sigma).add_(mean - math.log(mean_square) / 2).exp_()
    return magnitude * _signs(weight)


def _phi(x: float) -> float:
    """Return the standard normal's distribution function."""
    return math.erfc(-x / math.sqrt(2)) / 2


def _signs(weight: Tensor) -> Tensor:
    return torch.randint_like(weight, 2).mul_(2).sub_(1)


def orthogonal(weight: Tensor) -> Tensor:
    """Draw orthogonal rows (or columns, if there are more rows), at unit variance per entry.

    `nn.init.orthogonal_` gives the entries of an [out, fan_in] matrix the variance
    1/max(out, fan_in) (Saxe, McClelland and Ganguli, ICLR 2014).
    """
    draws = nn.init.orthogonal_(torch.empty_like(weight))
    return draws * math.sqrt(max(weight.shape[0], weight[0].numel()))
