"""The games of the theory's domains, each by its name: what agents want, and where they end.

The paper's Table III (arXiv 2405.10955) lists domains whose agents play the potential game of
`experiments.potential_game` with other utilities.  `LAWS` has those in which an agent's utility
depends on its bin and on competition −ln n alone.  With bins of width Δ in w the end is

    ``x(w) ∝ exp(u(w))`` as a density in w,

so that a utility is the logarithm of the law's density, up to a constant:

===========  ==========================  ===============================  =====================
name         agents; w is                u(w)                             law at the end
===========  ==========================  ===============================  =====================
weights      connections; magnitude      α ln w − β ln² w                 lognormal (Eq. 13)
income       employees; salary           α ln w − β ln² w                 lognormal
exponential  bacteria; way from food         −w/θ                             exponential
boltzmann    molecules of a gas; energy  ½ ln w − w/T                     gamma of shape 3/2
weibull      ants; distance carried      (k − 1) ln w − (w/λ)^k           Weibull
===========  ==========================  ===============================  =====================

The Boltzmann law e^{−E/T} is that of one state; √E states have an energy near E in an ideal gas.

`CROWDS` has those whose agents like company as well: the same places for all, and a utility c(n) of
being among n.  With M places a bin, ``M − n + 1`` of them open to the n-th (arXiv 2206.09096,
2405.15803),

    segregation: ``c(n) = a n/M − b (n/M)² + ln(M − n + 1) − ln n``
    flocking:    ``c(n) = (α + γ l) n − β n² − δ ln n``

(Entropy 25 (2023) 1043; l in [0, 1] is the alignment of a flock's velocities, here given, not
played).  In the former φ is ``ln Π_k C(M, n_k)`` and the interaction, the free energy of a lattice
gas with its sign reversed.  Where c falls throughout, all bins end with equally many agents.  Where
it rises between two numbers of agents, the *spinodal*, a bin cannot stay between them: a sparse
and a dense phase are left.  In segregation both have agents, all of the same utility: the phases
coexist.  In flocking the sparse phase is empty, for a bird alone has less than those of a flock: a
bin has a flock or none.  c rises somewhere iff a > 4 (b = 0, many places), and iff
(α + γl)² > 8βδ.  Equal utility is one equation for two densities, so the share of the dense phase
remains free: that the start decides.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from experiments.potential_game import Crowding, play
from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.statistics.families import FAMILY_BY_NAME, LOGNORMAL, Family

__all__ = [
    "CROWDS",
    "LAWS",
    "Crowd",
    "Law",
    "Phases",
    "flocking",
    "law_gap",
    "lognormal",
    "phases",
    "segregation",
    "spinodal",
]

_BINS = FIRST_NONFINITE - FIRST_POSITIVE


class Law(NamedTuple):
    """A game whose end is a law of magnitudes.

    Attributes:
        agents: who they are, and what w is of them.
        utility: u of ln w, in nats, without competition.
        family: of the law at the end.
        parameters: of that law.
    """

    agents: str
    utility: Callable[[Float64[Tensor, "..."]], Float64[Tensor, "..."]]
    family: Family
    parameters: tuple[float, ...]

    def appeal(self) -> Float64[Tensor, "1 4079"]:
        """Return ln Δ + u(w) of each bin, u at the middle of the bin in ln w."""
        log_edge = _log_edges()
        middle = (log_edge[1:] + log_edge[:-1]) / 2
        return (self.utility(middle) + log_edge.exp().diff().log())[None]


def lognormal(mu: float, sigma: float, agents: str = "connections; magnitude") -> Law:
    """Return the game that ends at the lognormal with μ, σ."""
    alpha, beta = mu / sigma**2 - 1, 1 / (2 * sigma**2)
    return Law(agents, lambda x: alpha * x - beta * x**2, LOGNORMAL, (mu, sigma))


def _exponential(scale: float) -> Law:
    family = FAMILY_BY_NAME["exponential"]
    return Law("bacteria; way from food", lambda x: -x.exp() / scale, family, (scale,))


def _boltzmann(temperature: float) -> Law:
    return Law(
        "molecules of a gas; energy",
        lambda x: x / 2 - x.exp() / temperature,
        FAMILY_BY_NAME["gamma"],
        (1.5, temperature),
    )


def _weibull(shape: float, scale: float) -> Law:
    return Law(
        "ants; distance carried",
        lambda x: (shape - 1) * x - (x.exp() / scale) ** shape,
        FAMILY_BY_NAME["weibull"],
        (shape, scale),
    )


LAWS: Mapping[str, Law] = MappingProxyType(
    {
        "weights": lognormal(-3.0, 0.5),
        "income": lognormal(-2.0, 0.8, "employees; salary"),
        "exponential": _exponential(0.05),
        "boltzmann": _boltzmann(0.05),
        "weibull": _weibull(2.5, 0.08),
    }
)


def law_gap(counts: Int64[Tensor, "games 4096"], law: Law) -> Float64[Tensor, " games"]:
    """Return KL(x ‖ law) of the agents' shares and the law's masses of the bins, in nats."""
    agents = counts[:, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    share = agents / agents.sum(-1, keepdim=True)
    edge = _log_edges()[None]
    parameters = torch.tensor([law.parameters], dtype=torch.float64)
    log_mass = law.family.log_mass(parameters, edge[:, :-1], edge[:, 1:])
    surprise = share.log() - log_mass
    return torch.where(share > 0, share * surprise, 0.0).sum(-1)


def _log_edges() -> Float64[Tensor, " 4080"]:
    return log_edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1]


class Crowd(NamedTuple):
    """A game whose agents like company, played on the grid's bins as places of equal appeal.

    Attributes:
        agents: who they are, and what a bin is.
        crowding: c(n), in nats.
        most: the greatest number of agents of a bin that is looked at.
        mean: agents a bin, at the start.
    """

    agents: str
    crowding: Crowding
    most: int
    mean: float

    def appeal(self) -> Float64[Tensor, "1 4079"]:
        """Return zeros: every bin is as good as another."""
        return torch.zeros(1, _BINS, dtype=torch.float64)

    def start(self, generator: torch.Generator) -> Int64[Tensor, "1 4096"]:
        """Draw the number of each bin's agents, of as many places as a bin has at most."""
        places = torch.full((1, _BINS), float(self.most), dtype=torch.float64)
        drawn = torch.binomial(places, torch.full_like(places, self.mean / self.most), generator)
        return self.counts(drawn.to(torch.int64))

    def counts(self, agents: Int64[Tensor, "1 4079"]) -> Int64[Tensor, "1 4096"]:
        """Return these numbers of agents as counts on the grid."""
        return pad(agents, (FIRST_POSITIVE, CODES - FIRST_NONFINITE))

    def play(
        self, counts: Int64[Tensor, "1 4096"], *, rounds: int, generator: torch.Generator
    ) -> Int64[Tensor, "1 4096"]:
        """Play some rounds; before each, the places change their order.

        So an agent sees other places in each round, and no pocket of places stays by itself.
        """
        appeal = self.appeal()
        for _ in range(rounds):
            order = torch.randperm(_BINS, generator=generator)
            shuffled = self.counts(counts[:, FIRST_POSITIVE:FIRST_NONFINITE][:, order])
            counts = play(shuffled, appeal, rounds=1, crowding=self.crowding)
        return counts


def segregation(attraction: float, aversion: float = 0.0, *, places: int = 400) -> Crowding:
    """Return Schelling's c with attraction a, aversion b to crowds, and M places a bin."""

    def crowding(agents: Tensor) -> Tensor:
        density = agents / places
        vacant = (places - agents + 1).clamp(min=0)
        return attraction * density - aversion * density**2 + (vacant / agents).log()

    return crowding


def flocking(
    alignment: float, *, alpha: float = 0.5, beta: float = 0.005, gamma: float = 0.25
) -> Crowding:
    """Return the birds' c with alignment l and δ = 1; the defaults are Entropy 25, 1043, Fig. 1."""

    def crowding(agents: Tensor) -> Tensor:
        return (alpha + gamma * alignment) * agents - beta * agents**2 - agents.log()

    return crowding


CROWDS: Mapping[str, Crowd] = MappingProxyType(
    {
        "mixing": Crowd("households; neighbourhood", segregation(3.0), 400, 200),
        "segregation": Crowd("households; neighbourhood", segregation(5.0), 400, 200),
        "flocking": Crowd("birds; flock", flocking(1.0), 400, 30),
    }
)


def spinodal(crowd: Crowd) -> tuple[int, int] | None:
    """Return the n at which c turns to rise, and the n at which it turns to fall again.

    None where c falls throughout: one phase.
    """
    numbers = torch.arange(1, crowd.most + 1, dtype=torch.float64)
    rising = (crowd.crowding(numbers).diff() > 0).nonzero().flatten()
    return None if rising.numel() == 0 else (int(rising[0]) + 1, int(rising[-1]) + 2)


class Phases(NamedTuple):
    """What coexists at the end of a crowd's game; agents and utility are means over bins.

    Attributes:
        dense_share: share of bins in the dense phase; 0 where all bins are alike.
        sparse: agents a bin of the sparse phase; 0 where it is empty.
        dense: the same of the dense phase; nan without one.
        sparse_utility: utility of the sparse phase's agents in nats; nan without agents.
        dense_utility: the same of the dense phase.
    """

    dense_share: float
    sparse: float
    dense: float
    sparse_utility: float
    dense_utility: float


def phases(counts: Int64[Tensor, "1 4096"], crowd: Crowd) -> Phases:
    """Split the bins at the middle of the spinodal and describe both parts."""
    agents = counts[0, FIRST_POSITIVE:FIRST_NONFINITE].to(torch.float64)
    limits = spinodal(crowd)
    dense = agents > (crowd.most if limits is None else sum(limits) / 2)
    utility = crowd.crowding(agents.clamp(min=1))
    return Phases(
        dense.double().mean().item(),
        agents[~dense].mean().item(),
        agents[dense].mean().item(),
        utility[~dense & (agents > 0)].mean().item(),
        utility[dense].mean().item(),
    )
