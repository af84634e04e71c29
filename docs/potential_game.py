"""Draw docs/images/potential_game.png: agents play the potential game to its end.

A million agents start where PyTorch's default initialisation puts weights, uniformly, and move
where their effective utility is greater (`experiments.potential_game`).

    python docs/potential_game.py
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from experiments.potential_game import play
from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.counts.metric import MagnitudeHistogram
from jaynes_callbacks.statistics import occupied_bins
from jaynes_callbacks.statistics.equilibrium import (
    bin_appeal,
    effective_utility,
    equilibrium,
    exponents,
    log_partition,
)

AGENTS = 1_000_000
MU = torch.tensor([-3.0], dtype=torch.float64)
SIGMA = torch.tensor([0.5], dtype=torch.float64)
ALPHA, BETA = exponents(MU, SIGMA)
ROUNDS = 60
SHOWN = (0, 2, 5, 10, 60)
EAGERNESS = 0.1


class Course(NamedTuple):
    """Counts after every round, and the theory's figures of them."""

    counts: list[Tensor]
    gap: list[float]
    spread: list[float]
    potential: list[float]


def played() -> Course:
    """The game, round by round, seeded."""
    generator = torch.Generator().manual_seed(0)
    start = MagnitudeHistogram()
    start.update(0.1 * torch.rand(AGENTS, generator=generator))
    appeal = bin_appeal(ALPHA, BETA)
    course = Course([start.compute()], [], [], [])
    for _ in range(ROUNDS):
        course.counts.append(
            play(course.counts[-1], appeal, rounds=1, eagerness=EAGERNESS, generator=generator)
        )
    greatest = log_partition(ALPHA, BETA)
    for counts in course.counts:
        theory = equilibrium(occupied_bins(counts), MU, SIGMA)
        course.gap.append((greatest - theory.potential).item())
        course.spread.append(theory.utility_std.item())
        course.potential.append(theory.potential.item())
    return course


def draw(course: Course) -> Figure:
    """Distribution, utility, and the figures that vanish together."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    law, utility, fall = figure.subplots(1, 3)
    colors = colormaps["viridis_r"](np.linspace(0.1, 1.0, len(SHOWN)))
    for shown, color in zip(SHOWN, colors, strict=True):
        _law(law, course.counts[shown], shown, color)
        _utility(utility, course.counts[shown], color)
    _prediction(law)
    _fall(fall, course)
    return figure


def _law(axes: Axes, counts: Tensor, shown: int, color: np.ndarray) -> None:
    edges = log_edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1]
    density = counts[0, FIRST_POSITIVE:FIRST_NONFINITE] / AGENTS / edges.diff()
    label = "start: uniform" if shown == 0 else f"after {shown} rounds"
    axes.stairs(density.numpy(), edges.numpy(), color=color, label=label)


def _prediction(axes: Axes) -> None:
    x = np.linspace(-6.5, -1, 300)
    z = (x - MU.item()) / SIGMA.item()
    density = np.exp(-0.5 * z**2) / (SIGMA.item() * math.sqrt(2 * math.pi))
    axes.plot(x, density, "k--", linewidth=1, label="predicted (Eq. 13)")
    axes.set(xlim=(-6.5, -1), xlabel="ln w", ylabel="density of ln w", title="Where the agents are")
    axes.legend(fontsize="x-small", loc="upper left")


def _utility(axes: Axes, counts: Tensor, color: np.ndarray) -> None:
    binned = occupied_bins(counts)
    middle, utility = binned.middle[0], effective_utility(binned, ALPHA, BETA)[0]
    bulk = binned.share[0] > 1e-5
    axes.plot(middle[bulk].numpy(), utility[bulk].numpy(), color=color)
    axes.axhline(log_partition(ALPHA, BETA).item(), color="k", linestyle="--", linewidth=1)
    axes.set(xlim=(-6.5, -1), ylim=(5, 21), xlabel="ln w", ylabel="nats")
    axes.set_title("Effective utility $h_k$ of occupied bins")


def _fall(axes: Axes, course: Course) -> None:
    axes.semilogy(course.gap, label=r"arbitrage gap $\varphi_{max}-\varphi$")
    axes.semilogy(course.spread, label="spread of utility")
    axes.set(xlabel="rounds", ylabel="nats", title="What vanishes at equilibrium")
    axes.legend(fontsize="small")


def main() -> None:
    """Play, draw, save."""
    target = Path(__file__).parent / "images" / "potential_game.png"
    target.parent.mkdir(exist_ok=True)
    course = played()
    draw(course).savefig(target, dpi=120)


if __name__ == "__main__":
    main()
