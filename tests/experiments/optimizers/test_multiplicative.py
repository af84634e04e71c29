"""Multiplicative optimizers against their formulas, written out once more in numpy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from experiments.optimizers import ExponentiatedGradient, Gibrat, Madam

BOTH: list[Callable[..., torch.optim.Optimizer]] = [Madam, ExponentiatedGradient]


def stepped(
    make: Callable[..., torch.optim.Optimizer],
    start: list[float],
    gradients: list[list[float]],
    **options: Any,
) -> "np.ndarray[Any, Any]":
    """The weights after some steps with these gradients."""
    weight = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make([weight], **options)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return weight.detach().numpy()


def test_exponentiated_gradient_by_hand() -> None:
    end = stepped(ExponentiatedGradient, [0.5, -0.2], [[1.0, 1.0], [0.5, -2.0]], lr=0.1)
    expected = [0.5 * math.exp(-0.1 * 1.5), -0.2 * math.exp(0.1 * (1.0 - 2.0))]
    np.testing.assert_allclose(end, expected, rtol=1e-12)


def test_madam_by_hand() -> None:
    start, gradients = np.array([0.5, -0.2]), np.array([[1.0, 3.0], [0.5, -2.0], [2.0, 0.1]])
    end = stepped(Madam, start.tolist(), gradients.tolist(), lr=0.02, beta=0.9, ceiling=None)
    square, weight = np.zeros(2), start
    for step, gradient in enumerate(gradients, start=1):
        square = 0.9 * square + 0.1 * gradient**2
        normalised = gradient / np.sqrt(square / (1 - 0.9**step))
        weight = weight * np.exp(-0.02 * np.sign(weight) * normalised)
    np.testing.assert_allclose(end, weight, rtol=1e-12)


def test_madams_first_step_does_not_depend_on_the_gradients_size() -> None:
    small = stepped(Madam, [1.0], [[1e-6]], lr=0.1)
    assert small == pytest.approx(math.exp(-0.1), rel=1e-6)
    assert stepped(Madam, [1.0], [[1e6]], lr=0.1) == pytest.approx(small, rel=1e-6)


def test_madam_bounds_a_sudden_gradient() -> None:
    gradients = [[1e-9]] * 200 + [[1.0]]
    free = stepped(Madam, [1.0], gradients[:-1], lr=0.01)
    bounded = stepped(Madam, [1.0], gradients, lr=0.01, bound=2.0)
    assert bounded / free == pytest.approx(math.exp(-0.02), rel=1e-6)


@pytest.mark.parametrize("make", BOTH)
def test_magnitudes_stay_below_the_ceiling(make: Callable[..., torch.optim.Optimizer]) -> None:
    end = stepped(make, [1.0, -1.0, 0.1], [[-5.0, 5.0, 0.0]] * 30, lr=1.0, ceiling=2.0)
    rms = math.sqrt((1 + 1 + 0.01) / 3)
    np.testing.assert_allclose(end, [2 * rms, -2 * rms, 0.1], rtol=1e-6)


@pytest.mark.parametrize("make", BOTH)
def test_signs_and_zeros_stay(make: Callable[..., torch.optim.Optimizer]) -> None:
    source = np.random.default_rng(3)
    start = np.append(source.normal(size=50), 0.0)
    gradients = source.normal(size=(40, 51))
    end = stepped(make, start.tolist(), gradients.tolist(), lr=0.3)
    assert (np.sign(end) == np.sign(start)).all()
    assert not np.allclose(end[:-1], start[:-1])


@pytest.mark.parametrize("make", BOTH)
def test_a_learning_rate_of_zero_changes_nothing(
    make: Callable[..., torch.optim.Optimizer],
) -> None:
    start = [0.3, -0.7, 0.0]
    end = stepped(make, start, [[1.0, 2.0, 3.0]], lr=0.0, weight_decay=0.5, ceiling=3.0)
    assert end.tolist() == start


@pytest.mark.parametrize("make", BOTH)
def test_weight_decay_shrinks_all_magnitudes_alike(
    make: Callable[..., torch.optim.Optimizer],
) -> None:
    end = stepped(make, [0.5, -2.0], [[0.0, 0.0]], lr=0.1, weight_decay=0.3, ceiling=None)
    np.testing.assert_allclose(end, np.array([0.5, -2.0]) * math.exp(-0.03), rtol=1e-12)


def test_gibrats_process_is_a_random_walk_of_the_logarithm() -> None:
    torch.manual_seed(4)
    end = stepped(Gibrat, [0.5] * 5000 + [-2.0] * 5000, [[3.0] * 10_000] * 50, lr=0.1)
    walked = np.log(end / np.array([0.5] * 5000 + [-2.0] * 5000))
    assert abs(walked.mean()) < 0.03
    assert walked.std() == pytest.approx(0.1 * math.sqrt(50), rel=0.03)
    assert abs(np.corrcoef(walked[:5000], walked[5000:])[0, 1]) < 0.05


def test_random_gradients_make_magnitudes_lognormal() -> None:
    """Steps add up in ln|w|."""
    generator = torch.Generator().manual_seed(2)
    weight = nn.Parameter(torch.ones(20_000))
    optimizer = Madam([weight], lr=0.05, ceiling=None)
    for _ in range(100):
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    logs = weight.detach().log()
    scores = (logs - logs.mean()) / logs.std()
    assert abs(scores.pow(3).mean()) < 0.06
    assert abs(scores.pow(4).mean() - 3) < 0.12


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lr": -1.0}, "lr must be a number of at least 0, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be a number of at least 0, got -1.0"),
        ({"ceiling": 0.0}, "ceiling must be a number above 0, or None, got 0.0"),
    ],
)
def test_wrong_values_are_named(
    make: Callable[..., torch.optim.Optimizer], wrong: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make([nn.Parameter(torch.ones(2))], **wrong)
