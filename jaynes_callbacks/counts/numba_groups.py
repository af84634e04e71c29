"""The pass of `jaynes_callbacks.counts.groups` compiled by numba (extra ``fast``)."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks.counts.numba_kernels import compiled

__all__ = ["add_groups_"]


def add_groups_(
    block: Tensor,
    bins: Int64[Tensor, " 4096"],
    by_row: Int64[Tensor, " rows"],
    by_column: Int64[Tensor, " columns"] | None,
    rows: Int64[Tensor, "row_groups bins"],
    columns: Int64[Tensor, "column_groups bins"],
) -> None:
    """Count each value of a block in the row of its row's group and in that of its column's."""
    bits = block.to(torch.float32).view(torch.int32).numpy().view(np.uint32)
    bin_of = bins.to(torch.int16).numpy()
    if by_column is None:
        _add_rows(bits, bin_of, by_row.numpy(), rows.numpy())
    else:
        _add_both(bits, bin_of, by_row.numpy(), by_column.numpy(), rows.numpy(), columns.numpy())


@compiled
def _add_rows(bits, bin_of, by_row, rows):  # type: ignore[no-untyped-def]
    height, width = bits.shape
    for row in range(height):
        own = rows[by_row[row]]
        for i in range(width):
            own[bin_of[(bits[row, i] >> np.uint32(19)) & np.uint32(0xFFF)]] += 1


@compiled
def _add_both(bits, bin_of, by_row, by_column, rows, columns):  # type: ignore[no-untyped-def]
    height, width = bits.shape
    for row in range(height):
        own = rows[by_row[row]]
        for i in range(width):
            place = bin_of[(bits[row, i] >> np.uint32(19)) & np.uint32(0xFFF)]
            own[place] += 1
            columns[by_column[i], place] += 1
