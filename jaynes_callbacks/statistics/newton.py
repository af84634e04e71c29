"""Newton's method for many small maximisation problems at once, in a box.

Negative curvature is turned around and a step that does not rise is shortened, so every problem
either climbs or stands still.  A coordinate that a step would carry past its bound stays on it.
Problems that have arrived leave the batch.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

__all__ = ["Box", "Objective", "Point", "Summit", "maximise"]

#: Arrived when a Newton step promises a gain of less than this; the step is still taken.
_TOLERANCE = 1e-10
_LONGEST_STEP = 2.0
_SMALLEST_CURVATURE = 1e-10
_ROUNDING = 1e-9


class Point(NamedTuple):
    """Each problem's function and its derivatives at one θ."""

    theta: Float64[Tensor, "problems coordinates"]
    value: Float64[Tensor, " problems"]
    gradient: Float64[Tensor, "problems coordinates"]
    hessian: Float64[Tensor, "problems coordinates coordinates"]

    def where(self, condition: Bool[Tensor, " problems"], other: "Point") -> "Point":
        """This point where the condition holds, the other one elsewhere."""

        def choose(ours: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(condition.view(-1, *[1] * (ours.dim() - 1)), ours, theirs)

        return Point(*map(choose, self, other))

    def take(self, rows: Tensor) -> "Point":
        """Some problems only, by index or mask."""
        return Point(*(part[rows] for part in self))


@runtime_checkable
class Objective(Protocol):
    """What is maximised; its parts are independent of each other."""

    def at(self, theta: Float64[Tensor, "problems coordinates"]) -> Point:
        """Value, gradient and Hessian (an approximate one slows convergence, no more)."""

    def take(self, rows: Tensor) -> "Objective":
        """Some problems only, by index or mask."""


class Box(NamedTuple):
    """Bounds of the coordinates, the same for all problems; infinite where there is none."""

    low: Float64[Tensor, " coordinates"]
    high: Float64[Tensor, " coordinates"]

    def clamp(self, theta: Tensor) -> Tensor:
        """θ with what is beyond a bound, or within rounding of it, put on the bound."""
        theta = torch.where(theta <= self.low + _ROUNDING * self.low.abs(), self.low, theta)
        return torch.where(theta >= self.high - _ROUNDING * self.high.abs(), self.high, theta)

    def touched(self, theta: Tensor) -> Bool[Tensor, "problems coordinates"]:
        """Which coordinates are on a bound."""
        return (theta <= self.low) | (theta >= self.high)

    def held(self, theta: Tensor, step: Tensor) -> Bool[Tensor, "problems coordinates"]:
        """Which coordinates are on a bound that the step would cross."""
        return ((theta <= self.low) & (step < 0)) | ((theta >= self.high) & (step > 0))

    def shorten(self, theta: Tensor, step: Tensor) -> Tensor:
        """The step as far as the first bound in its way."""
        room = torch.where(step < 0, self.low - theta, self.high - theta) / step
        reach = torch.where(step == 0, 1.0, room).amin(-1, keepdim=True)
        return step * reach.clamp(max=1.0)


class Summit(NamedTuple):
    """Where the climb ended.

    Attributes:
        theta: the coordinates.
        hessian: at the last point but one.
        bounded: which coordinates are on a bound.
        arrived: whether the tolerance was reached.
        iterations: steps tried.
    """

    theta: Float64[Tensor, "problems coordinates"]
    hessian: Float64[Tensor, "problems coordinates coordinates"]
    bounded: Bool[Tensor, "problems coordinates"]
    arrived: Bool[Tensor, " problems"]
    iterations: Int64[Tensor, " problems"]

    def replaced(self, rows: Int64[Tensor, " rows"], later: "Summit") -> "Summit":
        """This summit with a later climb's for some problems, their iterations added."""
        later = later._replace(iterations=self.iterations[rows] + later.iterations)
        return Summit(
            *(whole.index_copy(0, rows, part) for whole, part in zip(self, later, strict=True))
        )


def maximise(
    objective: Objective,
    start: Float64[Tensor, "problems coordinates"],
    box: Box,
    iterations: int,
) -> Summit:
    """Climb from `start` within the box, in at most so many iterations.

    A problem whose function is nan at the start never arrives.
    """
    best = objective.at(box.clamp(start))
    length = torch.ones_like(best.value)
    taken = torch.zeros_like(best.value, dtype=torch.int64)
    active = torch.arange(len(start), device=start.device)
    for _ in range(iterations):
        here = best.take(active)
        step, promise = _bounded_step(here, length[active], box)
        ahead = box.clamp(here.theta + step)
        arrived = promise < _TOLERANCE
        best.theta[active[arrived]] = ahead[arrived]
        if arrived.any():
            active, here, ahead = active[~arrived], here.take(~arrived), ahead[~arrived]
            if not len(active):
                break
            objective = objective.take(~arrived)
        trial = objective.at(ahead)
        better = (trial.value >= here.value) & trial.hessian.isfinite().all(-1).all(-1)
        for whole, part in zip(best, trial.where(better, here), strict=True):
            whole[active] = part
        length[active] = (length[active] * torch.where(better, 4.0, 0.5)).clamp(max=1.0)
        taken[active] += 1
    arrived = torch.ones_like(taken, dtype=torch.bool)
    arrived[active] = False
    return Summit(best.theta, best.hessian, box.touched(best.theta), arrived, taken)


def _bounded_step(point: Point, length: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    free = torch.zeros_like(point.theta, dtype=torch.bool)
    step, promise = _newton_step(point, length, free)
    held = box.held(point.theta, step)
    if held.any():
        step, promise = _newton_step(point, length, held)
    return box.shorten(point.theta, step), promise


def _newton_step(point: Point, length: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Saddle-free Newton step, bounded and shortened, and the gain that a whole one promises."""
    gradient = point.gradient.masked_fill(held, 0.0)
    fixed = held[:, None] | held[..., None]
    curvature = torch.where(fixed, torch.eye(held.shape[-1], device=held.device), -point.hessian)
    size, axes = torch.linalg.eigh(curvature.nan_to_num(nan=1.0))
    size = size.abs().clamp(min=_SMALLEST_CURVATURE)
    along = (axes.mT @ gradient[..., None]).squeeze(-1)
    promise = (along**2 / size).sum(-1) / 2
    step = (axes @ (along / size)[..., None]).squeeze(-1)
    longest = step.abs().amax(-1).clamp(min=_LONGEST_STEP)
    return step * (length * _LONGEST_STEP / longest)[:, None], promise
