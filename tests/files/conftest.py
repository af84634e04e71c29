"""A state dict with every kind of tensor, and the comparison of records."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks import Record, Records


@pytest.fixture
def state(generator: torch.Generator) -> dict[str, Tensor]:
    """Weights of several dtypes, and what is no weight."""
    return {
        "net.fc1.weight": torch.randn(300, 400, generator=generator),
        "net.fc1.bias": torch.randn(300, generator=generator),
        "net.conv.weight": torch.randn(32, 16, 3, 3, generator=generator).exp(),
        "net.half.weight": torch.randn(100, 200, generator=generator).half(),
        "net.double.weight": torch.randn(100, 70, generator=generator).double(),
        "net.holes.weight": torch.randn(100, 70, generator=generator).relu(),
        "net.tiny.weight": torch.randn(3, 4, generator=generator),
        "steps": torch.ones(20, 20, dtype=torch.int64),
    }


def _differences(found: Record, expected: Record) -> list[str]:
    theirs = expected.to_dict()
    differing = []
    # A file is one moment: nothing can be compared with a start.
    compared = ("gap_change_se", "gap_closed", "start_step", "verdict_2")
    for name, value in found.replace(run="", step=0, epoch=0).to_dict().items():
        if name in compared:
            continue
        if isinstance(value, np.ndarray):
            same = np.array_equal(value, theirs[name])
        elif isinstance(value, float):
            # Which streams are fitted together moves the last digits.
            same = bool(np.isclose(value, theirs[name], rtol=1e-6, equal_nan=True))
        else:
            same = value == theirs[name]
        differing += [] if same else [name]
    return differing


@pytest.fixture
def assert_same() -> Callable[[Records, Mapping[str, Record]], None]:
    """Counts equal to the bit, figures to what a fit leaves open."""

    def check(found: Records, expected: Mapping[str, Record]) -> None:
        assert {row.name for row in found} == set(expected)
        for row in found:
            assert not _differences(row, expected[row.name]), row.name

    return check
