"""Oracles of the campaign: laws by scipy, and counts drawn from their exact bin masses.

Drawing multinomial counts instead of values makes ten million values as cheap as a thousand, and
nothing of the package but the grid's edges takes part in it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, edges
from tests.oracles import LAWS


def bin_masses(law: Any) -> np.ndarray:
    """Masses of the positive finite bins, each from the smaller tail."""
    cuts = edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1].numpy()
    below, above = law.cdf(cuts), law.sf(cuts)
    return np.clip(np.where(below[1:] < 0.5, np.diff(below), -np.diff(above)), 0.0, None)


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Counts of `repeats` independent samples of `size` values of a law, [repeats, 4096]."""

    def drawn(law: Any, size: int, repeats: int = 1, seed: int = 0) -> Tensor:
        mass = bin_masses(law)
        source = np.random.default_rng(seed)
        counts = torch.zeros(repeats, CODES, dtype=torch.int64)
        sample = source.multinomial(size, mass / mass.sum(), size=repeats)
        counts[:, FIRST_POSITIVE:FIRST_NONFINITE] = torch.from_numpy(sample)
        return counts

    return drawn


@pytest.fixture
def expected() -> Callable[[Any], Tensor]:
    """Counts in exact proportion to a law's bin masses, of 1e15 values: no sampling error."""

    def rounded(law: Any) -> Tensor:
        counts = torch.zeros(1, CODES, dtype=torch.int64)
        share = np.rint(1e15 * bin_masses(law)).astype(np.int64)
        counts[0, FIRST_POSITIVE:FIRST_NONFINITE] = torch.from_numpy(share)
        return counts

    return rounded


@pytest.fixture(scope="session")
def laws() -> dict[str, Callable[..., Any]]:
    """Frozen scipy laws of magnitudes, by this package's parameters."""
    return LAWS
