"""The potential game ends at the predicted lognormal, and its potential only rises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from experiments.potential_game import greatest_gain, play, potential
from jaynes_callbacks.counts.grid import FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.counts.metric import MagnitudeHistogram
from jaynes_callbacks.statistics import LOGNORMAL, equilibrium, fit_family, gap, log_moments
from jaynes_callbacks.statistics.binned import occupied_bins
from jaynes_callbacks.statistics.equilibrium import bin_appeal, log_partition

AGENTS = 1_000_000
MU = torch.tensor([-3.0, -3.0, -2.0, 0.5], dtype=torch.float64)
SIGMA = torch.tensor([0.5, 0.5, 0.8, 1.0], dtype=torch.float64)
ALPHA, BETA = MU / SIGMA**2 - 1, 1 / (2 * SIGMA**2)
SEEN = 2 ** torch.arange(8)


def _starts(agents: int = AGENTS) -> Tensor:
    """Uniform and Gaussian weights, all equal weights, a lognormal of another width."""
    generator = torch.Generator().manual_seed(1)
    histogram = MagnitudeHistogram(4)
    histogram.update(0.1 * torch.rand(agents, generator=generator).clamp(min=1e-9), 0)
    histogram.update(0.05 * torch.randn(agents, generator=generator), 1)
    histogram.update(torch.ones(agents), 2)
    histogram.update((2 * torch.randn(agents, generator=generator) - 3).exp(), 3)
    return histogram.compute()


def _appeal() -> Tensor:
    return bin_appeal(ALPHA, BETA)


def _expected_shares(row: int) -> np.ndarray:
    """Bin masses of the lognormal of Eq. 13, by scipy."""
    cuts = edges()[FIRST_POSITIVE : FIRST_NONFINITE + 1].numpy()
    law = stats.lognorm(SIGMA[row].item(), scale=math.exp(MU[row].item()))
    return np.diff(law.cdf(cuts))


def test_every_start_ends_at_the_predicted_lognormal() -> None:
    """At 1e6 agents: shares within 0.002, μ within 0.001, σ within 0.1 %, gap within 1e-4 nats."""
    end = play(_starts(), _appeal(), rounds=20)
    binned = occupied_bins(end)
    fit = fit_family(LOGNORMAL, binned, log_moments(binned))
    for row in range(4):
        shares = end[row, FIRST_POSITIVE:FIRST_NONFINITE].numpy() / AGENTS
        assert 0.5 * np.abs(shares - _expected_shares(row)).sum() < 0.002
    torch.testing.assert_close(fit.parameters[:, 0], MU, atol=1e-3, rtol=0)
    torch.testing.assert_close(fit.parameters[:, 1], SIGMA, atol=0, rtol=1e-3)
    assert (gap(binned, fit).abs() < 1e-4).all()
    assert (equilibrium(binned, MU, SIGMA).utility_std < 5e-3).all()
    assert (greatest_gain(end, _appeal()) < 1e-3).all()


@pytest.mark.parametrize("eagerness", [1.0, 0.05])
def test_potential_rises_until_there_is_no_more_to_gain(eagerness: float) -> None:
    counts, appeal = _starts(100_000), _appeal()
    generator = torch.Generator().manual_seed(3)
    path = [potential(counts, appeal)]
    for _ in range(15):
        counts = play(counts, appeal, rounds=1, eagerness=eagerness, generator=generator)
        path.append(potential(counts, appeal))
    rises = torch.stack(path).diff(dim=0)
    assert (rises > -1e-12).all()
    assert (rises[0] > 0.01).all()
    assert (path[-1] < log_partition(ALPHA, BETA)).all()


def test_gap_and_utility_spread_vanish_on_the_way() -> None:
    counts, appeal = _starts(), _appeal()
    gaps, spreads = [], []
    generator = torch.Generator().manual_seed(4)
    for _ in range(6):
        theory = equilibrium(occupied_bins(counts), MU, SIGMA)
        gaps.append(log_partition(ALPHA, BETA) - theory.potential)
        spreads.append(theory.utility_std)
        counts = play(counts, appeal, rounds=8, eagerness=0.1, generator=generator)
    assert (torch.stack(gaps).diff(dim=0) < 0).all()
    assert (gaps[-1] < 2e-3).all()
    assert (spreads[0] > 1).sum() >= 3
    assert (spreads[-1] < 0.06).all()


def test_finite_potential_approaches_the_partition_function() -> None:
    """φ of N agents is below ln Z_Δ by what Stirling's formula leaves out, which N dilutes."""
    appeal, greatest = _appeal(), log_partition(ALPHA, BETA)
    short = [
        greatest - potential(play(_starts(agents), appeal, rounds=20), appeal)
        for agents in (10_000, 1_000_000)
    ]
    assert (short[1] > 0).all()
    assert (short[1] < 1e-3).all()
    assert (short[1] < short[0] / 20).all()


@given(
    st.lists(st.integers(0, 1000), min_size=8, max_size=8).filter(lambda bins: sum(bins) > 0),
    st.tuples(st.integers(0, 7), st.integers(0, 7)),
    st.floats(-3, 3),
)
def test_a_move_raises_the_potential_by_what_the_mover_gains(
    bins: list[int], move: tuple[int, int], alpha: float
) -> None:
    first = 2000
    counts = torch.zeros(1, 4096, dtype=torch.int64)
    counts[0, first : first + 8] = torch.tensor(bins)
    leave, enter = max(range(8), key=bins.__getitem__), move[0]
    moved = counts.clone()
    moved[0, first + leave] -= 1
    moved[0, first + enter] += 1
    appeal = bin_appeal(torch.tensor([alpha]).double(), torch.tensor([1.5]).double())
    offers = appeal[0, first - FIRST_POSITIVE :].tolist()
    crowd = moved[0, first + enter].item()
    gain = offers[enter] - math.log(crowd) - offers[leave] + math.log(bins[leave])
    rise = (potential(moved, appeal) - potential(counts, appeal)).item() * sum(bins)
    assert rise == pytest.approx(gain if enter != leave else 0.0, abs=1e-8)


def test_potential_counts_arrangements() -> None:
    """φ against scipy's multinomial coefficient."""
    counts = torch.zeros(1, 4096, dtype=torch.int64)
    counts[0, [2000, 2010, 2020]] = torch.tensor([3, 5, 2])
    appeal = bin_appeal(torch.tensor([0.3]).double(), torch.tensor([0.7]).double())
    ways = special.factorial(10) / (6 * 120 * 2)
    offers = appeal[0, torch.tensor([2000, 2010, 2020]) - FIRST_POSITIVE].numpy()
    expected = (offers @ [3, 5, 2] + np.log(ways)) / 10
    assert potential(counts, appeal).item() == pytest.approx(expected, rel=1e-12)


def test_at_the_end_nobody_gains_by_any_move_in_sight() -> None:
    """Brute force over a game of 300 agents: every occupied bin against every bin it can see."""
    end = play(_starts(300), _appeal(), rounds=100)
    agents = end[:, FIRST_POSITIVE:FIRST_NONFINITE].double()
    for row in range(4):
        offers = _appeal()[row]
        for bin_ in agents[row].nonzero().flatten():
            seen = torch.cat([bin_ - SEEN, bin_ + SEEN])
            seen = seen[(seen >= 0) & (seen < 3800)]
            arriving = offers[seen] - (agents[row, seen] + 1).log()
            assert (arriving <= offers[bin_] - agents[row, bin_].log() + 1e-9).all()


def test_the_greatest_gain_is_the_best_arrival_less_the_worst_place() -> None:
    counts = torch.zeros(1, 4096, dtype=torch.int64)
    counts[0, [1, 2]] = torch.tensor([4, 1])
    appeal = torch.full((1, 4079), -9.0, dtype=torch.float64)
    appeal[0, :3] = torch.tensor([0.0, 1.0, 2.0])
    assert greatest_gain(counts, appeal).item() == pytest.approx(2.0 + math.log(4))


def test_agents_neither_come_nor_go_and_zeros_stay_out() -> None:
    counts = _starts(10_000)
    counts[:, 0], counts[:, 4080] = 7, 5
    end = play(counts, _appeal(), rounds=3)
    assert torch.equal(end.sum(-1), counts.sum(-1))
    assert (end >= 0).all()
    assert torch.equal(end[:, [0, 4080]], counts[:, [0, 4080]])


def test_the_play_is_its_seed_and_leaves_the_global_state_alone() -> None:
    counts, appeal = _starts(10_000), _appeal()
    state = torch.get_rng_state()
    ends = [
        play(counts, appeal, rounds=2, eagerness=0.3, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(play(counts, appeal, rounds=2), play(counts, appeal, rounds=2))


@pytest.mark.parametrize("eagerness", [0.0, 1.5, -1.0])
def test_an_eagerness_that_is_no_probability_is_refused(eagerness: float) -> None:
    with pytest.raises(ValueError, match=f"at most 1, got {eagerness}"):
        play(_starts(10), _appeal(), rounds=1, eagerness=eagerness)
