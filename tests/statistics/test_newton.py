"""The engine alone, on functions whose summits are known."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.statistics.newton import Box, Point, Summit, maximise

FREE = Box(torch.tensor([-torch.inf] * 2).double(), torch.tensor([torch.inf] * 2).double())


class Hill(NamedTuple):
    """−ln(1 + ½ Σ s(θ − c)²): convex far from its summit, where a plain Newton step walks away."""

    centre: Tensor
    steepness: Tensor

    def take(self, rows: Tensor) -> "Hill":
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


def test_every_problem_finds_its_own_summit(hills: Hill) -> None:
    summit = maximise(hills, torch.zeros(40, 2, dtype=torch.float64), FREE, 100)
    assert summit.arrived.all()
    assert not summit.bounded.any()
    torch.testing.assert_close(summit.theta, hills.centre, rtol=0, atol=1e-6)
    assert 1 < summit.iterations.max() < 40


def test_in_a_box_the_summit_is_where_no_way_leads_up(hills: Hill) -> None:
    """Separable around its centre: within a box, the nearest point."""
    box = Box(torch.tensor([-1.0, -0.5]).double(), torch.tensor([1.0, torch.inf]).double())
    summit = maximise(hills, torch.zeros(40, 2, dtype=torch.float64), box, 100)
    expected = hills.centre.clamp(box.low, box.high)
    assert summit.arrived.all()
    torch.testing.assert_close(summit.theta, expected, rtol=0, atol=1e-6)
    assert torch.equal(summit.bounded, (expected <= box.low) | (expected >= box.high))
    assert summit.bounded.any()


def test_no_time_is_no_arrival(hills: Hill) -> None:
    summit = maximise(hills, torch.zeros(40, 2, dtype=torch.float64), FREE, 1)
    assert not summit.arrived.all()
    later = maximise(hills, summit.theta, FREE, 100)
    rows = torch.arange(0, 40, 3)
    some = Summit(*(part[rows] for part in later))
    replaced = summit.replaced(rows, some)
    assert torch.equal(replaced.theta[rows], later.theta[rows])
    assert torch.equal(replaced.theta[1], summit.theta[1])
    assert torch.equal(replaced.iterations[rows], (summit.iterations + later.iterations)[rows])


def test_nan_never_arrives_and_harms_no_neighbour(hills: Hill) -> None:
    start = torch.zeros(40, 2, dtype=torch.float64)
    start[7] = torch.nan
    summit = maximise(hills, start, FREE, 50)
    assert summit.arrived.tolist() == [row != 7 for row in range(40)]
