"""``python -m experiments.game``: a positive control of the verdict, by the theory's own dynamics.

Agents start where PyTorch's default initialisation puts weights, uniformly, and play the potential
game of `experiments.potential_game` to its end.  If training worked as the theory says, this
is what a monitor would record, and the verdict must be *emerged*.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from rich.console import Console

from experiments.potential_game import play
from experiments.table import stream_table
from jaynes_callbacks.counts.metric import MagnitudeHistogram
from jaynes_callbacks.instruments.distribution import Tallied, summarise
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.tally import tally_of_counts
from jaynes_callbacks.records.stream import WEIGHT, Stream
from jaynes_callbacks.statistics.equilibrium import bin_appeal, exponents

__all__ = ["main", "played"]

_STREAM = Stream(WEIGHT, "potential_game")
#: Far more than the game needs.
_ROUNDS = 100


def played(agents: int, *, mu: float = -3.0, sigma: float = 0.5) -> tuple[Records, Records]:
    """Play the game; return the records of its start and its end.

    Args:
        agents: their number.
        mu: μ of the lognormal that the agents' utility makes the equilibrium, in ln w.
        sigma: its σ.

    Example:
        >>> start, end = played(20_000)
        >>> start[0].best_family, end[0].best_family, end[0].verdict
        ('uniform', 'lognormal', 'emerged')
    """
    start = MagnitudeHistogram()
    start.update(0.1 * torch.rand(agents, generator=torch.Generator().manual_seed(0)))
    law = (torch.tensor([value], dtype=torch.float64) for value in (mu, sigma))
    end = play(start.compute(), bin_appeal(*exponents(*law)), rounds=_ROUNDS)
    before, after = summarise(
        [
            Tallied([_STREAM], tally_of_counts(counts), step=step)
            for step, counts in ((0, start.compute()), (_ROUNDS, end))
        ]
    )
    return before, after


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the game and print the verdict.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 0 if the verdict is *emerged*.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.game",
        description="Play the theory's own dynamics; the verdict must be: emerged.",
    )
    parser.add_argument("--agents", type=int, default=1_000_000, help="at least 2000")
    options = parser.parse_args(arguments)
    if options.agents < 2000:
        parser.error(f"--agents must be at least 2000, got {options.agents}")
    start, end = played(options.agents)
    console = Console()
    console.print(stream_table(start, end, width=console.width))
    (last,) = end
    print(f"\n{last.verdict}")  # noqa: T201
    return 0 if last.verdict == "emerged" else 1


if __name__ == "__main__":
    sys.exit(main())
