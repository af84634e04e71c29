"""What leaving out rows and columns does to a gap, against leaving them out."""

import math

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    Influence,
    fit_family,
    gap,
    influences,
    log_moments,
    occupied_bins,
    standard_errors_of,
)


def counts_of(*tensors: Tensor) -> Tensor:
    counts = torch.zeros(len(tensors), CODES, dtype=torch.int64)
    for row, tensor in enumerate(tensors):
        count_(tensor, counts, row)
    return counts


def influence_of(tensor: Tensor) -> Influence:
    (found,) = influences([tensor], counts_of(tensor))
    assert found is not None
    return found


def plain_gap(counts: Tensor) -> Tensor:
    """The gap without its bias correction, whose jumps no expansion follows."""
    binned = occupied_bins(counts)
    fit = fit_family(LOGNORMAL, binned, log_moments(binned))
    found = gap(binned, fit)
    return found + (binned.occupied_number - 3) / (2 * binned.total)


def layer(source: torch.Generator, *shape: int, s: float = 0.8) -> Tensor:
    """Gaussian weights whose rows and columns have scales of their own."""
    rows, columns = (
        (s * torch.randn(*size, generator=source)).exp() for size in ((shape[0], 1), (1, shape[1]))
    )
    scale = (rows * columns).view(*shape[:2], *[1] * (len(shape) - 2))
    return scale * torch.randn(*shape, generator=source)


@pytest.mark.parametrize("shape", [(40, 300), (30, 12, 5, 5)])
def test_it_is_the_gap_less_the_gap_without_them(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    weights = layer(generator, *shape, s=0.4)
    found, whole = influence_of(weights), counts_of(weights)
    for effects, parts in ((found.rows, weights), (found.columns, weights.transpose(0, 1))):
        without = plain_gap(whole - counts_of(*parts))
        exact = plain_gap(whole) - without
        assert len(effects) == len(parts)
        assert torch.corrcoef(torch.stack([effects, exact]))[0, 1] > 0.99
        assert effects.std().item() == pytest.approx(exact.std().item(), rel=0.05)


def test_the_squares_of_a_change_follow_from_some_values(generator: torch.Generator) -> None:
    """A third of the values are new, so that a third of both ends' squares is the change's."""
    first = layer(generator, 400, 300)
    last = torch.where(torch.rand(400, 300, generator=generator) < 1 / 3, first.roll(7, 0), first)
    start, end = influence_of(first), influence_of(last)
    assert 3500 < len(start.values) < 4700
    change = end.less(start)
    assert change is not None
    found = change.squares / (start.squares + end.squares)
    assert found.item() == pytest.approx(1 / 3, rel=0.25)


def test_columns_are_clusters_as_rows_are(generator: torch.Generator) -> None:
    weights = layer(generator, 120, 90)
    pair = [weights, weights.T.contiguous()]
    both, turned = standard_errors_of(influences(pair, counts_of(*pair)), torch.device("cpu"))
    assert both.item() == pytest.approx(turned.item(), rel=1e-9)


def test_rows_alone_are_clusters_of_few_columns(generator: torch.Generator) -> None:
    found = influence_of(layer(generator, 200, 9, 6))
    assert len(found.columns) == 0
    assert found.standard_error > 0


def test_a_change_errs_less_than_its_ends(generator: torch.Generator) -> None:
    """The same weights, moved a little: the error over draws, and in quadrature."""
    changes, errors, quadrature = [], [], []
    for _ in range(150):
        scale = (0.7 * torch.randn(60, 1, generator=generator)).exp()
        scale = scale * (0.7 * torch.randn(1, 80, generator=generator)).exp()
        first, new = torch.randn(2, 60, 80, generator=generator)
        ends = [scale * first, scale * (0.9 * first + math.sqrt(0.19) * new)]
        start, end = (influence_of(each) for each in ends)
        change = end.less(start)
        assert change is not None
        gaps = plain_gap(counts_of(*ends))
        changes.append((gaps[1] - gaps[0]).item())
        errors.append(change.standard_error.item())
        quadrature.append(math.hypot(start.standard_error.item(), end.standard_error.item()))
    spread = torch.tensor(changes).std().item()
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.2)
    assert sum(quadrature) / len(quadrature) > 1.2 * spread


def test_what_did_not_change_has_no_error(generator: torch.Generator) -> None:
    found = influence_of(layer(generator, 50, 40))
    change = found.less(found)
    assert change is not None
    assert change.standard_error == 0
    assert found.less(influence_of(layer(generator, 50, 41))) is None
    assert found.less(influence_of(layer(generator, 51, 40))) is None


def test_no_influence_is_no_error() -> None:
    tensors = [torch.rand(9, 900), torch.rand(900), torch.zeros(40, 0)]
    assert influences(tensors, counts_of(*tensors)) == [None] * 3
    assert standard_errors_of([None], torch.device("cpu")).isnan().all()
