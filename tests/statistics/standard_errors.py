"""The sandwich: standard errors of fitted parameters, against which tests hold what moves them."""

import torch
from torch import Tensor

from jaynes_callbacks.statistics import Binned, Family, Fit, SmoothFamily, Status
from jaynes_callbacks.statistics.likelihood import Likelihood
from jaynes_callbacks.statistics.quadrature import REPORT_NODES

__all__ = ["standard_errors"]


def standard_errors(binned: Binned, fit: Fit) -> Tensor:
    """Standard errors for independent values, right also where the family is wrong.

    √diag(H⁻¹ J H⁻¹/n) with H the Hessian and J the mean square of the scores (H. White,
    Econometrica 50 (1982) 1); of tilted counts n = (Σw)²/ΣV.  nan unless the fit has converged.
    """
    assert isinstance(fit.family, SmoothFamily)
    rows = (fit.status == Status.CONVERGED).nonzero().squeeze(-1)
    likelihood = Likelihood.of(fit.family, binned.subset(rows), exact_hessian=True)
    theta = fit.family.coordinates(fit.parameters[rows])
    score = likelihood.mass(theta, REPORT_NODES).score
    spread = torch.einsum("lk,ilk,jlk->lij", likelihood.share, score, score)
    inverse = torch.linalg.inv(likelihood.at(theta).hessian)
    n = likelihood.binned.total**2 / likelihood.binned.variances.sum(-1)
    variances = (inverse @ spread @ inverse).diagonal(dim1=-2, dim2=-1) / n[:, None]
    errors = torch.full_like(fit.parameters, torch.nan)
    errors[rows] = variances.sqrt() * _slopes(fit.family, fit.parameters[rows])
    return errors


def _slopes(family: Family, natural: Tensor) -> Tensor:
    """|d parameter/d coordinate|, which turns errors of the coordinates into the parameters'."""
    by_scale = {"linear": torch.ones_like, "log": torch.abs, "reciprocal": torch.square}
    columns = zip(family.parameters, natural.unbind(-1), strict=True)
    return torch.stack([by_scale[parameter.scale](column) for parameter, column in columns], -1)
