"""Bins merged where values are few."""

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    FEWEST_WEIGHTS,
    LOGNORMAL,
    Binned,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
)


def binned_of(*values: Tensor) -> Binned:
    counts = torch.zeros(len(values), CODES, dtype=torch.int64)
    for row, each in enumerate(values):
        count_(each, counts, row)
    return occupied_bins(counts)


def groups_by_hand(counts: list[float]) -> list[float]:
    """Neighbours joined from the left until each has five; the rest joins the last."""
    joined, held = [], 0.0
    for each in counts:
        held += each
        if held >= 5:
            joined.append(held)
            held = 0.0
    if joined:
        joined[-1] += held
    return joined or [held]


def test_bins_are_joined_until_each_holds_five(generator: torch.Generator) -> None:
    sizes = (3, 40, 700, 3000)
    binned = binned_of(*(torch.randn(size, generator=generator).exp() for size in sizes))
    merged = binned.merged()
    for row, size in enumerate(sizes):
        used = merged.occupied[row]
        before = binned.occupied[row]
        assert merged.weights[row, used].tolist() == groups_by_hand(
            binned.weights[row, before].tolist()
        )
        assert merged.total[row] == size
        lower, upper = merged.lower[row, used], merged.upper[row, used]
        assert torch.equal(lower[1:], upper[:-1]), "no empty bins between"
        assert lower[0] == binned.lower[row, before][0], "ends stay where the values end"
        assert upper[-1] == binned.upper[row, before][-1]


def test_many_values_keep_their_bins(generator: torch.Generator) -> None:
    below, at = (
        torch.randn(n, generator=generator).exp() for n in (FEWEST_WEIGHTS - 1, FEWEST_WEIGHTS)
    )
    binned = binned_of(below, at)
    merged = binned.merged()
    assert merged.occupied_number[0] < binned.occupied_number[0]
    for ours, theirs in zip(merged, binned, strict=True):
        assert torch.equal(ours[1], theirs[1])


def test_the_gap_hardly_jumps_where_merging_ends(generator: torch.Generator) -> None:
    """Lognormals, Gaussian and uniform weights, of just as many values, merged and not."""
    normal = torch.randn(4, FEWEST_WEIGHTS, generator=generator)
    values = [(s * normal[row]).exp() for row, s in enumerate((0.65, 1.0, 3.0))]
    values += [normal[3], torch.rand(FEWEST_WEIGHTS, generator=generator)]
    binned = binned_of(*values)
    moments = log_moments(binned)
    merged = binned.merged(torch.ones(5, dtype=torch.bool))
    ours, theirs = (gap(each, fit_family(LOGNORMAL, each, moments)) for each in (merged, binned))
    assert (ours - theirs).abs().max().item() < 0.002


@pytest.mark.parametrize("n", [1000, 4000])
def test_few_uniform_weights_stay_far_from_a_lognormal(n: int, generator: torch.Generator) -> None:
    """With bins open at the end it would be 0.32: that values end there would be forgotten."""
    binned = binned_of(*torch.rand(40, n, generator=generator))
    merged = binned.merged()
    assert gap(merged, fit_family(LOGNORMAL, merged, log_moments(binned))).mean().item() == (
        pytest.approx(0.41, abs=0.015)
    )


def test_other_units_shift_the_edges(generator: torch.Generator) -> None:
    binned = binned_of(torch.randn(100, generator=generator))
    shifted = binned.shifted(torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(shifted.lower, binned.lower + 0.5)
    torch.testing.assert_close(shifted.middle, binned.middle + 0.5)
