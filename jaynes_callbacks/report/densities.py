"""The density of ln w of every stream, start against end, with two fitted laws: few numbers each.

`figures.log_density` draws one stream in full; these are for a page that draws hundreds on demand.
The laws are those of the records: their parameters are columns, and nothing is fitted again.  Only
datasets of version 0.1 lack the rivals' parameters.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from jaynes_callbacks.counts.grid import FIRST_POSITIVE, log_edges
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.figures.curves import LogHistogram, fitted_parameters, log_histogram
from jaynes_callbacks.instruments.record import Record, Records, family_label
from jaynes_callbacks.records.schema import Array, Integers
from jaynes_callbacks.report.streams import best_rival
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    LOGNORMAL,
)

__all__ = ["Density", "densities"]

#: Most bins that are drawn of a stream.
_BINS = 72
#: Streams that are handled at once: fitting one that has no parameters takes some 100 KiB.
_BATCH = 256


class Density(TypedDict, total=False):
    """What is drawn of a stream; densities are per unit of ln w, in thousandths.

    Attributes:
        edges: of the bins, in ln w.
        data: density at the end, in each bin.
        lognormal: of the best lognormal.
        rival: of the best rival.
        law: the rival's name for people.
        start_edges: of the bins at the start.
        start: density at the start.
    """

    edges: list[float]
    data: list[int]
    lognormal: list[int]
    rival: list[int]
    law: str
    start_edges: list[float]
    start: list[int]


@one_thread()
def densities(
    end: Records, start: Mapping[tuple[str, str], Record]
) -> dict[tuple[str, str], Density]:
    """Compute what is drawn of each stream that has values.

    Args:
        end: rows with counts.
        start: earlier rows of the same streams, with counts.

    Returns:
        By the stream's key.  A law without parameters is left out, and so is the start of a stream
        that has no earlier row.
    """
    found: dict[tuple[str, str], Density] = {}
    for first in range(0, len(end), _BATCH):
        found |= _batch(end[first : first + _BATCH], start)
    return found


def _batch(end: Records, start: Mapping[tuple[str, str], Record]) -> dict[tuple[str, str], Density]:
    shapes = [(place, log_histogram(row, _BINS)) for place, row in enumerate(end)]
    drawn = {place: shape for place, shape in shapes if shape is not None}
    end = end.take(np.array(list(drawn), dtype=np.int64))
    rows, histograms = list(end), list(drawn.values())
    rivals = [best_rival(row) for row in rows]
    lognormal = _laws(end, histograms, [LOGNORMAL.name] * len(rows))
    rival = _laws(end, histograms, [each.name if each else None for each in rivals])
    found = {}
    for place, (row, shape) in enumerate(zip(rows, histograms, strict=True)):
        density = Density(edges=_rounded(shape.edges), data=_thousandths(shape.density))
        if place in lognormal:
            density["lognormal"] = lognormal[place]
        if place in rival and (nearest := rivals[place]) is not None:
            density["rival"], density["law"] = rival[place], family_label(nearest.name)
        before = start.get(row.key)
        earlier = log_histogram(before, _BINS) if before is not None else None
        if before is not None and earlier is not None and before.step != row.step:
            density["start_edges"] = _rounded(earlier.edges)
            density["start"] = _thousandths(earlier.density)
        found[row.key] = density
    return found


def _laws(
    records: Records, histograms: Sequence[LogHistogram], names: Sequence[str | None]
) -> dict[int, list[int]]:
    """Compute the density of a law of each row's own on the bins that are drawn of it.

    Args:
        records: rows with counts.
        histograms: of the rows.
        names: of each row's family; None for no law.

    Returns:
        By the row's place; rows without parameters are left out.
    """
    found = {}
    for name in dict.fromkeys(name for name in names if name is not None):
        family = FAMILY_BY_NAME[name]
        places = [place for place, each in enumerate(names) if each == name]
        parameters = fitted_parameters(records.take(np.array(places)), family)
        edges = _padded([histograms[place].codes for place in places])
        mass = family.log_mass(parameters, edges[:, :-1], edges[:, 1:]).exp()
        table = (mass / edges.diff(dim=1)).nan_to_num(0.0, 0.0, 0.0).numpy()
        known = parameters.isfinite().all(-1).tolist()
        for place, is_known, density in zip(places, known, table, strict=True):
            if is_known:
                found[place] = _thousandths(density[: len(histograms[place].density)])
    return found


def _padded(codes: Sequence[Integers]) -> Tensor:
    """Return the edges of all rows in ln w; a short row goes on with bins beyond its own."""
    longest = max(len(row) for row in codes)
    table = np.stack(
        [np.append(row, row[-1] + np.arange(1, longest - len(row) + 1)) for row in codes]
    )
    edges = log_edges()
    return edges[torch.from_numpy(table).clamp(FIRST_POSITIVE, len(edges) - 1)]


def _rounded(values: Array) -> list[float]:
    return [round(float(value), 3) for value in values]


def _thousandths(values: Array) -> list[int]:
    return [round(1000 * float(value)) for value in values]
