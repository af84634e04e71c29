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

In other games of the theory (`experiments.games`) agents also like or dislike company: an agent
among n of its bin has the utility ``a_k + c(n)`` with the bin's appeal a_k and any c.  Such a game
still has an exact potential, Rosenthal's,

    ``φ = (1/N)(Σ_k Σ_{j ≤ n_k} (a_k + c(j)) + ln N!)``

of which ``c(n) = −ln n`` makes the one above.  Where c rises, several equilibria are possible, and
the start decides at which of them the game ends.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE

__all__ = ["Crowding", "greatest_gain", "play", "potential"]

#: c: what being among n agents of a bin, itself included, adds to an agent's utility, in nats, for
#: each n ≥ 1; −inf where a bin is overfull.
Crowding = Callable[[Float64[Tensor, "..."]], Float64[Tensor, "..."]]

#: How far an agent looks, in bins; 16 of them make an octave.
_DISTANCES = (1, 2, 4, 8, 16, 32, 64, 128)
#: How many agents leave a bin at most in one comparison, where each must be asked by itself.
_QUEUE = 16


def play(
    counts: Int64[Tensor, "games 4096"],
    appeal: Float64[Tensor, "games 4079"],
    *,
    rounds: int,
    crowding: Crowding | None = None,
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
        crowding: what company does to an agent's utility; None is −ln n, competition alone, whose
            moves have a closed form.
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
            meeting.trade(crowding, eagerness, generator)
    moved = counts.clone()
    moved[:, FIRST_POSITIVE:FIRST_NONFINITE] = agents.to(torch.int64)
    return moved


class _Meeting(NamedTuple):
    """Pairs of bins that are compared: views of the agents in them, and the bins' appeal."""

    below: Float64[Tensor, "games pairs distance"]
    above: Float64[Tensor, "games pairs distance"]
    appeal_below: Float64[Tensor, "games pairs distance"]
    appeal_above: Float64[Tensor, "games pairs distance"]

    def trade(
        self, crowding: Crowding | None, eagerness: float, generator: torch.Generator | None
    ) -> None:
        """Move, in place, the agents that gain."""
        moving = self._competing() if crowding is None else self._queueing(crowding)
        if eagerness < 1:
            willing = torch.full_like(moving, eagerness)
            moving = moving.sign() * torch.binomial(moving.abs(), willing, generator=generator)
        self.below.sub_(moving)
        self.above.add_(moving)

    def _competing(self) -> Float64[Tensor, "games pairs distance"]:
        """Return how many gain by moving up, less those who gain by moving down, for c = −ln n.

        Let π be the upper bin's share of a pair's agents at which none gains by moving.  The k-th
        agent who leaves n to join m others gains as long as ``k < (n + 1)·π − m·(1 − π)``.
        """
        advantage = self.appeal_above - self.appeal_below
        part, rest = torch.sigmoid(advantage), torch.sigmoid(-advantage)
        up = (((self.below + 1) * part - self.above * rest).ceil() - 1).clamp(min=0)
        down = (((self.above + 1) * rest - self.below * part).ceil() - 1).clamp(min=0)
        return up - down

    def _queueing(self, crowding: Crowding) -> Float64[Tensor, "games pairs distance"]:
        """Return the same for any c, asking agents one by one until one does not gain.

        Where the first gains in either direction, the greater gain decides; if equal, it is up.
        """
        advantage = (self.appeal_above - self.appeal_below)[..., None]
        up = _gains(self.below, self.above, crowding) + advantage
        down = _gains(self.above, self.below, crowding) - advantage
        upwards = up[..., 0] >= down[..., 0]
        number = [(gains > 0).cumprod(-1).sum(-1).to(torch.float64) for gains in (up, down)]
        return torch.where(upwards, number[0], -number[1])


def _gains(
    leaving: Float64[Tensor, "*bins"], joining: Float64[Tensor, "*bins"], crowding: Crowding
) -> Float64[Tensor, "*bins queue"]:
    """Return what crowding gives the first, second, … agent that moves; −inf when all have left."""
    order = torch.arange(_QUEUE, dtype=torch.float64)
    left = leaving[..., None] - order
    gains = crowding(joining[..., None] + 1 + order) - crowding(left.clamp(min=1))
    return torch.where(left > 0, gains, -torch.inf)


def _pairs(
    bins: Float64[Tensor, "games bins"], first: int, distance: int
) -> tuple[Float64[Tensor, "games pairs distance"], Float64[Tensor, "games pairs distance"]]:
    """Return views of paired bins: `distance` of them from `first` on, and as many above."""
    number = (bins.shape[-1] - first) // (2 * distance)
    blocks = bins[:, first : first + 2 * distance * number].unflatten(-1, (number, 2, distance))
    return blocks[:, :, 0], blocks[:, :, 1]


def potential(
    counts: Int64[Tensor, "games 4096"],
    appeal: Float64[Tensor, "games 4079"],
    crowding: Crowding | None = None,
) -> Float64[Tensor, " games"]:
    """Return φ of finitely many agents, in nats per agent.

    With competition alone it is at most ln Z_Δ (Eqs 8-11, 25).
    """
    agents = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    number = agents.sum(-1)
    company = (
        -torch.lgamma(agents + 1)
        if crowding is None
        else _company(agents.to(torch.int64), crowding)
    )
    return ((agents * appeal + company).sum(-1) + torch.lgamma(number + 1)) / number


def _company(
    agents: Int64[Tensor, "games bins"], crowding: Crowding
) -> Float64[Tensor, "games bins"]:
    """Return Σ_{j ≤ n} c(j) of each bin."""
    most = torch.arange(1, int(agents.max()) + 1, dtype=torch.float64)
    return torch.nn.functional.pad(crowding(most).cumsum(0), (1, 0))[agents]


def greatest_gain(
    counts: Int64[Tensor, "games 4096"],
    appeal: Float64[Tensor, "games 4079"],
    crowding: Crowding | None = None,
) -> Float64[Tensor, " games"]:
    """Return the most that an agent gains by moving, in nats: worst to best bin; ≤ 0 at the end."""
    agents = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    crowding = crowding or _competition
    staying = torch.where(agents > 0, appeal + crowding(agents.clamp(min=1)), torch.inf)
    return (appeal + crowding(agents + 1)).amax(-1) - staying.amin(-1)


def _competition(agents: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    return -agents.log()
