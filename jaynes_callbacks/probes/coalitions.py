"""Coalitions in activation maps: sums over maps, and a picture of one sample.

Read are activations [N, C, H, W] whose neurons are channels (`probes.neurons`): each of the N·C
maps is a game (`statistics.coalitions`).  A row of the table holds (`coalition_parts`)

- `MAP_SUMS` numbers: of maps, of those that are zero or not finite, and Σ share of strong places
  over the others;
- for each size of neighbourhoods `SIZE_SUMS`: number of maps that have any, Σ share that wins,
  Σ share that would win if strong places stood at random; number of neighbourhoods that are looked
  at in these maps, and of those with any activation, whose states are enumerated; over the latter
  Σ energy with all on, Σ entropy, Σ total correlation, Σ probability of all on;
- the picture of the call that was read last: number of channels, height, width, and the level of
  each place.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import coprime_stride
from jaynes_callbacks.counts.log_powers import float64_device
from jaynes_callbacks.probes.dtensors import is_sharded_along, owned_values
from jaynes_callbacks.probes.neurons import SPREAD, NeuronReading
from jaynes_callbacks.records.stream import IOTA
from jaynes_callbacks.statistics.coalitions import (
    SIZES,
    covered,
    gibbs,
    neighbourhoods,
    place_contributions,
    shuffled,
    strong,
    unit_maps,
    winning,
)

__all__ = [
    "CHANNELS",
    "MAP_SUMS",
    "NO_MAPS",
    "PICTURE",
    "SIDE",
    "SIZE_SUMS",
    "CoalitionParts",
    "MapReading",
    "coalition_parts",
]

#: Numbers kept of maps, and of each size of neighbourhoods.
MAP_SUMS, SIZE_SUMS = 3, 9
#: Most channels and most places along a side of the picture.
CHANNELS, SIDE = 4, 32
#: Numbers of a picture: its channels, height and width, and the places.
PICTURE = 3 + CHANNELS * SIDE * SIDE
#: Most neighbourhoods of a call, and of a size, that are looked at.
_ENUMERATED = 1024

NO_MAPS = "not maps [N, C, H, W] whose neurons are channels"


class CoalitionParts(NamedTuple):
    """Parts of the rows of a table.

    Attributes:
        maps: sums over maps.
        sizes: sums of each size of neighbourhoods.
        picture: of the sample that was read last.
    """

    maps: Tensor
    sizes: Tensor
    picture: Tensor


def coalition_parts(table: Tensor) -> CoalitionParts:
    """Split the rows of a table into their parts, without a copy."""
    maps, sizes, picture = table.split([MAP_SUMS, len(SIZES) * SIZE_SUMS, PICTURE], -1)
    return CoalitionParts(maps, sizes.unflatten(-1, (len(SIZES), SIZE_SUMS)), picture)


class MapReading(NeuronReading):
    """Sums what the games of maps are like.

    Args:
        alpha: factor of the activations in the energy.
        beta: factor of the products of neighbours.
        left_out: is told the row of a stream that has no maps, and why.
    """

    kind, compiled = IOTA, False
    shape: tuple[int, ...] = (MAP_SUMS + len(SIZES) * SIZE_SUMS + PICTURE,)

    def __init__(self, alpha: float, beta: float, left_out: Callable[[int, str], None]) -> None:
        super().__init__()
        self._alpha, self._beta, self._left_out = alpha, beta, left_out

    def variable(self, iota: str) -> str:
        """Return ``y``: players are worth their outputs."""
        return "y"

    def needs_preactivation(self, iota: str) -> bool:
        """Return False: the output is enough."""
        return False

    def add_(self, kept: None, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Add the sums of a call, and draw its first sample anew.

        Raises:
            ValueError: if ranks hold parts of the maps (a DTensor).
        """
        if y.dim() != 4 or self._dimension(y) != 1:
            self._left_out(row, NO_MAPS)
            return
        if any(is_sharded_along(y, each) for each in range(1, 4)):
            raise ValueError(SPREAD)
        y = owned_values(y)
        if not y.numel():
            return
        parts = coalition_parts(table[row])
        # Autocast leaves double precision alone.
        device = float64_device(y.device)
        maps = _some(y.flatten(0, 1), limit).to(device).to(torch.float64)
        self._add_maps(maps, parts)
        sample = y[0, :: -(-y.shape[1] // CHANNELS)].to(device).to(torch.float64)
        picture = self._picture(sample)
        parts.picture.zero_()
        parts.picture[: len(picture)].copy_(picture)

    def _add_maps(self, maps: Tensor, parts: CoalitionParts) -> None:
        """Add the sums of some maps; those of zeros and those that are not finite are counted."""
        power = maps.square().sum((1, 2))
        plays = power.isfinite() & (power > 0)
        number = plays.sum()
        x = unit_maps(torch.where(plays[:, None, None], maps, 0.0))
        is_strong = strong(place_contributions(x, self._alpha, self._beta))
        share = is_strong.to(torch.float64).mean((1, 2))
        alive = plays[:, None, None].to(torch.float64).expand_as(x)
        found = _stack(number + (~plays).sum(), (~plays).sum(), share.sum())
        parts.maps.add_(found.to(parts.maps.device))
        for sums, size in zip(parts.sizes, SIZES, strict=True):
            wins = winning(is_strong, size)
            if not wins.shape[1]:
                continue
            chosen = neighbourhoods(x, size, _ENUMERATED)
            # Neighbourhoods without any activation play no game: they are counted, and left out.
            playing = (chosen != 0).any(-1)
            of_alive = neighbourhoods(alive, size, _ENUMERATED)[:, 0]
            law = gibbs(chosen, size, self._alpha, self._beta)
            figures = (law.grand, law.entropy, law.total_correlation, law.all_on)
            found = _stack(
                number,
                wins.to(torch.float64).mean((1, 2)).sum(),
                shuffled(is_strong, size).sum(),
                of_alive.sum(),
                playing.sum(),
                *(torch.where(playing, each, 0.0).sum() for each in figures),
            )
            sums.add_(found.to(sums.device))

    def _picture(self, sample: Tensor) -> Tensor:
        """Return the levels of some channels of a sample: the middle of large maps.

        Level 0 is a weak place, 1 a strong one, 2 and 3 one in a neighbourhood of 2 × 2 and 3 × 3
        that wins.
        """
        height, width = sample.shape[1:]
        x = unit_maps(torch.where(sample.isfinite(), sample, 0.0))
        is_strong = strong(place_contributions(x, self._alpha, self._beta))
        level = is_strong.to(torch.float64)
        for above, size in enumerate(SIZES, start=2):
            inside = covered(winning(is_strong, size), size, height, width)
            level = torch.where(inside, float(above), level)
        top, left = ((each - min(each, SIDE)) // 2 for each in (height, width))
        level = level[:, top : top + SIDE, left : left + SIDE]
        shape = [level.new_full((1,), float(each)) for each in level.shape]
        return torch.cat([*shape, level.flatten()])


def _some(maps: Tensor, limit: int) -> Tensor:
    """Return maps at a constant stride, with no more values than are asked for, but one map."""
    most = max(1, limit // (maps.shape[1] * maps.shape[2]))
    return maps if len(maps) <= most else maps[:: coprime_stride(len(maps), most)]


def _stack(first: Tensor, *others: Tensor) -> Tensor:
    """Return numbers as one tensor in double precision."""
    return torch.stack([each.to(torch.float64) for each in (first, *others)])
