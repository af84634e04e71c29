"""Simulate the theory's potential game to its end: a reference for the theory's quantities.

The theory's agents (weights; neurons for iota) sit in bins of magnitude and move where their
effective utility is greater.  An agent of bin k, one of n_k among N, has the effective utility
(Eqs 4-7; with η, ζ for α, β Eqs 18-22)

    ``h_k = α ln w_k − β ln² w_k − ln(n_k/(N Δ_k))``

benefit less cost less competition; Δ_k is the bin's width.  Here an agent compares its bin with
those 1, 2, 4 … bins away and moves if it gains, all agents of a bin at once as long as the last of
them gains.  Every move raises the potential per agent (Eqs 8-11, 25, with the factorials that the
paper replaces by Stirling's formula)

    ``φ = Σ_k (n_k/N)(α ln w_k − β ln² w_k + ln Δ_k) + (1/N) ln(N!/Π_k n_k!)``

by exactly the mover's gain over N (R. W. Rosenthal, Int. J. Game Theory 2 (1973) 65).  So the game
ends from any start, and it ends where no agent gains: at arbitrage equilibrium, where all utilities
are equal up to ln(1 + 1/n_k), the effect of one agent.  That is the lognormal of Eq. 13.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE

__all__ = ["greatest_gain", "play", "potential"]

#: How far an agent looks, in bins; 16 of them make an octave.
_DISTANCES = (1, 2, 4, 8, 16, 32, 64, 128)


def play(
    counts: Int64[Tensor, "games 4096"],
    appeal: Float64[Tensor, "games 4079"],
    *,
    rounds: int,
    eagerness: float = 1.0,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, "games 4096"]:
    """Let the agents of every game move for some rounds.

    In a round every bin is compared, one after the other, with those 1, 2, 4 … 128 bins above and
    below it.  Comparing neighbours alone would converge too, but single agents in a far tail could
    be stuck there.

    Args:
        counts: where the agents are, on the universal grid; zeros and non-finite values stay out.
        appeal: utility of each bin while it is empty, from `equilibrium.bin_appeal`.
        rounds: their number.
        eagerness: probability with which an agent that would gain moves; 1 makes the play
            deterministic.
        generator: source of the moves' randomness where eagerness is below 1.

    Returns:
        Where the agents are then.

    Raises:
        ValueError: if `eagerness` is no probability above 0.

    Example:
        >>> import torch
        >>> from jaynes_callbacks.counts.metric import MagnitudeHistogram
        >>> from jaynes_callbacks.statistics.equilibrium import bin_appeal
        >>> weights = MagnitudeHistogram()
        >>> weights.update(torch.linspace(0.0, 0.1, 10_000))
        >>> alpha, beta = torch.tensor([-13.0]).double(), torch.tensor([2.0]).double()
        >>> end = play(weights.compute(), bin_appeal(alpha, beta), rounds=50)
        >>> end.sum().item()
        10000
    """
    if not 0 < eagerness <= 1:
        raise ValueError(f"eagerness is a probability above 0 and at most 1, got {eagerness}")
    agents = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    meetings = [
        _Meeting(*_pairs(agents, first, distance), *_pairs(appeal, first, distance))
        for distance in _DISTANCES
        for first in (0, distance)
    ]
    for _ in range(rounds):
        for meeting in meetings:
            meeting.trade(eagerness, generator)
    moved = counts.clone()
    moved[:, FIRST_POSITIVE:FIRST_NONFINITE] = agents.to(torch.int64)
    return moved


class _Meeting(NamedTuple):
    """Pairs of bins that are compared: views of the agents in them, and the bins' appeal."""

    below: Float64[Tensor, "games pairs distance"]
    above: Float64[Tensor, "games pairs distance"]
    appeal_below: Float64[Tensor, "games pairs distance"]
    appeal_above: Float64[Tensor, "games pairs distance"]

    def trade(self, eagerness: float, generator: torch.Generator | None) -> None:
        """Move, in place, the agents that gain.

        Let π be the upper bin's share of a pair's agents at which none gains by moving.  The k-th
        agent who leaves n to join m others gains as long as ``k < (n + 1)·π − m·(1 − π)``.
        """
        advantage = self.appeal_above - self.appeal_below
        part, rest = torch.sigmoid(advantage), torch.sigmoid(-advantage)
        up = (((self.below + 1) * part - self.above * rest).ceil() - 1).clamp(min=0)
        down = (((self.above + 1) * rest - self.below * part).ceil() - 1).clamp(min=0)
        moving = up - down
        if eagerness < 1:
            willing = torch.full_like(moving, eagerness)
            moving = moving.sign() * torch.binomial(moving.abs(), willing, generator=generator)
        self.below.sub_(moving)
        self.above.add_(moving)


def _pairs(
    bins: Float64[Tensor, "games bins"], first: int, distance: int
) -> tuple[Float64[Tensor, "games pairs distance"], Float64[Tensor, "games pairs distance"]]:
    """Return views of paired bins: `distance` of them from `first` on, and as many above."""
    number = (bins.shape[-1] - first) // (2 * distance)
    blocks = bins[:, first : first + 2 * distance * number].unflatten(-1, (number, 2, distance))
    return blocks[:, :, 0], blocks[:, :, 1]


def potential(
    counts: Int64[Tensor, "games 4096"], appeal: Float64[Tensor, "games 4079"]
) -> Float64[Tensor, " games"]:
    """Return φ of finitely many agents, in nats per agent; at most ln Z_Δ (Eqs 8-11, 25)."""
    agents = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    number = agents.sum(-1)
    arrangements = torch.lgamma(number + 1) - torch.lgamma(agents + 1).sum(-1)
    return ((agents * appeal).sum(-1) + arrangements) / number


def greatest_gain(
    counts: Int64[Tensor, "games 4096"], appeal: Float64[Tensor, "games 4079"]
) -> Float64[Tensor, " games"]:
    """Return the most that an agent gains by moving, in nats: worst to best bin; ≤ 0 at the end."""
    agents = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    staying = torch.where(agents > 0, appeal - agents.log(), torch.inf)
    return (appeal - (agents + 1).log()).amax(-1) - staying.amin(-1)
