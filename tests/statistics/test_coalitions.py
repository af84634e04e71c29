"""Games of maps against all coalitions, Gibbs laws against all states, winners against loops."""

from collections.abc import Iterator
from itertools import combinations, product
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.statistics.coalitions import (
    SIZES,
    covered,
    gibbs,
    neighbourhoods,
    place_contributions,
    shuffled,
    strong,
    unit_maps,
    winning,
)
from tests.statistics.test_energy import values_by_enumeration

ALPHA, BETA = 0.7, 1.3


def _neighbours(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield each pair of places next to each other once, by their numbers row by row."""
    for row, column in product(range(height), range(width)):
        place = row * width + column
        if column + 1 < width:
            yield place, place + 1
        if row + 1 < height:
            yield place, place + width


def _energy(x: Tensor, on: frozenset[int], beta: float = BETA) -> float:
    height, width = x.shape
    flat = x.flatten().tolist()
    pairs = [(i, j) for i, j in _neighbours(height, width) if i in on and j in on]
    return -ALPHA * sum(flat[i] for i in on) - beta * sum(flat[i] * flat[j] for i, j in pairs)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (1, 3)])
def test_contributions_are_shapley_and_banzhaf_values(
    shape: tuple[int, int], generator: torch.Generator
) -> None:
    x = torch.randn(shape, generator=generator).double()
    phi = place_contributions(x[None], ALPHA, BETA)[0].flatten()
    players = x.numel()
    for values in values_by_enumeration(players, lambda on: -_energy(x, on)):
        np.testing.assert_allclose(values, phi, atol=1e-14)
    assert phi.sum().item() == pytest.approx(-_energy(x, frozenset(range(players))), rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_gibbs_law_is_that_of_all_states(size: int, generator: torch.Generator) -> None:
    maps = torch.randn(3, size, size, generator=generator).double()
    found = gibbs(maps.flatten(1), size, ALPHA, BETA)
    places = range(size * size)
    states = [frozenset(each) for n in range(len(places) + 1) for each in combinations(places, n)]
    for row, x in enumerate(maps):
        energy = np.array([_energy(x, on) for on in states])
        p = np.exp(-energy) / np.exp(-energy).sum()
        on = np.array([sum(p[k] for k, on in enumerate(states) if i in on) for i in places])
        alone = -(on * np.log(on) + (1 - on) * np.log(1 - on)).sum()
        entropy = -(p * np.log(p)).sum()
        assert found.grand[row].item() == pytest.approx(energy[-1], rel=1e-12)
        assert found.energy[row].item() == pytest.approx((p * energy).sum(), rel=1e-10)
        assert found.entropy[row].item() == pytest.approx(entropy / len(places), rel=1e-10)
        expected = (alone - entropy) / len(places)
        assert found.total_correlation[row].item() == pytest.approx(expected, abs=1e-12)
        assert found.all_on[row].item() == pytest.approx(p[-1], rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_without_coupling_players_are_independent(size: int, generator: torch.Generator) -> None:
    x = torch.randn(5, size * size, generator=generator).double()
    found = gibbs(x, size, ALPHA, 0.0)
    p = torch.sigmoid(ALPHA * x)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean(-1)
    torch.testing.assert_close(found.entropy, entropy, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.all_on, p.prod(-1), rtol=1e-12, atol=0)
    assert found.total_correlation.max() < 1e-14
    assert (gibbs(x, size, ALPHA, BETA).total_correlation > 1e-4).all()
    nothing = gibbs(torch.zeros(1, size * size).double(), size)
    assert nothing.entropy.item() == pytest.approx(log(2), rel=1e-12)
    assert nothing.all_on.item() == pytest.approx(2.0 ** -(size * size), rel=1e-12)


def test_strong_are_those_from_the_first_quartile_on(generator: torch.Generator) -> None:
    phi = torch.randn(20, 5, 7, generator=generator).double() + 0.5
    phi[3] = phi[3].clamp(min=0.3)
    found = strong(phi)
    for own, flags in zip(phi.numpy(), found.numpy(), strict=True):
        quartile = np.quantile(own[own > 0], 0.25)
        assert np.array_equal(flags, own >= quartile - 1e-9)
    # Equal values reach their quartile; where none is positive nobody is strong.
    assert strong(torch.full((1, 4, 4), 0.3).double()).all()
    assert not strong(torch.zeros(1, 4, 4).double()).any()
    assert not strong(-torch.ones(1, 4, 4).double()).any()


@pytest.mark.parametrize("silent", [0.3, 0.9])
def test_of_the_active_places_of_a_relu_three_quarters_are_strong(
    silent: float, generator: torch.Generator
) -> None:
    phi = torch.rand(10, 20, 20, generator=generator).double() + 0.1
    phi *= torch.rand(10, 20, 20, generator=generator) >= silent
    found = strong(phi)
    assert (found.sum() / (phi > 0).sum()).item() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(5, 6), (3, 3), (2, 5)])
def test_winners_and_their_places(
    size: int, shape: tuple[int, int], generator: torch.Generator
) -> None:
    height, width = shape
    flags = torch.rand(30, *shape, generator=generator) < 0.8
    wins = winning(flags, size)
    inside = covered(wins, size, height, width)
    assert inside.shape == flags.shape
    if min(shape) < size:
        assert wins.shape == (30, 0, 0)
        assert not inside.any()
        return
    expected = torch.zeros_like(flags)
    for number, row, column in product(range(30), range(wins.shape[1]), range(wins.shape[2])):
        block = (number, slice(row, row + size), slice(column, column + size))
        assert wins[number, row, column].item() == flags[block].all().item()
        if flags[block].all():
            expected[block] = True
    assert torch.equal(inside, expected)
    assert wins.any()
    assert not wins.all()


@pytest.mark.parametrize("number", [3, 4, 6, 9])
def test_the_share_of_shuffled_places_is_the_mean_of_all_placements(number: int) -> None:
    placements = list(combinations(range(9), number))
    flags = torch.zeros(len(placements), 9, dtype=torch.bool)
    for row, places in enumerate(placements):
        flags[row, list(places)] = True
    flags = flags.view(-1, 3, 3)
    for size in SIZES:
        expected = winning(flags, size).double().mean().item()
        assert shuffled(flags, size)[0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_neighbourhoods_are_all_blocks_or_some(size: int, generator: torch.Generator) -> None:
    x = torch.rand(4, 6, 8, generator=generator).double()
    every = x.unfold(1, size, 1).unfold(2, size, 1).flatten(3).flatten(0, 2)
    assert torch.equal(neighbourhoods(x, size, 10_000), every)
    some = neighbourhoods(x, size, 25)
    assert 10 < len(some) <= 25
    assert {tuple(each) for each in some.tolist()} <= {tuple(each) for each in every.tolist()}
    assert neighbourhoods(x[:, :1], size, 25).shape == (0, size * size)


def test_maps_in_their_own_unit() -> None:
    maps = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[300.0, 400.0]]], dtype=torch.float64)
    found = unit_maps(maps)
    assert found[0].square().mean().item() == pytest.approx(1.0)
    assert not found[1].any()
    torch.testing.assert_close(found[2], found[0], rtol=1e-14, atol=0)
