"""The density of ln w of every stream, start against end, with two fitted laws: few numbers each.

What `figures.log_density` draws of one stream in full, for a page that draws hundreds on demand.
Fits are batched over streams.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from jaynes_callbacks.counts.grid import FIRST_POSITIVE, log_edges
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.figures.curves import Array, LogHistogram, log_histogram
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.summary import counts_of
from jaynes_callbacks.instruments.verdict import rival_gaps
from jaynes_callbacks.statistics import (
    FAMILIES,
    LOGNORMAL,
    Family,
    fit_family,
    log_moments,
    occupied_bins,
)

__all__ = ["densities"]

#: Bins that are drawn of a stream at the most.
_BINS = 72
#: Streams that are fitted at once, 32 KiB each.
_BATCH = 256

Density = dict[str, Any]


@one_thread()
def densities(
    end: Sequence[Record], start: Mapping[tuple[str, str], Record]
) -> dict[tuple[str, str], Density]:
    """What is drawn of each stream that has values.

    Args:
        end: rows with counts.
        start: earlier rows of the same streams, with counts.

    Returns:
        By the stream's key: ``edges`` in ln w and ``data`` on the bins between them, the laws
        ``lognormal`` and ``rival`` on the same bins with the rival's name in ``family``, and
        ``start_edges`` and ``start`` where there is an earlier row; densities in thousandths.
    """
    found: dict[tuple[str, str], Density] = {}
    for first in range(0, len(end), _BATCH):
        found |= _batch(end[first : first + _BATCH], start)
    return found


def _batch(
    end: Sequence[Record], start: Mapping[tuple[str, str], Record]
) -> dict[tuple[str, str], Density]:
    drawn = [(row, shape) for row in end if (shape := log_histogram(row, _BINS)) is not None]
    if not drawn:
        return {}
    rows, shapes = [row for row, _ in drawn], [shape for _, shape in drawn]
    laws = _laws(rows, shapes)
    rivals = [_best_rival(row) for row in rows]
    found = {}
    for place, (row, shape) in enumerate(drawn):
        density: Density = {"edges": _rounded(shape.edges), "data": _thousandths(shape.density)}
        for name, family in (("lognormal", LOGNORMAL.name), ("rival", rivals[place])):
            if family in laws:
                density[name] = _thousandths(laws[family][place][: len(shape.density)])
        density["family"] = rivals[place]
        before = start.get(row.key)
        earlier = log_histogram(before, _BINS) if before is not None else None
        if before is not None and earlier is not None and before.step != row.step:
            density["start_edges"] = _rounded(earlier.edges)
            density["start"] = _thousandths(earlier.density)
        found[row.key] = density
    return found


def _laws(rows: Sequence[Record], shapes: Sequence[LogHistogram]) -> dict[str, Array]:
    """Density of each law that is drawn of any row, ``[rows, bins]``."""
    binned = occupied_bins(counts_of(rows))
    moments = log_moments(binned)
    wanted = {LOGNORMAL.name, *(_best_rival(row) for row in rows)}
    edges = _padded([shape.codes for shape in shapes])
    return {
        family.name: _density(family, fit_family(family, binned, moments).parameters, edges)
        for family in FAMILIES
        if family.name in wanted
    }


def _density(family: Family, parameters: torch.Tensor, edges: torch.Tensor) -> Array:
    mass = family.log_mass(parameters, edges[:, :-1], edges[:, 1:]).exp()
    density: Array = (mass / edges.diff(dim=1)).nan_to_num(0.0, 0.0, 0.0).numpy()
    return density


def _padded(codes: Sequence[np.ndarray[Any, np.dtype[np.int64]]]) -> torch.Tensor:
    """Edges in ln w of all rows; a short row goes on with bins beyond its own."""
    longest = max(len(row) for row in codes)
    table = np.stack(
        [np.append(row, row[-1] + np.arange(1, longest - len(row) + 1)) for row in codes]
    )
    return log_edges()[torch.from_numpy(table).clamp(FIRST_POSITIVE, len(log_edges()) - 1)]


def _best_rival(record: Record) -> str:
    gaps = rival_gaps(record)
    return min(gaps, key=lambda name: gaps[name], default="")


def _rounded(values: Array) -> list[float]:
    return [round(float(value), 3) for value in values]


def _thousandths(values: Array) -> list[int]:
    return [round(1000 * float(value)) for value in values]
