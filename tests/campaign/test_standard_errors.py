"""How often intervals hold the truth, and falls are seen where there is none."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    Influence,
    fit_family,
    gap,
    influences,
    log_moments,
    occupied_bins,
)

#: Rows and columns of a layer.
SHAPE = (256, 256)
DRAWS = 1600
#: Standard deviations of the logarithms of the scales of rows and of columns.
SCALES = {
    "independent": (0.0, 0.0),
    **{
        f"{name}, {s}": (s * of_rows, s * of_columns)
        for s in (0.5, 1.0)
        for name, of_rows, of_columns in (("rows", 1, 0), ("columns", 0, 1), ("both", 1, 1))
    },
}

Draw = Callable[[], Tensor]


def counts_of(tensor: Tensor) -> Tensor:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(tensor, counts, 0)
    return counts


def measured(tensor: Tensor) -> tuple[Tensor, Influence]:
    """Counts, and what rows and columns do to the gap."""
    counts = counts_of(tensor)
    (found,) = influences([tensor], counts)
    assert found is not None
    return counts, found


def gaps_of(counts: list[Tensor]) -> Tensor:
    binned = occupied_bins(torch.cat(counts))
    merged = binned.merged()
    return gap(merged, fit_family(LOGNORMAL, merged, log_moments(binned)))


def coverage(name: str, shape: tuple[int, int], draws: int) -> float:
    """Share of 95 % intervals that hold the mean gap."""
    source = torch.Generator().manual_seed(11)
    of_rows, of_columns = SCALES[name]
    found = []
    for _ in range(draws):
        scale = (of_rows * torch.randn(shape[0], 1, generator=source)).exp()
        scale = scale * (of_columns * torch.randn(1, shape[1], generator=source)).exp()
        counts, influence = measured(scale * torch.randn(*shape, generator=source))
        found.append((counts, influence.standard_error))
    gaps = gaps_of([counts for counts, _ in found])
    errors = torch.stack([error for _, error in found])
    return ((gaps - gaps.mean()).abs() < 1.96 * errors).double().mean().item()


def false_falls(name: str, shape: tuple[int, int], draws: int, kept: float) -> float:
    """Share of falls by more than twice the error, where each weight moves and the law stays.

    Args:
        name: of the scales.
        shape: of a layer.
        draws: number of layers.
        kept: correlation of a weight's end with its start, but for the scales.
    """
    source = torch.Generator().manual_seed(12)
    of_rows, of_columns = SCALES[name]
    start, end, errors = [], [], []
    for _ in range(draws):
        scale = (of_rows * torch.randn(shape[0], 1, generator=source)).exp()
        scale = scale * (of_columns * torch.randn(1, shape[1], generator=source)).exp()
        first, new = torch.randn(2, *shape, generator=source)
        before = measured(scale * first)
        after = measured(scale * (kept * first + math.sqrt(1 - kept**2) * new))
        change = after[1].less(before[1])
        assert change is not None
        start.append(before[0])
        end.append(after[0])
        errors.append(change.standard_error)
    falls = gaps_of(start) - gaps_of(end)
    return (falls > 2 * torch.stack(errors)).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALES)
def test_intervals_hold_the_gap(name: str) -> None:
    assert 0.92 <= coverage(name, SHAPE, DRAWS) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0.9, 0.5])
@pytest.mark.parametrize("name", SCALES)
def test_a_fall_that_is_none_is_seldom_seen(name: str, kept: float) -> None:
    assert 0.01 <= false_falls(name, SHAPE, DRAWS, kept) <= 0.04


@pytest.mark.parametrize("name", ["independent", "both, 1.0"])
@pytest.mark.sampled(2)
def test_a_sample_of_the_same(name: str) -> None:
    """Rows alone would hold it in 60 of 100 cases where columns have scales."""
    assert coverage(name, (64, 64), 120) >= 0.87
    assert false_falls(name, (64, 64), 120, 0.9) <= 0.07


# Few values ---------------------------------------------------------------------------------------


def bias(sigma: float, n: int, draws: int) -> float:
    """Mean gap of true lognormals, which is zero."""
    source = torch.Generator().manual_seed(13)
    values = (sigma * torch.randn(draws, n, generator=source, dtype=torch.float64)).exp()
    return gaps_of([counts_of(each) for each in values]).mean().item()


@pytest.mark.parametrize("sigma", [0.65, 1.0, 3.0])
def test_few_values_of_a_lognormal_have_no_gap(sigma: float) -> None:
    assert abs(bias(sigma, 1000, 150)) < 0.006


@pytest.mark.slow
@pytest.mark.parametrize("n", [1000, 5000, 36_863, 36_864])
@pytest.mark.parametrize("sigma", [0.65, 1.0, 3.0])
def test_the_bias_is_small_at_all_sizes(sigma: float, n: int) -> None:
    assert abs(bias(sigma, n, 2_000_000 // n)) < 0.003


# Activations --------------------------------------------------------------------------------------


class Images(nn.Module):
    """An untrained convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 8 * 8, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def images(source: torch.Generator, number: int = 16) -> Tensor:
    """Images of one colour and contrast each, and smooth within."""
    small = torch.randn(number, 3, 4, 4, generator=source)
    contrast = (0.5 * torch.randn(number, 1, 1, 1, generator=source)).exp()
    return contrast * nn.functional.interpolate(small, 12, mode="bilinear")


@pytest.mark.slow
def test_other_batches_are_no_approach() -> None:
    """An untrained network approaches nothing, whichever batches it sees."""
    assert share_of_false_approaches(runs=400) < 0.06


def share_of_false_approaches(runs: int) -> float:
    source = torch.Generator().manual_seed(14)
    verdicts = []
    for seed in range(runs):
        torch.manual_seed(seed)
        recorder = Recorder(Images(), kinds="iota")
        recorder.attach()
        for step in range(2):
            for _ in range(16):
                recorder.open()
                with torch.no_grad():
                    recorder.model(images(source))
                recorder.close()
            records = recorder.snapshot(step)
        recorder.detach()
        verdicts += [each.verdict for each in records if isinstance(each, Record)]
    assert len(verdicts) == 2 * runs
    return sum(verdict in ("approaching", "emerged") for verdict in verdicts) / len(verdicts)
