"""Standard errors that keep clusters whole, against each other and against repeated draws."""

import math

import pytest
import torch

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    fit_family,
    gap,
    gap_standard_error,
    influences,
    jackknife_standard_error,
    log_moments,
    occupied_bins,
    standard_errors_of,
)


def counts_of(*tensors: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64)
    for row, tensor in enumerate(tensors):
        count_(tensor, counts, row)
    return counts


def clustered_standard_error(*tensors: torch.Tensor) -> torch.Tensor:
    found = influences(tensors, counts_of(*tensors))
    return standard_errors_of(found, torch.device("cpu")).squeeze()


def gaps(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    binned = occupied_bins(counts)
    fit = fit_family(LOGNORMAL, binned, log_moments(binned))
    return gap(binned, fit), gap_standard_error(binned, fit)


def bootstrap_standard_error(weights: torch.Tensor, generator: torch.Generator) -> float:
    """Standard deviation of the gap over 400 samples of whole rows, drawn with replacement."""
    rows = counts_of(*weights)
    occupied = rows.any(0).nonzero().squeeze(-1)
    drawn = torch.randint(len(rows), (400, len(rows)), generator=generator)
    times = torch.stack([each.bincount(minlength=len(rows)) for each in drawn])
    counts = torch.zeros(len(drawn), CODES, dtype=torch.int64)
    counts[:, occupied] = (times.double() @ rows[:, occupied].double()).round().long()
    return gaps(counts)[0].std().item()


def layer(
    generator: torch.Generator, spread: float, rows: int = 300, columns: int = 40
) -> torch.Tensor:
    """Gaussian weights whose rows have scales of their own."""
    scales = (spread * torch.randn(rows, 1, generator=generator)).exp()
    return scales * torch.randn(rows, columns, generator=generator)


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_the_clustered_error_is_the_bootstrap_s(spread: float, generator: torch.Generator) -> None:
    weights = layer(generator, spread)
    clustered = clustered_standard_error(weights).item()
    assert clustered == pytest.approx(bootstrap_standard_error(weights, generator), rel=0.15)


def test_the_clustered_error_is_the_spread_over_draws(generator: torch.Generator) -> None:
    draws = [layer(generator, 0.8) for _ in range(200)]
    values, independent = gaps(counts_of(*draws))
    errors = clustered_standard_error(*draws)
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.2)
    assert errors.mean() > 1.2 * independent.mean()


@pytest.mark.parametrize("in_blocks", [True, False])
def test_evenly_spread_rows_stand_for_all(
    in_blocks: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads with scales of their own, in blocks or in turn: all rows, every 5th, every 15th."""
    scales = (0.8 * torch.randn(64, 1, generator=generator)).exp()
    heads = scales.repeat_interleave(64, 0) if in_blocks else scales.repeat(64, 1)
    weights = heads * layer(generator, 0.3, rows=64 * 64, columns=400)
    errors = []
    for enough in (weights.numel(), weights.numel() // 6, 1):
        monkeypatch.setattr("jaynes_callbacks.statistics.influence._ENOUGH_VALUES", enough)
        errors.append(clustered_standard_error(weights).item())
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    assert errors[2] == pytest.approx(errors[0], rel=0.2)
    assert len(set(errors)) == 3


def test_without_dependence_the_errors_agree(generator: torch.Generator) -> None:
    weights = layer(generator, 0.0, rows=2000)
    _, independent = gaps(counts_of(weights))
    assert clustered_standard_error(weights).item() == pytest.approx(independent.item(), rel=0.1)


def test_zeros_and_non_finite_values_take_no_part(generator: torch.Generator) -> None:
    weights = layer(generator, 0.5)
    padding = torch.tensor([0.0, math.nan, math.inf]).expand(len(weights), 3)
    padded = torch.cat([weights, padding], 1)
    torch.testing.assert_close(clustered_standard_error(padded), clustered_standard_error(weights))


def test_the_jackknife_by_groups_of_samples(generator: torch.Generator) -> None:
    weights = layer(generator, 0.8, rows=600)
    groups = torch.stack([counts_of(part) for part in weights.chunk(30)])
    clustered = clustered_standard_error(weights).item()
    assert jackknife_standard_error(groups).item() == pytest.approx(clustered, rel=0.4)


def test_the_jackknife_of_unlike_groups(generator: torch.Generator) -> None:
    weights = layer(generator, 0.8, rows=600)
    sizes = [10, 35, 20, 15, 40] * 5
    groups = torch.stack([counts_of(part) for part in weights.split(sizes)])
    by_hand = leave_out_by_hand(groups[:, 0])
    assert jackknife_standard_error(groups).item() == pytest.approx(by_hand, rel=1e-9)
    clustered = clustered_standard_error(weights).item()
    assert by_hand == pytest.approx(clustered, rel=0.4)
    padded = torch.cat([groups, torch.zeros_like(groups[:3])])
    assert jackknife_standard_error(padded).item() == pytest.approx(by_hand, rel=1e-9)


def leave_out_by_hand(groups: torch.Tensor) -> float:
    """Pseudo-values one after the other, in plain numbers."""
    whole, n = gap_of(groups.sum(0)), int(groups.sum())
    shares = [n / int(group.sum()) for group in groups]
    pseudo = [
        h * whole - (h - 1) * gap_of(groups.sum(0) - group)
        for h, group in zip(shares, groups, strict=True)
    ]
    mean = sum(pseudo) / len(pseudo)
    terms = [(p - mean) ** 2 / (h - 1) for p, h in zip(pseudo, shares, strict=True)]
    return math.sqrt(sum(terms) / len(terms))


def gap_of(counts: torch.Tensor) -> float:
    """Gap of bins merged for few values, as of the whole."""
    binned = occupied_bins(counts[None])
    merged = binned.merged(torch.tensor([True]))
    return gap(merged, fit_family(LOGNORMAL, merged, log_moments(binned))).item()


def test_of_one_group_alone_there_is_no_jackknife(generator: torch.Generator) -> None:
    alone = counts_of(layer(generator, 0.8, rows=60))
    assert jackknife_standard_error(torch.stack([alone, 0 * alone])).isnan().all()


@pytest.mark.parametrize(
    "weights",
    [
        torch.zeros(40, 5),
        torch.full((30, 3), math.nan),
        torch.ones(40, 4),
        torch.rand(9, 900),
        torch.rand(900),
        torch.zeros(0, 4),
        torch.zeros(40, 0),
    ],
    ids=["zeros", "nan", "one bin", "few rows", "no rows", "none of them", "empty rows"],
)
def test_what_has_no_error_has_nan(weights: torch.Tensor) -> None:
    assert clustered_standard_error(weights).isnan()


def test_one_group_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 groups of samples, got 1"):
        jackknife_standard_error(torch.zeros(1, 2, CODES, dtype=torch.int64))
