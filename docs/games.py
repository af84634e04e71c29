"""Draw docs/images/games.png: the theory's other games, played to their ends.

Above, a million agents start uniformly and end at the law that their utility predicts; below, how
far they are from it round by round, and the games whose agents like company
(`experiments.games`).

    python docs/games.py
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from experiments.games import CROWDS, LAWS, Crowd, Law, Phases, law_gap, phases
from experiments.potential_game import play
from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.counts.metric import MagnitudeHistogram

AGENTS = 1_000_000
EAGERNESS = 0.1
ROUNDS = 100
CROWD_ROUNDS = 40
SHOWN = ("income", "exponential", "boltzmann", "weibull")
COLORS = dict(zip(SHOWN, ("#1b6ca8", "#c1440e", "#3b8254", "#7b4fa3"), strict=True))
CROWD_COLORS = {"mixing": "#777777", "segregation": "#1b6ca8", "flocking": "#c1440e"}


def draw() -> Figure:
    """Laws above; their approach and the crowds below."""
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    axes = figure.subplots(2, 4)
    for panel, name in zip(axes[0], SHOWN, strict=True):
        _law(panel, axes[1, 0], name, LAWS[name])
    axes[1, 0].set(xlabel="rounds", ylabel="nats", title="KL(agents ‖ predicted law)")
    axes[1, 0].legend(fontsize="small")
    for panel, name in zip(axes[1, 1:], CROWDS, strict=True):
        _crowd(panel, name, CROWDS[name])
    return figure


def _law(panel: Axes, approach: Axes, name: str, law: Law) -> None:
    generator = torch.Generator().manual_seed(0)
    histogram = MagnitudeHistogram()
    histogram.update(0.1 * torch.rand(AGENTS, generator=generator))
    counts, appeal, color = histogram.compute(), law.appeal(), COLORS[name]
    _density(panel, counts, "0.6", "start: uniform")
    gaps = [law_gap(counts, law).item()]
    for _ in range(ROUNDS):
        counts = play(counts, appeal, rounds=1, eagerness=EAGERNESS, generator=generator)
        gaps.append(law_gap(counts, law).item())
    _density(panel, counts, color, f"after {ROUNDS} rounds")
    cuts = log_edges()[None, FIRST_POSITIVE : FIRST_NONFINITE + 1]
    parameters = torch.tensor([law.parameters], dtype=torch.float64)
    mass = law.family.log_mass(parameters, cuts[:, :-1], cuts[:, 1:]).exp()
    middle = (cuts[0, 1:] + cuts[0, :-1]) / 2
    panel.plot(middle, mass[0] / cuts[0].diff(), "k--", linewidth=1, label=law.family.label)
    panel.set(xlim=(-8, 1.5), xlabel="ln w", title=f"{name}: {law.agents}")
    panel.title.set_fontsize("medium")
    panel.legend(fontsize="x-small", loc="upper left")
    if name == SHOWN[0]:
        panel.set_ylabel("density of ln w")
    approach.semilogy(gaps, color=color, label=name)


def _density(panel: Axes, counts: Tensor, color: str, label: str) -> None:
    cuts = log_edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1]
    density = counts[0, FIRST_POSITIVE:FIRST_NONFINITE] / AGENTS / cuts.diff()
    panel.stairs(density.numpy(), cuts.numpy(), color=color, label=label)


def _crowd(panel: Axes, name: str, crowd: Crowd) -> None:
    """Utility over an agent's company, and where the agents are at the start and the end."""
    generator = torch.Generator().manual_seed(0)
    start = crowd.start(generator)
    end = crowd.play(start, rounds=CROWD_ROUNDS, generator=generator)
    numbers = torch.arange(1, crowd.most, dtype=torch.float64)
    utility = crowd.crowding(numbers)
    panel.plot(numbers, utility, color="0.4", label="utility of an agent")
    found = phases(end, crowd)
    for agents, each in (
        (found.sparse, found.sparse_utility),
        (found.dense, found.dense_utility),
    ):
        # An empty phase has no agents, and no utility.
        if agents > 0:
            panel.plot(agents, each, "o", color=CROWD_COLORS[name])
            panel.axhline(each, color=CROWD_COLORS[name], linewidth=0.8, linestyle=":")
    low, high = utility[2], utility[2:].max()
    panel.set(title=f"{name}: {crowd.agents}\n{_ending(found)}", xlabel="agents in a bin")
    panel.set_ylim(_limits(name, low.item(), high.item()))
    panel.title.set_fontsize("medium")
    panel.set_ylabel("nats")
    bars = panel.twinx()
    cuts = np.arange(0, crowd.most + 1, 4)
    for counts, color, label in ((start, "0.75", "start"), (end, CROWD_COLORS[name], "end")):
        agents = counts[0, FIRST_POSITIVE:FIRST_NONFINITE].numpy()
        share = np.histogram(agents, cuts)[0] / agents.size
        bars.stairs(share, cuts, color=color, fill=True, alpha=0.5, label=f"bins at the {label}")
    bars.set(ylim=(0, 1.6), yticks=(0, 0.5, 1.0))
    bars.set_ylabel("share of bins", loc="bottom")
    panel.plot([], [], "o", color=CROWD_COLORS[name], label="utility at the end")
    lines = [axes.get_legend_handles_labels() for axes in (panel, bars)]
    bars.legend(
        [*lines[0][0], *lines[1][0]],
        [*lines[0][1], *lines[1][1]],
        fontsize="x-small",
        loc="upper right",
    )


def _ending(found: Phases) -> str:
    """Describe in a title which phases there are at the end."""
    if found.dense_share == 0:
        return "one phase"
    if found.sparse == 0:
        return f"flocks in {found.dense_share:.0%} of bins, the others are empty"
    return "a sparse and a dense phase"


def _limits(name: str, low: float, high: float) -> tuple[float, float]:
    """Leave out what is far below: the utility of overfull bins."""
    if name == "flocking":
        return (-25.0, high + 12)
    return (-1.0, high + 1.0) if name == "mixing" else (1.5, 3.6)


def main() -> None:
    """Play, draw, save."""
    target = Path(__file__).parent / "images" / "games.png"
    target.parent.mkdir(exist_ok=True)
    draw().savefig(target, dpi=85)


if __name__ == "__main__":
    main()
