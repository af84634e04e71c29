"""Coalitions of neighbouring neurons in one activation map.

A map of H × W places is a game of as many players.  With x the activations, in units of the map's
root mean square, a set S of players has the energy

    E(S) = −α Σ_{i ∈ S} x_i − β Σ_{i, j ∈ S neighbours} x_i x_j

where neighbours are next to each other in a row or a column (four at most), each pair counted once.
For the payoff −E the Shapley value of a player, which here is its Banzhaf value too, is

    φ_i = α x_i + ½ β x_i Σ_{j neighbour of i} x_j                      Σ_i φ_i = −E(all)

Strong is a neuron with φ_i > 0 that reaches ρ, the first quartile of the positive φ of its map.
(Where more than a quarter of a map is zero, as after a ReLU, the quartile of all φ is zero too, and
strong would be the same as active.)  A neighbourhood of n × n places wins if all of its neurons are
strong.  Were the strong ones, a share p, strewn about independently, a share p^{n²} of the
neighbourhoods would win.

A neighbourhood by itself can be in 2^{n²} states, each neuron on or off, with the Gibbs law
P(S) ∝ e^{−E(S)}; all of them are enumerated.  Of this law (`Gibbs`) the entropy is ln 2 for each
player if x = 0; the total correlation Σ_i H(P_i) − H(P) (S. Watanabe, Information theoretical
analysis of multivariate correlation, IBM J. Res. Dev. 4 (1960) 66) is 0 if β = 0, for then players
are independent.

The game and a first quartile as its threshold are those of D. Bouchaffra et al., arXiv 2410.12264.
That the quartile is of positive φ alone, α = β = 1, the unit of x and the rule for a neighbourhood
are choices of this package: in its own unit a map, and so all of these figures, does not change if
its neuron is rescaled.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from jaynes_callbacks.counts.counting import coprime_stride
from jaynes_callbacks.statistics.energy import STRONG, threshold

__all__ = [
    "SIZES",
    "Gibbs",
    "covered",
    "gibbs",
    "neighbourhoods",
    "place_contributions",
    "shuffled",
    "strong",
    "unit_maps",
    "winning",
]

#: Places along a side of a neighbourhood.
SIZES = (2, 3)
#: Differences from the threshold below so much of it are rounding errors.
_ROUNDING = 1e-6


class Gibbs(NamedTuple):
    """The Gibbs law of the states of each neighbourhood.

    Attributes:
        grand: energy with all neurons on.
        energy: mean over the states.
        entropy: in nats for each player.
        total_correlation: Σ_i H(P_i) − H(P) in nats for each player.
        all_on: probability of the state with all neurons on.
    """

    grand: Float64[Tensor, " k"]
    energy: Float64[Tensor, " k"]
    entropy: Float64[Tensor, " k"]
    total_correlation: Float64[Tensor, " k"]
    all_on: Float64[Tensor, " k"]


def unit_maps(maps: Float64[Tensor, "maps height width"]) -> Float64[Tensor, "maps height width"]:
    """Divide each map by its root mean square; a map of zeros stays what it is."""
    rms = maps.square().mean((1, 2), keepdim=True).sqrt()
    return torch.where(rms > 0, maps / rms, 0.0)


def place_contributions(
    x: Float64[Tensor, "maps height width"], alpha: float = 1.0, beta: float = 1.0
) -> Float64[Tensor, "maps height width"]:
    """Return φ of each place: its Shapley and Banzhaf value in the game of its map.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[1.0, 2.0], [0.0, 3.0]]], dtype=torch.float64)
        >>> place_contributions(x).tolist()  # they add up to 6 + 2 + 6
        [[[2.0, 6.0], [0.0, 6.0]]]
    """
    framed = pad(x, (1, 1, 1, 1))
    around = framed[:, :-2, 1:-1] + framed[:, 2:, 1:-1] + framed[:, 1:-1, :-2] + framed[:, 1:-1, 2:]
    return alpha * x + beta / 2 * x * around


def strong(
    phi: Float64[Tensor, "maps height width"],
) -> Bool[Tensor, "maps height width"]:
    """Tell which places are strong: from the first quartile of the map's positive φ on.

    Example:
        >>> import torch
        >>> strong(torch.tensor([[[-5.0, 0.0, 1.0, 2.0, 3.0]]], dtype=torch.float64)).tolist()
        [[[False, False, False, True, True]]]
    """
    flat = phi.flatten(1)
    quartile = threshold(flat, flat > 0, STRONG)[..., None]
    return (phi > 0) & (phi >= (1 - _ROUNDING) * quartile)


def winning(
    is_strong: Bool[Tensor, "maps height width"], size: int
) -> Bool[Tensor, "maps rows columns"]:
    """Tell which neighbourhoods win, by their first place; none where a map is smaller."""
    if min(is_strong.shape[1:]) < size:
        return is_strong[:, :0, :0]
    weak = (~is_strong).to(torch.float32)[:, None]
    return max_pool2d(weak, size, 1)[:, 0] == 0


def shuffled(is_strong: Bool[Tensor, "maps height width"], size: int) -> Float64[Tensor, " maps"]:
    """Return the share of neighbourhoods that wins, if the same strong places stood at random."""
    number = is_strong.sum((1, 2), dtype=torch.float64)[:, None]
    total = is_strong.shape[1] * is_strong.shape[2]
    taken = torch.arange(size * size, dtype=torch.float64, device=is_strong.device)
    return ((number - taken).clamp(min=0) / (total - taken).clamp(min=1)).prod(-1)


def covered(
    wins: Bool[Tensor, "maps rows columns"], size: int, height: int, width: int
) -> Bool[Tensor, "maps {height} {width}"]:
    """Tell which places belong to a neighbourhood that wins."""
    if not wins.numel():
        return wins.new_zeros(len(wins), height, width)
    framed = pad(wins.to(torch.float32)[:, None], (size - 1,) * 4)
    return max_pool2d(framed, size, 1)[:, 0] > 0


def neighbourhoods(
    x: Float64[Tensor, "maps height width"], size: int, most: int
) -> Float64[Tensor, "k players"]:
    """Return some neighbourhoods of all maps, at a constant stride, row by row of places.

    Args:
        x: the maps.
        size: places along a side.
        most: neighbourhoods that are returned.
    """
    if min(x.shape[1:]) < size:
        return x.new_zeros(0, size * size)
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    total = len(x) * rows * columns
    stride = 1 if total <= most else coprime_stride(total, most)
    place = torch.arange(0, total, stride, device=x.device)
    row, column = place // columns % rows, place % columns
    offsets = torch.arange(size, device=x.device)
    found: Tensor = x[
        (place // (rows * columns))[:, None, None],
        row[:, None, None] + offsets[:, None],
        column[:, None, None] + offsets,
    ]
    return found.flatten(1)


def gibbs(
    x: Float64[Tensor, "k players"], size: int, alpha: float = 1.0, beta: float = 1.0
) -> Gibbs:
    """Enumerate the states of neighbourhoods under the Gibbs law of their energies.

    Args:
        x: activations of each neighbourhood's places, row by row.
        size: places along a side.
        alpha: factor of the activations.
        beta: factor of the products of neighbours.
    """
    states, pairs, first, second = _states(size, x.device)
    # Sums of products, and no `@`: a watch takes that for a layer.
    energy = -torch.einsum("sp,kp->ks", states, alpha * x) - torch.einsum(
        "sp,kp->ks", pairs, beta * x[:, first] * x[:, second]
    )
    log_p = torch.log_softmax(-energy, -1)
    p = log_p.exp()
    on = torch.einsum("ks,sp->kp", p, states).clamp(0, 1)
    entropy = -(p * log_p).sum(-1)
    alone = torch.special.entr(on) + torch.special.entr(1 - on)
    players = size * size
    return Gibbs(
        energy[:, -1],
        (p * energy).sum(-1),
        entropy / players,
        (alone.sum(-1) - entropy).clamp(min=0) / players,
        p[:, -1],
    )


@lru_cache(maxsize=16)
def _states(size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return all states, which pairs of neighbours are on in each, and the pairs' places."""
    players = size * size
    # Tensors of inference mode could not be used outside of it.
    with torch.inference_mode(False):
        codes = torch.arange(2**players)[:, None]
        states = (codes >> torch.arange(players)) & 1
        places = torch.arange(players).view(size, size)
        across, down = (places[:, :-1], places[:, 1:]), (places[:-1], places[1:])
        first, second = (
            torch.cat([one.flatten(), other.flatten()])
            for one, other in zip(across, down, strict=True)
        )
        pairs = states[:, first] * states[:, second]
        found = (states.double(), pairs.double(), first, second)
        return tuple(each.to(device) for each in found)
