"""Nash gaps: never negative, zero at the best answer alone, equal to what torch computes."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jaynes_callbacks.statistics.nash import softmax_nash_gap


@pytest.fixture
def z(generator: torch.Generator) -> Tensor:
    return 3 * torch.randn(200, 7, generator=generator, dtype=torch.float64)


def test_softmax_is_the_cross_entropy_less_the_entropy(
    z: Tensor, generator: torch.Generator
) -> None:
    labels = torch.randint(7, (200,), generator=generator)
    hard = softmax_nash_gap(z, functional.one_hot(labels, 7).double())
    torch.testing.assert_close(hard, functional.cross_entropy(z, labels, reduction="none"))
    soft = torch.rand(200, 7, generator=generator, dtype=torch.float64).softmax(-1)
    entropy = torch.distributions.Categorical(soft).entropy()
    expected = functional.cross_entropy(z, soft, reduction="none") - entropy
    torch.testing.assert_close(softmax_nash_gap(z, soft), expected)
    assert softmax_nash_gap(z, soft).min() > 0


def test_best_answers_have_no_gap_and_others_have_one(z: Tensor) -> None:
    assert softmax_nash_gap(z, z.softmax(-1)).abs().max() < 1e-12
    # Answers to other pre-activations.
    other = softmax_nash_gap(z, z.roll(1, -1).softmax(-1))
    assert other.min() >= -1e-12
    assert other.mean() > 0.1


def test_conjugates_are_suprema() -> None:
    # g*(y) = sup_z ⟨z, y⟩ − g(z), on a grid of two classes.
    grid = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    z = torch.stack([grid, torch.zeros_like(grid)], -1)
    for y in (0.2, 0.5, 0.9):
        given = torch.tensor([y, 1 - y], dtype=torch.float64).expand_as(z)
        # The gap is smallest, and zero, at the z whose best answer y is.
        assert softmax_nash_gap(z, given).min().item() == pytest.approx(0, abs=1e-6)
