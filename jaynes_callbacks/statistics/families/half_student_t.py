"""Magnitudes of Student-t weights: the rival with a heavy tail."""

import math

import torch
from torch import Tensor
from torch.special import digamma, polygamma

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.families.base import Parameter, SmoothFamily
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity

__all__ = ["HalfStudentT"]

#: Bounds of 1/ν; at the lower one the law is half-normal within 1e-8 nats.
_LIGHTEST, _HEAVIEST = 1e-4, 50.0


class HalfStudentT(SmoothFamily):
    """Law of density ∝ (1 + w²/νs²)^−(ν+1)/2; ν → ∞ is the half-normal.

    The fit moves 1/ν, in which the half-normal is a regular point on the bound.
    """

    name = "half_student_t"
    label = "Student t"
    color = "#3a8fd6"
    dashes = (0, (5, 1))
    parameters = (
        Parameter("scale", "w", "Student t's scale s"),
        Parameter(
            "dof",
            "1",
            "Student t's degrees of freedom ν",
            "reciprocal",
            _LIGHTEST,
            _HEAVIEST,
            symbol="ν",
        ),
    )
    rough_start = True

    def start(self, binned: Binned, moments: LogMoments) -> Tensor:
        """Match two moments, var ln|T| = ¼[ψ'(½) + ψ'(ν/2)], E ln|T| = ½[ln ν + ψ(½) − ψ(ν/2)]."""
        grid = torch.logspace(-1.5, 3, 200, dtype=torch.float64, device=moments.std.device)
        spread = (math.pi**2 / 2 + polygamma(1, grid / 2)) / 4
        place = torch.searchsorted(-spread, -(moments.std**2).nan_to_num(1.0))
        dof = grid[place.clamp(max=len(grid) - 1)]
        centre = (dof.log() + digamma(torch.full_like(dof, 0.5)) - digamma(dof / 2)) / 2
        return torch.stack([(moments.mean - centre).exp(), dof], -1)

    def log_density(self, parameters: Tensor, x: Tensor) -> LogDensity:
        """Return ln f = ln C(ν) + y − ½(ν + 1) ln(1 + e²ʸ/ν) with y = x − ln s.

        C = 2Γ(½(ν+1))/Γ(½ν)√(νπ).
        """
        scale, dof = parameters[:, :1], parameters[:, 1:]
        y = x - scale.log()
        square = (2 * y).exp() / dof
        tail = square.log1p()
        pull = (dof + 1) * square / (1 + square)
        half = dof / 2
        constant = torch.lgamma(half + 0.5) - torch.lgamma(half) - (half * math.pi / 2).log() / 2
        level = dof * (1 - dof * (digamma(half + 0.5) - digamma(half))) / 2
        by_reciprocal = level + dof**2 / 2 * tail - dof / 2 * pull
        return LogDensity(constant + y - (half + 0.5) * tail, (pull - 1, by_reciprocal))
