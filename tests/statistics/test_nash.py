"""Nash gaps: never negative, zero at the best answer alone, equal to what torch computes."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jaynes_callbacks.statistics.nash import relu_nash_gap, sigmoid_nash_gap, softmax_nash_gap


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


@pytest.mark.parametrize(
    ("gap", "answer"),
    [
        (softmax_nash_gap, lambda z: z.softmax(-1)),
        (sigmoid_nash_gap, torch.sigmoid),
        (relu_nash_gap, torch.relu),
    ],
)
def test_best_answers_have_no_gap_and_others_have_one(
    gap: object, answer: object, z: Tensor
) -> None:
    assert callable(gap)
    assert callable(answer)
    y = answer(z)
    assert gap(z, y).abs().max() < 1e-12
    # Answers to other pre-activations.
    assert gap(z, answer(z.roll(1, -1))).min() >= -1e-12
    assert gap(z, answer(z.roll(1, -1))).mean() > 0.1


def test_conjugates_are_suprema(z: Tensor) -> None:
    # g*(y) = sup_z ⟨z, y⟩ − g(z), on a grid.
    grid = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    for y in (0.2, 0.5, 0.9):
        given = torch.full_like(grid, y)
        # The gap is smallest, and zero, at the z whose best answer y is.
        assert sigmoid_nash_gap(grid, given).min().item() == pytest.approx(0, abs=1e-6)
        assert relu_nash_gap(grid, given).min().item() == pytest.approx(0, abs=1e-6)
    assert relu_nash_gap(grid, torch.full_like(grid, -0.1)).min() == torch.inf
