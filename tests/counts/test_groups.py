"""Counts by groups of rows and columns: against numpy, compiled and not."""

import numpy as np
import pytest
import torch

from jaynes_callbacks.counts import groups as module
from jaynes_callbacks.counts.grid import codes
from jaynes_callbacks.counts.groups import GroupCounts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("has_columns", [True, False])
def test_each_value_counts_in_its_row_and_its_column(
    dtype: torch.dtype,
    compiled: bool,
    has_columns: bool,
    monkeypatch: pytest.MonkeyPatch,
    generator: torch.Generator,
) -> None:
    if compiled:
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(module, "_compiled_loops", lambda: None)
    # Every second row: a view whose rows are apart.
    values = torch.randn(420, 330, generator=generator).to(dtype)[::2]
    values[::7, ::5] = 0
    number = 40
    bins = torch.randint(0, number + 1, (4096,), generator=generator)
    by_row = torch.randint(0, 6, (210,), generator=generator)
    by_column = torch.randint(0, 9, (330,), generator=generator)
    found = GroupCounts(bins, number, by_row, by_column if has_columns else None, (6, 9))
    # In blocks, of which the larger ones are worth compiling.
    for left, right in ((0, 5), (5, 330)):
        found.add_(values[:, left:right], 0, left)
    own = bins[codes(values)].numpy()
    assert np.array_equal(found.bins_of(values).numpy(), own)
    for table, group in ((found.rows, by_row[:, None]), (found.columns, by_column)):
        expected = np.zeros((len(table), number + 1), np.int64)
        if len(table):
            np.add.at(expected, (np.broadcast_to(group.numpy(), own.shape), own), 1)
        assert np.array_equal(table.numpy(), expected[:, :number])
    assert len(found.columns) == (9 if has_columns else 0)
