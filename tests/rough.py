"""Laws at the moments' estimates, unfitted: a fit takes 0.15 s, whatever is fitted.

A test of when a run is recorded, of what is counted, or of where records go needs figures that
follow from the counts alone; not which they are.
"""

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.statistics.curve import CurveFit
from jaynes_callbacks.statistics.likelihood import Likelihood
from jaynes_callbacks.statistics.newton import Bounds, Optimum

__all__ = ["leave_laws_unfitted"]


def leave_laws_unfitted(patch: pytest.MonkeyPatch) -> None:
    """Let every fit end where it starts, as if it had converged there."""
    patch.setattr("jaynes_callbacks.statistics.fit._maximise", _start)
    patch.setattr("jaynes_callbacks.statistics.paper.fit_curve", _curve)


def _start(likelihood: Likelihood, theta: Tensor) -> Optimum:
    bounds = Bounds(*likelihood.family.bounds(theta.device))
    theta = bounds.clamp(theta)
    tried = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    return Optimum(theta, bounds.reached(theta), torch.ones_like(tried, dtype=torch.bool), tried)


def _curve(x: Tensor, y: Tensor) -> CurveFit:
    share = y / y.sum(-1, keepdim=True)
    mean = share @ x.log()
    std = (share * (x.log() - mean[:, None]) ** 2).sum(-1).sqrt()
    return CurveFit(mean, std, torch.ones_like(std, dtype=torch.bool))
