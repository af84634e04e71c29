"""Each game ends at its predicted law, or in phases of equal utility; its potential never falls."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats
from torch import Tensor

from experiments.games import (
    CROWDS,
    LAWS,
    Crowd,
    flocking,
    law_gap,
    lognormal,
    phases,
    segregation,
    spinodal,
)
from experiments.potential_game import Crowding, greatest_gain, play, potential
from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.counts.metric import MagnitudeHistogram
from jaynes_callbacks.statistics import fit_family, log_moments, occupied_bins
from jaynes_callbacks.statistics.equilibrium import bin_appeal, exponents

#: The laws of Table III by scipy, with the parameters of `LAWS`.
BY_SCIPY = {
    "weights": stats.lognorm(0.5, scale=math.exp(-3.0)),
    "income": stats.lognorm(0.8, scale=math.exp(-2.0)),
    "exponential": stats.expon(scale=0.05),
    "boltzmann": stats.gamma(1.5, scale=0.05),
    "weibull": stats.weibull_min(2.5, scale=0.08),
}
AGENTS = 1_000_000


@cache
def uniform_start(agents: int = AGENTS) -> Tensor:
    histogram = MagnitudeHistogram()
    histogram.update(0.1 * torch.rand(agents, generator=torch.Generator().manual_seed(1)))
    return histogram.compute()


def test_every_law_is_held_against_scipy() -> None:
    assert set(LAWS) == set(BY_SCIPY)


@pytest.mark.parametrize("name", sorted(LAWS))
def test_a_game_ends_at_its_law(name: str) -> None:
    """At 1e6 agents: 5e-5 nats from the law, shares within 0.002, parameters within 0.2 %."""
    law = LAWS[name]
    end = play(uniform_start(), law.appeal(), rounds=25)
    shares = end[0, FIRST_POSITIVE:FIRST_NONFINITE].numpy() / AGENTS
    cuts = edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1].numpy()
    predicted = np.diff(BY_SCIPY[name].cdf(cuts))
    occupied = shares > 0
    by_scipy = float(np.sum(special.rel_entr(shares[occupied], predicted[occupied])))
    assert by_scipy < 5e-5
    assert law_gap(end, law).item() == pytest.approx(by_scipy, abs=1e-6)
    assert 0.5 * np.abs(shares - predicted).sum() < 0.002
    binned = occupied_bins(end)
    (estimates,) = fit_family(law.family, binned, log_moments(binned)).parameters
    assert estimates.tolist() == pytest.approx(law.parameters, rel=2e-3)
    assert greatest_gain(end, law.appeal()).item() < 1e-3
    assert law_gap(uniform_start(), law).item() > 0.2


@pytest.mark.parametrize("name", sorted(LAWS))
@pytest.mark.sampled(3)
def test_the_potential_of_a_law_never_falls(name: str) -> None:
    appeal = LAWS[name].appeal()
    counts, generator = uniform_start(50_000), torch.Generator().manual_seed(2)
    path = [potential(counts, appeal)]
    for _ in range(12):
        counts = play(counts, appeal, rounds=1, eagerness=0.2, generator=generator)
        path.append(potential(counts, appeal))
    assert (torch.stack(path).diff(dim=0) > -1e-12).all()
    assert path[-1] > path[0] + 0.1


def test_the_appeal_of_weights_is_that_of_the_theory() -> None:
    mu, sigma = torch.tensor([-3.0]).double(), torch.tensor([0.5]).double()
    torch.testing.assert_close(LAWS["weights"].appeal(), bin_appeal(*exponents(mu, sigma)))


def test_agents_of_another_law_are_not_at_this_one() -> None:
    end = play(uniform_start(), LAWS["weibull"].appeal(), rounds=25)
    assert law_gap(end, lognormal(-2.8, 0.5)).item() > 0.05


# Company --------------------------------------------------------------------------------------


def _crowd_of(crowding: Crowding, mean: float, *, most: int = 400) -> Crowd:
    return Crowd("agents; bin", crowding, most, mean)


def _end_of(crowd: Crowd, rounds: int = 25) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return crowd.play(crowd.start(generator), rounds=rounds, generator=generator)


def _occupied(counts: Tensor) -> Tensor:
    return counts[0, FIRST_POSITIVE:FIRST_NONFINITE].double()


@pytest.mark.parametrize("name", sorted(CROWDS))
def test_nobody_gains_at_the_end_of_a_crowds_game(name: str) -> None:
    """Within 2e-4 nats, of utilities that one agent more or less in a bin makes differ by more."""
    crowd = CROWDS[name]
    end = _end_of(crowd)
    assert greatest_gain(end, crowd.appeal(), crowd.crowding).item() < 2e-4
    agents = _occupied(end)
    utility = crowd.crowding(agents[agents > 0])
    numbers = torch.arange(1, crowd.most + 1).double()
    found = phases(end, crowd)
    grain = [
        (crowd.crowding(numbers)[round(n)] - crowd.crowding(numbers)[round(n) - 1]).abs().item()
        for n in (found.sparse, found.dense)
        if n > 0 and math.isfinite(n)
    ]
    assert (utility.max() - utility.min()).item() <= sum(grain)
    limits = spinodal(crowd)
    if limits is not None:
        assert ((agents <= limits[0]) | (agents >= limits[1])).all()


@pytest.mark.parametrize("name", sorted(CROWDS))
def test_the_potential_of_a_crowd_never_falls_and_is_exact(name: str) -> None:
    crowd = CROWDS[name]
    generator = torch.Generator().manual_seed(3)
    counts, appeal = crowd.start(generator), crowd.appeal()
    path = [potential(counts, appeal, crowd.crowding)]
    for _ in range(8):
        counts = crowd.play(counts, rounds=1, generator=generator)
        path.append(potential(counts, appeal, crowd.crowding))
    assert (torch.stack(path).diff(dim=0) > -1e-12).all()
    assert counts.sum() == crowd.start(torch.Generator().manual_seed(3)).sum()


def test_households_segregate_into_two_phases_of_equal_utility() -> None:
    """The densities, by brentq from equal utility and the share of dense bins, within 2 agents."""
    end = _end_of(CROWDS["segregation"])
    found = phases(end, CROWDS["segregation"])
    mean = _occupied(end).mean().item() / 400

    def utility(density: float) -> float:
        return 5 * density + math.log1p(1 / 400 - density) - math.log(density)

    def excess(sparse: float) -> float:
        dense = (mean - (1 - found.dense_share) * sparse) / found.dense_share
        return utility(sparse) - utility(dense)

    sparse = float(optimize.brentq(excess, 0.1, 0.25))
    assert found.sparse / 400 == pytest.approx(sparse, abs=2 / 400)
    dense = (mean - (1 - found.dense_share) * sparse) / found.dense_share
    assert found.dense / 400 == pytest.approx(dense, abs=2 / 400)
    assert found.sparse_utility == pytest.approx(found.dense_utility, abs=0.015)


@pytest.mark.parametrize(
    ("attraction", "separates"), [(2.0, False), (3.9, False), (4.1, True), (6.0, True)]
)
@pytest.mark.sampled(3)
def test_two_phases_exist_beyond_an_attraction_of_four(attraction: float, separates: bool) -> None:
    crowd = _crowd_of(segregation(attraction), 200)
    assert (spinodal(crowd) is not None) is separates
    if abs(attraction - 4) > 1:
        assert (phases(_end_of(crowd), crowd).dense_share > 0) is separates


@pytest.mark.parametrize("aversion", [0.0, 1.0])
def test_the_spinodal_is_where_the_derivative_vanishes(aversion: float) -> None:
    limits = spinodal(_crowd_of(segregation(6.0, aversion, places=10_000), 5_000, most=10_000))

    def slope(density: float) -> float:
        return 6 - 2 * aversion * density - 1 / (density * (1 - density))

    assert limits is not None
    top = 0.45
    assert limits[0] / 1e4 == pytest.approx(optimize.brentq(slope, 1e-3, top), abs=2e-4)
    assert limits[1] / 1e4 == pytest.approx(optimize.brentq(slope, top, 1 - 1e-3), abs=2e-4)


@pytest.mark.parametrize("alignment", [0.0, 0.5, 1.0])
@pytest.mark.sampled(2)
def test_flocks_are_past_the_birds_spinodal(alignment: float) -> None:
    """The roots of 2βn² − (α + γl)n + 1; the larger is the least flock, and grows with l."""
    crowd = _crowd_of(flocking(alignment), 30)
    pull = 0.5 + 0.25 * alignment
    least = (pull + math.sqrt(pull**2 - 0.04)) / 0.02
    limits = spinodal(crowd)
    assert limits is not None
    assert limits[1] == pytest.approx(least, abs=1)
    found = phases(_end_of(crowd), crowd)
    assert found.sparse == 0
    assert least < found.dense
    alone = crowd.crowding(torch.ones(1, dtype=torch.float64)).item()
    assert found.dense_utility > alone


def test_birds_that_gain_too_little_do_not_flock() -> None:
    """(α + γl)² < 8β."""
    crowd = _crowd_of(flocking(0.0, alpha=0.19), 30)
    assert spinodal(crowd) is None
    found = phases(_end_of(crowd), crowd)
    assert found.dense_share == 0
    assert found.sparse == pytest.approx(30, abs=0.2)


def test_the_start_decides_between_equilibria() -> None:
    """Between binodal and spinodal nobody gains by moving from even bins, nor from phases."""
    crowd = _crowd_of(segregation(5.0), 80)
    even = crowd.counts(torch.full((1, 4079), 80))
    apart = torch.full((1, 4079), 40)
    apart[:, :627] = 300
    ends = []
    for start in (even, crowd.counts(apart)):
        generator = torch.Generator().manual_seed(4)
        ends.append(crowd.play(start, rounds=25, generator=generator))
        assert greatest_gain(ends[-1], crowd.appeal(), crowd.crowding).item() < 2e-4
    assert phases(ends[0], crowd).dense_share == 0
    assert phases(ends[1], crowd).dense_share > 0.05
    values = [potential(end, crowd.appeal(), crowd.crowding).item() for end in ends]
    assert values[1] > values[0] + 1e-4


def test_competition_written_as_company_is_the_same_game() -> None:
    appeal, start = LAWS["weibull"].appeal(), uniform_start(5_000)
    ends = [play(start, appeal, rounds=60, crowding=c) for c in (None, lambda n: -n.log())]
    for end in ends:
        assert law_gap(end, LAWS["weibull"]).item() < 5e-3
    first, second = (
        potential(end, appeal, c).item()
        for end, c in zip(ends, (None, lambda n: -n.log()), strict=True)
    )
    assert first == pytest.approx(second, abs=1e-4)
    assert potential(ends[0], appeal).item() == pytest.approx(
        potential(ends[0], appeal, lambda n: -n.log()).item(), abs=1e-9
    )
    assert torch.equal(
        greatest_gain(ends[0], appeal), greatest_gain(ends[0], appeal, lambda n: -n.log())
    )


@given(
    st.lists(st.integers(0, 30), min_size=6, max_size=6).filter(lambda bins: sum(bins) > 0),
    st.integers(0, 5),
    st.sampled_from([segregation(5.0, 0.5, places=40), flocking(0.7)]),
)
def test_a_move_raises_the_exact_potential_by_what_the_mover_gains(
    bins: Sequence[int], enter: int, crowding: Crowding
) -> None:
    crowd = _crowd_of(crowding, 10)
    before = torch.zeros(1, 4079, dtype=torch.int64)
    before[0, 2000:2006] = torch.tensor(bins)
    leave = max(range(6), key=bins.__getitem__)
    after = before.clone()
    after[0, 2000 + leave] -= 1
    after[0, 2000 + enter] += 1

    def utility(number: int) -> float:
        return crowding(torch.tensor([float(number)], dtype=torch.float64)).item()

    gain = 0.0 if enter == leave else utility(bins[enter] + 1) - utility(bins[leave])
    rise = potential(crowd.counts(after), crowd.appeal(), crowding) - potential(
        crowd.counts(before), crowd.appeal(), crowding
    )
    assert rise.item() * sum(bins) == pytest.approx(gain, abs=1e-8)


def test_the_potential_of_segregation_counts_vacancies() -> None:
    """Φ without interaction is ln N! + Σ ln C(M, n): scipy's binomial coefficients."""
    crowding = segregation(0.0, places=10)
    crowd = _crowd_of(crowding, 5, most=10)
    agents = torch.zeros(1, 4079, dtype=torch.int64)
    agents[0, :3] = torch.tensor([3, 10, 1])
    ways = special.binom(10, [3, 10, 1]).prod() * special.factorial(14)
    found = potential(crowd.counts(agents), crowd.appeal(), crowding).item()
    assert found == pytest.approx(math.log(ways) / 14, rel=1e-12)


def test_no_bin_holds_more_agents_than_places() -> None:
    crowd = _crowd_of(segregation(30.0, places=50), 25, most=50)
    assert _occupied(_end_of(crowd)).max() <= 50
