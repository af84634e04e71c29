"""What few mantissa bits and pruning do to the record: measured, and stated here.

The grid keeps 4 mantissa bits.  bfloat16 keeps 7, eight values to each bin; float8 e4m3 keeps 3,
so that every second bin is empty, e5m2 keeps 2, so that three of four are.  Empty bins cannot be
told from a law with holes: every family's gap rises by the same amount, the mean of ln(width of a
rounding cell / width of the bin), 0.68 nats for e4m3 and 1.33 for e5m2.  Differences of gaps, the
best family, σ and q stay; the gap's bands do not hold.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    FAMILIES,
    GENERALIZED_GAMMA,
    LOGNORMAL,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
    totals,
)

DRAWS = 1_000_000
#: Families that are no limit or bound of another on these laws.
FITTED = [family for family in FAMILIES if family.name != "uniform"]


def _weights(law: str) -> Tensor:
    source = torch.Generator().manual_seed(31)
    normal = torch.randn(DRAWS, generator=source)
    return (0.5 * normal - 3).exp() if law == "lognormal" else 0.05 * normal


def _counts(*tensors: Tensor) -> Tensor:
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64)
    for row, values in enumerate(tensors):
        count_(values, counts, row)
    return counts


def _gaps(counts: Tensor) -> Tensor:
    binned = occupied_bins(counts)
    moments = log_moments(binned)
    return torch.stack([gap(binned, fit_family(family, binned, moments)) for family in FITTED])


def _parameters(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The lognormal's μ and σ, and q, by rows."""
    binned = occupied_bins(counts)
    moments = log_moments(binned)
    lognormal = fit_family(LOGNORMAL, binned, moments).parameters
    return lognormal, fit_family(GENERALIZED_GAMMA, binned, moments).parameters[:, 2]


def _full_scale(weights: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights as fp8 recipes store them, scaled to the format's range; and unrounded."""
    scaled = weights * (torch.finfo(dtype).max / weights.abs().max())
    return scaled, scaled.to(dtype)


@pytest.mark.parametrize("law", ["lognormal", "gaussian"])
@pytest.mark.sampled(2)
def test_bfloat16_and_float16_do_not_alias(law: str) -> None:
    """Gaps move by less than 3e-4 nats; bfloat16's rounding shifts μ by half a step, 0.0027."""
    weights = _weights(law)
    counts = _counts(weights, weights.bfloat16(), weights.half())
    gaps = _gaps(counts)
    assert (gaps - gaps[:, :1]).abs().max() < 3e-4
    lognormal, q = _parameters(counts)
    assert (lognormal[1, 0] - lognormal[0, 0]).item() == pytest.approx(0.0027, abs=3e-4)
    assert (lognormal[2, 0] - lognormal[0, 0]).abs() < 1e-3
    assert (lognormal[:, 1] - lognormal[0, 1]).abs().max() < 5e-4
    assert (q - q[0]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("dtype", "aliasing"), [(torch.float8_e4m3fn, 0.676), (torch.float8_e5m2, 1.328)]
)
@pytest.mark.parametrize("law", ["lognormal", "gaussian"])
@pytest.mark.sampled(3)
def test_float8_raises_every_gap_alike(law: str, dtype: torch.dtype, aliasing: float) -> None:
    exact, rounded = _full_scale(_weights(law), dtype)
    counts = _counts(exact, rounded)
    gaps = _gaps(counts)
    assert (gaps[:, 1] - gaps[:, 0] - aliasing).abs().max() < 0.01
    # Nested families tie: the best of the exact weights stays within 0.001 of the best.
    assert gaps[gaps[:, 0].argmin(), 1] - gaps[:, 1].min() < 1e-3
    lognormal, q = _parameters(counts)
    assert (lognormal[1, 1] - lognormal[0, 1]).abs() < 3e-3
    assert (q[1] - q[0]).abs() < 0.02


@pytest.mark.parametrize(("dtype", "step"), [(torch.float8_e4m3fn, 2), (torch.float8_e5m2, 4)])
def test_float8_leaves_bins_empty(dtype: torch.dtype, step: int) -> None:
    _, rounded = _full_scale(_weights("lognormal"), dtype)
    occupied = _counts(rounded)[0].nonzero()
    assert len(occupied) > 20
    assert (occupied % step == 0).all()


def _drop(weights: Tensor) -> Tensor:
    kept = torch.rand(DRAWS, generator=torch.Generator().manual_seed(8)) < 0.1
    return weights * kept


def _prune(weights: Tensor) -> Tensor:
    threshold = weights.abs().kthvalue(int(0.9 * DRAWS)).values
    return torch.where(weights.abs() > threshold, weights, 0.0)


@pytest.mark.parametrize("law", ["lognormal", "gaussian"])
def test_pruning_at_random_leaves_the_law(law: str) -> None:
    """Nine weights in ten set to zero: counted, and no part of any fit."""
    weights = _weights(law)
    counts = _counts(weights, _drop(weights))
    assert totals(counts).zeros[1].item() == pytest.approx(0.9 * DRAWS, rel=2e-3)
    assert totals(counts).n[1] + totals(counts).zeros[1] == DRAWS
    gaps = _gaps(counts)
    assert (gaps[:, 1] - gaps[:, 0]).abs().max() < 0.008


@pytest.mark.parametrize("law", ["lognormal", "gaussian"])
@pytest.mark.parametrize("prune", [_prune], ids=["magnitude"])
def test_pruning_by_magnitude_makes_another_law(
    law: str, prune: Callable[[Tensor], Tensor]
) -> None:
    """What is left begins at the threshold: even a lognormal is then 0.2 nats or more from one."""
    counts = _counts(prune(_weights(law)))
    assert totals(counts).zeros.item() == 0.9 * DRAWS
    assert _gaps(counts)[0].item() > 0.15
