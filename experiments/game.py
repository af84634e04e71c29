"""``python -m experiments.game``: a positive control of the verdict, by the theory's own dynamics.

Agents start where PyTorch's default initialisation puts weights, uniformly, and play the potential
game of `experiments.potential_game` to its end.  If training worked as the theory says, this
is what a monitor would record, and the verdict must be *emerged*.  ``--law weibull`` plays another
of the games in `experiments.games`, which must end at its own law, and ``--crowd segregation`` one
whose agents like company, which must end where nobody gains by moving.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from rich.console import Console
from torch import Tensor

from experiments.games import CROWDS, LAWS, Crowd, Law, law_gap, phases
from experiments.potential_game import greatest_gain, play
from experiments.table import stream_table
from jaynes_callbacks.counts.metric import MagnitudeHistogram
from jaynes_callbacks.instruments.distribution import Tallied, summarise
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.tally import tally_of_counts
from jaynes_callbacks.records.stream import WEIGHT, Stream

__all__ = ["Played", "main", "played"]

_STREAM = Stream(WEIGHT, "potential_game")
#: Far more than the games need.
_ROUNDS = 100
#: Nats within which the agents are at the law; a million agents, being finitely many, make 2e-5.
_AT_THE_LAW = 1e-3


class Played(NamedTuple):
    """What came of a game.

    Attributes:
        start: its record at the start.
        end: the record at the end.
        law_gap: KL(agents' shares ‖ predicted law) at the end, in nats.
    """

    start: Records
    end: Records
    law_gap: float


def played(agents: int, law: Law = LAWS["weights"]) -> Played:
    """Play the game of a law, from a uniform start.

    Args:
        agents: their number.
        law: what they want.

    Example:
        >>> start, end, law_gap = played(20_000)
        >>> start[0].best_family, end[0].best_family, end[0].verdict, round(law_gap, 3)
        ('uniform', 'lognormal', 'emerged', 0.0)
    """
    histogram = MagnitudeHistogram()
    histogram.update(0.1 * torch.rand(agents, generator=torch.Generator().manual_seed(0)))
    start = histogram.compute()
    end = play(start, law.appeal(), rounds=_ROUNDS)
    before, after = summarise(
        [
            Tallied([_STREAM], tally_of_counts(counts), step=step)
            for step, counts in ((0, start), (_ROUNDS, end))
        ]
    )
    return Played(before, after, law_gap(end, law).item())


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a game and print what came of it.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 0 if the game ended as predicted, of weights with the verdict *emerged*.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.game",
        description="Play the theory's own dynamics; of weights the verdict must be: emerged.",
    )
    parser.add_argument("--agents", type=int, default=1_000_000, help="at least 2000; of a law")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--law", choices=sorted(LAWS), default="weights")
    which.add_argument("--crowd", choices=sorted(CROWDS))
    options = parser.parse_args(arguments)
    if options.agents < 2000:
        parser.error(f"--agents must be at least 2000, got {options.agents}")
    if options.crowd is not None:
        return _crowd(CROWDS[options.crowd])
    return _law(options.law, options.agents)


def _law(name: str, agents: int) -> int:
    law = LAWS[name]
    start, end, law_gap = played(agents, law)
    console = Console()
    console.print(stream_table(start, end, width=console.width))
    (last,) = end
    values = ", ".join(
        f"{parameter.name} {value:g}"
        for parameter, value in zip(law.family.parameters, law.parameters, strict=True)
    )
    print(  # noqa: T201
        f"\n{law.agents}: predicted {law.family.label} ({values}); "
        f"the agents are {law_gap:.1e} nats from it"
    )
    if name == "weights":
        print(last.verdict)  # noqa: T201
        return 0 if last.verdict == "emerged" else 1
    return 0 if law_gap < _AT_THE_LAW else 1


def _crowd(crowd: Crowd) -> int:
    generator = torch.Generator().manual_seed(0)
    end = crowd.play(crowd.start(generator), rounds=_ROUNDS, generator=generator)
    print(f"{crowd.agents}: {_phases_text(end, crowd)}")  # noqa: T201
    gain = greatest_gain(end, crowd.appeal(), crowd.crowding).item()
    print(f"greatest gain by moving: {gain:.1e} nats")  # noqa: T201
    return 0 if gain < _AT_THE_LAW else 1


def _phases_text(counts: Int64[Tensor, "1 4096"], crowd: Crowd) -> str:
    found = phases(counts, crowd)
    if found.dense_share == 0:
        return (
            f"one phase, {found.sparse:.1f} agents a bin, utility {found.sparse_utility:.4f} nats"
        )
    sparse = f"{found.sparse:.1f} agents" if found.sparse > 0 else "nobody"
    equal = f" and {found.sparse_utility:.4f}" if found.sparse > 0 else ""
    return (
        f"{found.dense_share:.1%} of the bins hold {found.dense:.1f} agents each and the others "
        f"{sparse}, utility {found.dense_utility:.4f}{equal} nats"
    )


if __name__ == "__main__":
    sys.exit(main())
