"""A histogram of ln |w| from a record's counts, coarse enough for a viewer; no tensor is read."""

from typing import Any, NamedTuple

import numpy as np

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.instruments.record import Record

__all__ = ["LogHistogram", "log_histogram"]

#: This share of the values, the smallest, is put into the first bin: a few tiny weights would
#: otherwise stretch the axis over decades in which nothing can be seen.
_LOWEST_SHARE = 1e-3

_EDGES = log_edges().numpy()

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


class LogHistogram(NamedTuple):
    """Counts between edges.

    Attributes:
        edges: ``[bins + 1]``, in ln of the tensor's own unit.
        counts: ``[bins]``, values between an edge and the next.
    """

    edges: Floats
    counts: Integers


def log_histogram(record: Record, most_bins: int) -> LogHistogram | None:
    """The record's finite, non-zero values over ln |w|, in bins of equal width.

    The grid's own bins differ in width by up to two, which viewers that draw counts would show as
    steps.  So each bin's count is spread evenly over its width; none is wider than 0.061.

    Args:
        record: with its counts.
        most_bins: at most so many bins, from 1 on.

    Returns:
        Bins from the first occupied place to the last; None where nothing was counted.

    Example:
        >>> import numpy as np
        >>> from jaynes_callbacks.instruments.record import Record
        >>> ones = Record(n=7, codes=np.array([2032]), counts=np.array([7]))
        >>> edges, counts = log_histogram(ones, 64)
        >>> edges.round(3).tolist(), counts.tolist()
        ([0.0, 0.061], [7])
    """
    fits = (record.codes >= FIRST_POSITIVE) & (record.codes < FIRST_NONFINITE)
    codes, counts = record.codes[fits], record.counts[fits]
    if not counts.sum():
        return None
    cumulated = counts.cumsum()
    first = codes[np.searchsorted(cumulated, _LOWEST_SHARE * cumulated[-1], side="right")]
    dense = np.bincount(np.maximum(codes - first, 0), counts)
    grid = _EDGES[first : first + len(dense) + 1]
    edges = np.linspace(grid[0], grid[-1], min(most_bins, len(dense)) + 1)
    below = np.interp(edges, grid, np.concatenate([[0.0], dense.cumsum()]))
    return LogHistogram(edges, np.diff(np.rint(below).astype(np.int64)))
