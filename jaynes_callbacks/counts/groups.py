"""Counting a matrix by groups of its rows and by groups of its columns, in few bins.

`statistics.influence` asks what leaving out a group does to a tensor's law; for that it needs the
law of each group.  As in `counts.kernels` numba does the pass over large blocks on the CPU where it
is installed, with the same counts to the bit.
"""

from functools import lru_cache
from importlib import import_module
from types import ModuleType

import torch
from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import codes

__all__ = ["BLOCK", "GroupCounts"]

#: Values that torch looks up at once: their temporaries stay in a CPU's cache.
BLOCK = 1 << 17
_WORTH_COMPILING = 1 << 16


class GroupCounts:
    """Counts of the groups of rows and of columns of a matrix, to which blocks of it are added.

    Args:
        bins: number of each code's bin; codes that take no part have the number beyond the last.
        number: of bins.
        by_row: group of each row.
        by_column: group of each column; None if columns are not grouped.
        groups: number of groups of rows, and of columns.
    """

    def __init__(
        self,
        bins: Int64[Tensor, " 4096"],
        number: int,
        by_row: Int64[Tensor, " rows"],
        by_column: Int64[Tensor, " columns"] | None,
        groups: tuple[int, int],
    ) -> None:
        self._bins, self._number = bins, number
        self._by_row, self._by_column = by_row, by_column
        of_rows, of_columns = groups
        self._rows = bins.new_zeros(of_rows, number + 1)
        self._columns = bins.new_zeros(of_columns if by_column is not None else 0, number + 1)

    @property
    def rows(self) -> Int64[Tensor, "groups bins"]:
        """Counts of each group of rows."""
        return self._rows[:, : self._number]

    @property
    def columns(self) -> Int64[Tensor, "groups bins"]:
        """Counts of each group of columns; no groups where columns are not grouped."""
        return self._columns[:, : self._number]

    def bins_of(self, values: Tensor) -> Int64[Tensor, "*shape"]:
        """Return the bin of each value."""
        return self._bins.index_select(0, codes(values).flatten()).view(values.shape)

    def add_(self, block: Tensor, top: int, left: int) -> None:
        """Add a block of the matrix, in place.

        Args:
            block: real floating-point values ``[rows, columns]``.
            top: number of its first row.
            left: number of its first column.
        """
        height, width = block.shape
        by_row, by_column = self._by_row[top : top + height], None
        if self._by_column is not None:
            by_column = self._by_column[left : left + width]
        if (loops := _loops_for(block)) is not None:
            loops.add_groups_(block, self._bins, by_row, by_column, self._rows, self._columns)
            return
        bins = self.bins_of(block)
        ones = torch.ones_like(bins).flatten()
        place = bins + by_row[:, None] * (self._number + 1)
        self._rows.view(-1).scatter_add_(0, place.flatten(), ones)
        if by_column is not None:
            place = bins + by_column * (self._number + 1)
            self._columns.view(-1).scatter_add_(0, place.flatten(), ones)


def _loops_for(values: Tensor) -> ModuleType | None:
    """Return the compiled loops if these values are worth them."""
    large = values.is_cpu and values.numel() >= _WORTH_COMPILING
    return _compiled_loops() if large else None


@lru_cache(maxsize=1)
def _compiled_loops() -> ModuleType | None:
    """Import the compiled loops; None where numba is missing or cannot be imported."""
    try:
        return import_module("jaynes_callbacks.counts.numba_groups")
    except ImportError:
        return None
