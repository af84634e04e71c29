import numpy as np
import torch

from jaynes_callbacks import analyse
from jaynes_callbacks.figures import utility_over_magnitude
from jaynes_callbacks.figures.curves import log_histogram
from jaynes_callbacks.figures.utility import _utility
from jaynes_callbacks.instruments.record import Record, Records

GENERATOR = torch.Generator().manual_seed(5)


def utility_of(record: Record) -> tuple["np.ndarray", "np.ndarray"]:
    """Where there are many values: ln w and the utility."""
    histogram = log_histogram(record)
    assert histogram is not None
    many = histogram.density * np.diff(histogram.edges) > 3e-3
    return histogram.middles[many], _utility(record, histogram)[many]


def test_a_lognormal_is_flat() -> None:
    (record,) = analyse(torch.randn(1000, 500, generator=GENERATOR).mul(0.7).exp())
    _, utility = utility_of(record)
    assert np.abs(utility).max() < 0.06


def test_gaussian_weights_gain_by_moving() -> None:
    """h = α ln w − β ln² w − ln f(w), and −ln f(w) = w²/2 and a constant (Eq. 7), w/max in u."""
    (record,) = analyse(torch.randn(1000, 500, generator=GENERATOR))
    x, utility = utility_of(record)
    x, w = x - np.log(record.max), np.exp(x)
    expected = record.alpha * x - record.beta * x**2 + w**2 / 2
    np.testing.assert_allclose(utility - utility.mean(), expected - expected.mean(), atol=0.06)
    assert np.ptp(utility) > 0.8


def test_the_line_is_the_utility_over_its_bins(snapshots: list[Records]) -> None:
    start, end = snapshots[0][0], snapshots[-1][0]
    axes = utility_over_magnitude(end, start).axes[0]
    histogram = log_histogram(end)
    assert histogram is not None
    lines = {len(line.get_xdata()): line for line in axes.lines}
    drawn = lines[len(histogram.middles)]
    np.testing.assert_allclose(drawn.get_xdata(), histogram.middles)
    known = np.isfinite(drawn.get_ydata())
    np.testing.assert_allclose(drawn.get_ydata()[known], _utility(end, histogram)[known])
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert labels == ["utility, step 20", "share of the values", "start, step 0"]


def test_what_is_missing_is_said(bare: Record, snapshots: list[Records]) -> None:
    assert "no values" in [text.get_text() for text in utility_over_magnitude(bare).axes[0].texts]
    unfitted = snapshots[0][0].replace(alpha=float("nan"))
    said = [text.get_text() for text in utility_over_magnitude(unfitted).axes[0].texts]
    assert "no lognormal fit" in said
