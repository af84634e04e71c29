"""Averaged operators: how a map contracts, and whether its iteration converges.

An operator O is γ-averaged if O = (1 − γ) Id + γ R with R nonexpansive (1-Lipschitz): if for all
pairs of inputs with difference d, and outputs with difference Δ,

    ‖Δ‖² ≤ ‖d‖² − (1 − γ)/γ · ‖d − Δ‖²

(Combettes and Pesquet, arXiv 1808.07526; Bauschke and Combettes, *Convex Analysis and Monotone
Operator Theory in Hilbert Spaces*, proposition 4.35).  Every averaged operator is nonexpansive, and
x ← O(x) converges to a fixed point if γ < 1 and there is one.

- Linear W: the smallest γ with AᵀA ≼ γ(A + Aᵀ), A = I − W.
- Scalar functions with slopes in [a, b], applied to each coordinate: averaged if and only if
  −1 ≤ a and b ≤ 1, and then γ = (1 − a)/2.  The same holds of a map whose Jacobian is symmetric
  with eigenvalues in [a, b].
- Compositions: γ = 1/(1 + 1/Σ γ_l/(1 − γ_l)), an upper bound of the smallest.
- A map with Lipschitz constant κ < 1 is averaged with γ = (1 + κ)/2 at most.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from jaynes_callbacks.statistics.norms import spectral_norm

__all__ = [
    "ROUNDING",
    "SLOPES",
    "PairBounds",
    "Slopes",
    "composed_gamma",
    "contraction_gamma",
    "difference_bounds",
    "iteration_rate",
    "linear_gamma",
    "pair_bounds",
    "slopes_gamma",
]

#: Norms up to here count as 1: weights in single precision that are orthogonal have norm 1 + 1e-6.
ROUNDING = 1e-5


class Slopes(NamedTuple):
    """The range of a scalar function's slopes.

    Attributes:
        low: the smallest slope, or the limit of slopes.
        high: the largest.
    """

    low: float
    high: float

    @property
    def lipschitz(self) -> float:
        """The Lipschitz constant: the largest magnitude of a slope."""
        return max(abs(self.low), abs(self.high))

    @property
    def gamma(self) -> float:
        """The smallest γ for which the function is averaged; nan for none."""
        return slopes_gamma(self.low, self.high)


#: Slopes of activation functions with their default parameters.  Those of GELU are the extrema of
#: Φ(x) + xφ(x), at ∓√2; of exp(−x²) the extrema ∓√(2/e), at ±1/√2; of SiLU and Mish they were found
#: numerically.
SLOPES: Mapping[str, Slopes] = {
    "identity": Slopes(1.0, 1.0),
    "relu": Slopes(0.0, 1.0),
    "relu6": Slopes(0.0, 1.0),
    "hardtanh": Slopes(0.0, 1.0),
    "leaky_relu": Slopes(0.01, 1.0),
    "elu": Slopes(0.0, 1.0),
    "celu": Slopes(0.0, 1.0),
    "selu": Slopes(0.0, 1.7580993408473766),
    "gelu": Slopes(-0.1289041451851548, 1.1289041451851548),
    "gelu_tanh": Slopes(-0.12899306865877177, 1.1289930686587718),
    "silu": Slopes(-0.09983932012886683, 1.0998393201288668),
    "mish": Slopes(-0.11252612238946256, 1.0884981612517279),
    "hardswish": Slopes(-0.5, 1.5),
    "hardsigmoid": Slopes(0.0, 1 / 6),
    "softsign": Slopes(0.0, 1.0),
    "softplus": Slopes(0.0, 1.0),
    "sigmoid": Slopes(0.0, 0.25),
    "logsigmoid": Slopes(0.0, 1.0),
    "tanh": Slopes(0.0, 1.0),
    "tanhshrink": Slopes(0.0, 1.0),
    "sin": Slopes(-1.0, 1.0),
    "gaussian": Slopes(-0.8577638849607068, 0.8577638849607068),
}


def slopes_gamma(low: float, high: float) -> float:
    """Return the smallest γ of a function with slopes in [low, high]; nan if there is none.

    >>> slopes_gamma(0.0, 1.0), slopes_gamma(0.01, 1.0), slopes_gamma(-1.0, 1.0)
    (0.5, 0.495, 1.0)
    """
    return (1 - low) / 2 if low >= -1 and high <= 1 else float("nan")


def contraction_gamma(lipschitz: Float64[Tensor, "*maps"]) -> Float64[Tensor, "*maps"]:
    """Return (1 + κ)/2, for which a κ-Lipschitz map is averaged; nan where κ > 1."""
    bounded = torch.where(lipschitz <= 1 + ROUNDING, lipschitz.clamp(max=1), torch.nan)
    return (1 + bounded) / 2


def composed_gamma(gammas: Float64[Tensor, "*networks maps"]) -> Float64[Tensor, "*networks"]:
    """Return a γ for which the composition of averaged maps is averaged.

    Nan where one of the maps has none; 1 where one of them has γ = 1.

    Example:
        >>> import torch
        >>> halves = torch.full((3,), 0.5, dtype=torch.float64)
        >>> composed_gamma(halves[:2]).item(), composed_gamma(halves).item()
        (0.6666666666666666, 0.75)
    """
    total = (gammas / (1 - gammas)).sum(-1)
    return torch.where(total.isinf(), 1.0, total / (1 + total))


def linear_gamma(weight: Float[Tensor, "size size"]) -> Float64[Tensor, ""]:
    """Return the smallest γ of a square matrix; nan if its norm exceeds 1.

    With A = I − W and the Cholesky factor L of A + Aᵀ it is ‖L⁻¹Aᵀ‖².  If ‖W‖ ≤ 1 then A vanishes
    wherever A + Aᵀ does, so that 1e-9 added to the latter's diagonal lets the factor exist and
    changes γ by 1e-9 γ²|v|²/|Av|², where v is the vector at which γ is attained: little but of
    rotations by an angle near 3e-5.  A matrix whose norm exceeds 1 by rounding is divided by it.
    Nothing waits for an accelerator.
    """
    matrix = weight.double()
    norm = spectral_norm(matrix)
    eye = torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
    a = eye - matrix / norm.clamp(min=1)
    factor, info = torch.linalg.cholesky_ex(a + a.mT + 1e-9 * eye)
    root = torch.linalg.solve_triangular(factor, a.mT, upper=False)
    gamma = spectral_norm(root).square()
    known = (info == 0) & (norm <= 1 + ROUNDING)
    return torch.where(known, gamma.clamp(max=1), torch.nan)


class PairBounds(NamedTuple):
    """What pairs of inputs and outputs say of a map: lower bounds.

    Attributes:
        lipschitz: of the Lipschitz constant: the largest ‖Δ‖/‖d‖.
        gamma: of γ; inf if a pair is driven apart, so that the map is averaged for no γ.  Nan if
            outputs are not of the inputs' size.
    """

    lipschitz: Float64[Tensor, ""]
    gamma: Float64[Tensor, ""]


def pair_bounds(
    x: Float[Tensor, "samples inputs"], y: Float[Tensor, "samples outputs"]
) -> PairBounds:
    """Return lower bounds of the Lipschitz constant and of γ from all pairs of samples.

    Args:
        x: inputs.
        y: what the map makes of them.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
        >>> found = pair_bounds(x, -x)
        >>> round(found.lipschitz.item(), 4), round(found.gamma.item(), 4)
        (1.0, 1.0)
    """
    d, delta = _square_distances(x), _square_distances(y)
    moved = _square_distances(x.double() - y.double()) if x.shape == y.shape else None
    size = torch.maximum(x.double().norm(dim=-1).amax(), y.double().norm(dim=-1).amax())
    return _bounds(d, delta, moved, size * torch.finfo(y.dtype).eps)


def difference_bounds(
    d: Float[Tensor, "pairs inputs"],
    delta: Float[Tensor, "pairs outputs"],
    size: Float[Tensor, ""],
) -> PairBounds:
    """Return the bounds of `pair_bounds` from the differences of pairs, of inputs and outputs.

    Args:
        d: differences of inputs.
        delta: of outputs.
        size: of the largest input or output, which is rounded.
    """
    moved = (d - delta).double().square().sum(-1) if d.shape == delta.shape else None
    rounding = size.double() * torch.finfo(delta.dtype).eps
    squares = [each.double().square().sum(-1) for each in (d, delta)]
    return _bounds(squares[0], squares[1], moved, rounding)


def _bounds(d: Tensor, delta: Tensor, moved: Tensor | None, rounding: Tensor) -> PairBounds:
    """Return the bounds from ‖d‖², ‖Δ‖² and ‖d − Δ‖² of each pair."""
    known = d > 0
    lipschitz = _largest(torch.where(known, delta / d, torch.nan)).sqrt()
    if moved is None:
        return PairBounds(lipschitz, torch.full_like(lipschitz, torch.nan))
    # γ ≥ m/(m + ‖d‖² − ‖Δ‖²), m = ‖d − Δ‖²; what rounding may have taken off is added below.
    least = moved / (moved + (d - delta).clamp(min=0) + 4 * rounding * d.sqrt())
    least = torch.where(delta > d * (1 + ROUNDING) ** 2, torch.inf, least)
    return PairBounds(lipschitz, _largest(torch.where(known, least, torch.nan)))


def _largest(values: Tensor) -> Tensor:
    """Return the largest value that is not nan; nan if all are."""
    found = torch.where(values.isnan(), -torch.inf, values).amax()
    return torch.where(found == -torch.inf, torch.nan, found)


def _square_distances(values: Tensor) -> Float64[Tensor, "samples samples"]:
    """Return the squared distance of each pair of rows, exact for equal ones."""
    rows = values.double()
    rows = rows - rows.mean(0, keepdim=True)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()


def iteration_rate(residuals: Float64[Tensor, "*maps steps"]) -> Float64[Tensor, "*maps"]:
    """Return the factor by which the residual of an iteration falls in a step.

    The geometric mean over the second half of the steps; above 1 if the residual grows.

    Args:
        residuals: ‖O(x_t) − x_t‖, for t = 0, 1, ….

    Example:
        >>> import torch
        >>> iteration_rate(0.25 ** torch.arange(9, dtype=torch.float64)).item()
        0.25
    """
    last = residuals.shape[-1] - 1
    half = last // 2
    return (residuals[..., last] / residuals[..., half]) ** (1 / (last - half))
