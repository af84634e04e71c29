"""What must hold for any values: the order of merging, scales, permutations, zeros and nan."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    FAMILIES,
    GENERALIZED_GAMMA,
    distances,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
    totals,
)

#: A sample: its seed, its size and the law's width in ln w.
samples = st.tuples(st.integers(0, 2**31), st.integers(5, 1000), st.floats(0.1, 3.0))
quick = settings(max_examples=8, deadline=None)


def draw(seed: int, size: int, width: float) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=source) * 2 - 1
    return signs * (width * torch.randn(size, generator=source)).exp()


def counts_of(values: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(values, counts, 0)
    return counts


def figures(counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gaps of all families, q and the distances; nan where there is no fit."""
    binned = occupied_bins(counts)
    moments = log_moments(binned)
    fits = {family.name: fit_family(family, binned, moments) for family in FAMILIES}
    found = {name: gap(binned, fit) for name, fit in fits.items()}
    found["q"] = fits[GENERALIZED_GAMMA.name].parameters[:, 2]
    return found | distances(binned, fits["lognormal"])._asdict()


def same(first: torch.Tensor, second: torch.Tensor) -> None:
    expected = figures(second)
    for name, value in figures(first).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True, msg=name)


@quick
@given(samples, st.lists(st.floats(0, 1), max_size=4), st.randoms(use_true_random=False))
def test_parts_in_any_order_give_the_whole(sample, cuts, random) -> None:  # type: ignore[no-untyped-def]
    values = draw(*sample)
    ends = sorted(int(cut * len(values)) for cut in cuts)
    parts = list(values.tensor_split(ends))
    random.shuffle(parts)
    merged = sum((counts_of(part) for part in parts), torch.zeros(1, CODES, dtype=torch.int64))
    assert torch.equal(merged, counts_of(values))
    assert torch.equal(merged, counts_of(torch.cat(parts)))


@quick
@given(samples, st.integers(-40, 40))
def test_a_power_of_two_shifts_codes_and_leaves_gap_and_q(sample, power) -> None:  # type: ignore[no-untyped-def]
    values = draw(*sample)
    counts, scaled = counts_of(values), counts_of(values * 2.0**power)
    assert torch.equal(counts.roll(16 * power, -1), scaled)
    expected = figures(counts)
    for name, value in figures(scaled).items():
        # Edges in ln w are shifted within rounding, which flat optima of few values magnify.
        torch.testing.assert_close(
            value, expected[name], rtol=1e-6, atol=1e-9, equal_nan=True, msg=name
        )


@pytest.mark.parametrize("power", [-30, -1, 7])
@pytest.mark.parametrize("width", [0.3, 1.1])
@pytest.mark.sampled(5)
def test_of_a_layer_s_weights_a_power_of_two_changes_rounding_only(
    width: float, power: int
) -> None:
    """Not to the bit: ln 2 is no binary fraction, so edges in ln w are not shifted exactly."""
    values = draw(3, 100_000, width)
    expected, scaled = figures(counts_of(values)), figures(counts_of(values * 2.0**power))
    for name, value in scaled.items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-10, atol=1e-11, equal_nan=True, msg=name
        )


@quick
@given(samples)
def test_order_and_sign_do_not_matter(sample) -> None:  # type: ignore[no-untyped-def]
    values = draw(*sample)
    same(counts_of(-values.flip(0)), counts_of(values))


@quick
@given(samples, st.integers(0, 500), st.integers(0, 500))
def test_zeros_and_nan_change_their_counts_only(sample, zeros, nans) -> None:  # type: ignore[no-untyped-def]
    values = draw(*sample)
    more = torch.cat([values, torch.zeros(zeros), torch.full((nans,), torch.nan)])
    number = totals(counts_of(more))
    assert [part.item() for part in number] == [len(values), zeros, nans]
    same(counts_of(more), counts_of(values))


@quick
@given(samples, samples)
def test_a_stream_s_figures_do_not_depend_on_its_neighbours(sample, other) -> None:  # type: ignore[no-untyped-def]
    alone, neighbour = counts_of(draw(*sample)), counts_of(draw(*other))
    together = figures(torch.cat([neighbour, alone, neighbour]))
    for name, value in figures(alone).items():
        torch.testing.assert_close(
            together[name][1:2], value, rtol=1e-9, atol=1e-9, equal_nan=True, msg=name
        )
