"""The engine alone, on functions whose optima are known."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.statistics.newton import Bounds, Optimum, Point, maximise

FREE = Bounds(torch.tensor([-torch.inf] * 2).double(), torch.tensor([torch.inf] * 2).double())


class Hill(NamedTuple):
    """−ln(1 + ½ Σ s(θ − c)²): convex far from its maximum, where a plain Newton step walks away."""

    centre: Tensor
    steepness: Tensor

    def subset(self, rows: Tensor) -> "Hill":
        return Hill(self.centre[rows], self.steepness[rows])

    def at(self, theta: Tensor) -> Point:
        away = theta - self.centre
        pull = self.steepness * away
        height = 1 + (pull * away).sum(-1) / 2
        gradient = -pull / height[:, None]
        hessian = -torch.diag_embed(self.steepness) / height[:, None, None]
        hessian = hessian + gradient[:, :, None] * gradient[:, None]
        return Point(theta.clone(), -height.log(), gradient, hessian)


@pytest.fixture
def hills() -> Hill:
    generator = torch.Generator().manual_seed(5)
    centre = 3 * torch.randn(40, 2, generator=generator, dtype=torch.float64)
    return Hill(centre, torch.rand(40, 2, generator=generator, dtype=torch.float64) + 0.1)


def test_every_problem_finds_its_own_optimum(hills: Hill) -> None:
    optimum = maximise(hills, torch.zeros(40, 2, dtype=torch.float64), FREE, 100)
    assert optimum.converged.all()
    assert not optimum.at_bound.any()
    torch.testing.assert_close(optimum.theta, hills.centre, rtol=0, atol=1e-6)
    assert 1 < optimum.iterations.max() < 40


def test_within_bounds_the_optimum_is_the_nearest_point(hills: Hill) -> None:
    """Separable around its centre: within bounds, the point nearest to it."""
    bounds = Bounds(torch.tensor([-1.0, -0.5]).double(), torch.tensor([1.0, torch.inf]).double())
    optimum = maximise(hills, torch.zeros(40, 2, dtype=torch.float64), bounds, 100)
    expected = hills.centre.clamp(bounds.low, bounds.high)
    assert optimum.converged.all()
    torch.testing.assert_close(optimum.theta, expected, rtol=0, atol=1e-6)
    assert torch.equal(optimum.at_bound, (expected <= bounds.low) | (expected >= bounds.high))
    assert optimum.at_bound.any()


def test_too_few_iterations_do_not_converge(hills: Hill) -> None:
    optimum = maximise(hills, torch.zeros(40, 2, dtype=torch.float64), FREE, 1)
    assert not optimum.converged.all()
    later = maximise(hills, optimum.theta, FREE, 100)
    rows = torch.arange(0, 40, 3)
    some = Optimum(*(part[rows] for part in later))
    replaced = optimum.replaced(rows, some)
    assert torch.equal(replaced.theta[rows], later.theta[rows])
    assert torch.equal(replaced.theta[1], optimum.theta[1])
    assert torch.equal(replaced.iterations[rows], (optimum.iterations + later.iterations)[rows])


def test_nan_never_converges_and_harms_no_neighbour(hills: Hill) -> None:
    start = torch.zeros(40, 2, dtype=torch.float64)
    start[7] = torch.nan
    optimum = maximise(hills, start, FREE, 50)
    assert optimum.converged.tolist() == [row != 7 for row in range(40)]
