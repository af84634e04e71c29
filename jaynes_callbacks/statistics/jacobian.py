"""The Jacobian of a map into its own space: how asymmetric it is, and how it acts when iterated.

With the antisymmetric part ½(J − Jᵀ),

    a = ‖½(J − Jᵀ)‖² / ‖J‖²      (Frobenius norms)

lies between 0 (symmetric: the map is the gradient of a potential) and 1 (antisymmetric: a
rotation); it is ½ on average of independent entries of mean zero.  For random signs ε,
E‖Jε − Jᵀε‖² = ‖J − Jᵀ‖² and E‖Jε‖² = E‖Jᵀε‖² = ‖J‖² (Hutchinson, 1989), so that no Jacobian is ever
formed.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["Asymmetry", "asymmetry", "growth_rate", "probe_squares"]


class Asymmetry(NamedTuple):
    """An estimate from random probes.

    Attributes:
        value: of a, from 0 to 1; nan of a Jacobian that is zero.
        error: its standard error; nan of a single probe.
    """

    value: Float64[Tensor, "*maps"]
    error: Float64[Tensor, "*maps"]


def probe_squares(forward: Tensor, backward: Tensor) -> Float64[Tensor, "2"]:
    """Return ¼‖Jε − Jᵀε‖² and ½(‖Jε‖² + ‖Jᵀε‖²) of one probe, which add up over samples.

    Args:
        forward: Jε.
        backward: Jᵀε.
    """
    forward, backward = forward.double(), backward.double()
    antisymmetric = (forward - backward).square().sum() / 4
    whole = (forward.square().sum() + backward.square().sum()) / 2
    return torch.stack([antisymmetric, whole])


def asymmetry(squares: Float64[Tensor, "*maps probes 2"]) -> Asymmetry:
    """Estimate a from the squares of some probes, with the standard error of a ratio of means.

    The error is that of the probes alone (the Jacobian is given):
    √(Σ(n_i − a·d_i)² / (m(m − 1))) / d̄ (Cochran, *Sampling Techniques*, section 2.11).  Intervals
    take Student's t with m − 1 degrees: 2.36 errors for 95 % with eight probes.  Of J of low rank
    probes are far from Gaussian, and the error is too small more often.

    Args:
        squares: of each probe, from `probe_squares`.

    Example:
        >>> import torch
        >>> squares = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
        >>> asymmetry(squares)
        Asymmetry(value=tensor(0.5000, dtype=torch.float64), error=tensor(0., dtype=torch.float64))
    """
    part, whole = squares.unbind(-1)
    probes = part.shape[-1]
    value = part.sum(-1) / whole.sum(-1)
    residual = (part - value[..., None] * whole).square().sum(-1)
    error = (residual / (probes * (probes - 1))).sqrt() / whole.mean(-1) if probes > 1 else None
    return Asymmetry(value, torch.full_like(value, torch.nan) if error is None else error)


def growth_rate(norms: Float64[Tensor, "steps *maps"]) -> Float64[Tensor, "*maps"]:
    """Return the factor by which a vector grows in a step, over the second half of the steps.

    Of a power iteration v ← Jv/‖Jv‖ with a normal J (JJᵀ = JᵀJ) it tends to the spectral radius,
    also where several eigenvalues have the largest magnitude (±λ, a complex pair).  Otherwise the
    mean over n steps is off by the factor c^(±1/n) at most, with c the condition of the
    eigenvectors; where there is no basis of them it is transient growth: a triangular J without
    a diagonal has the spectral radius 0, and rates above 1 until its size in steps has passed.

    Args:
        norms: ‖Jv‖ in each step, with ‖v‖ = 1.
    """
    return norms[len(norms) // 2 :].log().mean(0).exp()
