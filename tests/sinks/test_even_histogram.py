import numpy as np
import pytest

from jaynes_callbacks.counts.grid import FIRST_NONFINITE, log_edges
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.sinks.histograms import even_histogram


def counted(counts: dict[int, int]) -> Record:
    return Record(codes=np.array(list(counts)), counts=np.array(list(counts.values())))


@pytest.mark.parametrize("most_bins", [1, 7, 64, 512])
def test_it_holds_all_values_where_they_are(snapshots: list[Records], most_bins: int) -> None:
    record = snapshots[0][0]
    found = even_histogram(record, most_bins)
    assert found is not None
    assert found.counts.sum() == record.n
    assert len(found.edges) == len(found.counts) + 1 <= most_bins + 1
    assert (np.diff(found.edges) > 0).all()
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    if most_bins >= 64:
        mean = (middles * found.counts).sum() / record.n
        assert mean == pytest.approx(record.log_mean, abs=0.02)
        assert found.edges[-1] == pytest.approx(np.log(record.max), abs=0.07)


def test_half_the_values_are_below_the_median(snapshots: list[Records]) -> None:
    """Gaussian magnitudes have their median at 0.6745 σ."""
    found = even_histogram(snapshots[0][0], 512)
    assert found is not None
    below = found.counts[found.edges[1:] <= np.log(0.6745)].sum()
    assert below / found.counts.sum() == pytest.approx(0.5, abs=0.03)


def test_widths_are_equal_so_that_a_flat_density_looks_flat() -> None:
    """Counts that are proportional to the width of the grid's bins."""
    codes = range(1984, 2048)
    widths = np.diff(log_edges().numpy()[1984:2049])
    found = even_histogram(counted(dict(zip(codes, (1e6 * widths).astype(int), strict=True))), 32)
    assert found is not None
    assert np.diff(found.edges) == pytest.approx(np.full(32, 4 * np.log(2) / 32))
    assert found.counts == pytest.approx(np.full(32, found.counts.mean()), rel=1e-3)


def test_a_few_tiny_values_do_not_stretch_the_axis() -> None:
    found = even_histogram(counted({100: 1, 2000: 4000, 2001: 4000}), 64)
    assert found is not None
    assert found.counts.sum() == 8001
    assert found.counts == pytest.approx([4000, 4000], rel=0.04)
    assert found.edges[0] == log_edges()[2000]


def test_zeros_and_what_is_not_finite_are_left_out() -> None:
    found = even_histogram(counted({0: 9, 2000: 5, FIRST_NONFINITE: 3}), 64)
    assert found is not None
    assert found.counts.tolist() == [5]
    assert even_histogram(counted({0: 9, FIRST_NONFINITE: 3}), 64) is None
    assert even_histogram(Record(), 64) is None


def test_the_largest_magnitude_has_an_edge() -> None:
    found = even_histogram(counted({1: 50, FIRST_NONFINITE - 1: 50}), 64)
    assert found is not None
    assert np.isfinite(found.edges).all()
    assert found.counts.sum() == 100
