"""Tangent kernels and centred alignment against loops over samples, and landmarks of alignment."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.statistics import alignment
from jaynes_callbacks.statistics.alignment import (
    AlignmentStatus,
    Call,
    Places,
    add_kernel_,
    centred_alignment,
    chance_alignment,
    input_gram,
    label_kernel,
    predicted_depth,
    random_outputs,
)


def _calls(
    generator: torch.Generator, *places: int, samples: int = 7, groups: int = 1
) -> list[Call]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return [
        Call(Places(draw(samples, groups, each, 5)), draw(samples, groups, each, 3))
        for each in places
    ]


def _kernel(calls: list[Call], *, weight: bool, bias: bool) -> np.ndarray:
    """Each sample's gradients, added up place by place in a loop; then their scalar products."""
    samples = []
    for n in range(calls[0].gradients.shape[0]):
        of_weight, of_bias = 0.0, 0.0
        for inputs, gradients in ((call.places.windows[n], call.gradients[n]) for call in calls):
            groups, places = gradients.shape[:2]
            outer = [
                sum(np.outer(gradients[g, p], inputs[g, p]) for p in range(places))
                for g in range(groups)
            ]
            of_weight = of_weight + np.concatenate([each.ravel() for each in outer])
            of_bias = of_bias + gradients.sum(1).ravel().numpy()
        parts = ([of_weight] if weight else []) + ([of_bias] if bias else [])
        samples.append(np.concatenate(parts))
    stacked = np.stack(samples)
    return stacked @ stacked.T


@pytest.mark.parametrize("places", [(1,), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("chunk", [1, 40, 1 << 24])
def test_a_kernel_is_that_of_a_loop_over_samples_and_places(
    places: tuple[int, ...],
    groups: int,
    weight: bool,
    bias: bool,
    chunk: int,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alignment, "_CHUNK", chunk)
    calls = _calls(generator, *places, groups=groups)
    expected = _kernel(calls, weight=weight, bias=bias)
    grams = [None]
    if len(calls) == 1 and groups == 1:
        flat = calls[0].places.values().reshape(-1, 5)
        grams.append(flat @ flat.mT)
    for gram in grams:
        kernel = torch.zeros(7, 7, dtype=torch.float64)
        add_kernel_(kernel, calls, weight=weight, bias=bias, gram=gram)
        np.testing.assert_allclose(kernel, expected, rtol=1e-13, atol=1e-13)


def test_products_of_inputs_are_kept_where_they_spare_work(generator: torch.Generator) -> None:
    (one,), (many,) = (_calls(generator, places) for places in (1, 40))
    (grouped,) = _calls(generator, 1, groups=2)
    assert input_gram(one.places, 49) is not None
    assert input_gram(one.places, 48) is None, "there is no room for 7 times 7"
    # 7 · 40² multiplications for each output, or 5 · (40 + 7).
    assert input_gram(many.places, 1 << 20) is None
    assert input_gram(grouped.places, 1 << 20) is None


# Alignment ----------------------------------------------------------------------------------


def test_centred_alignment_is_a_correlation_of_centred_features(
    generator: torch.Generator,
) -> None:
    x, y = (torch.randn(20, d, generator=generator, dtype=torch.float64) + 3 for d in (4, 2))
    found = centred_alignment(x @ x.T, y @ y.T)
    # Linear CKA by features (Kornblith et al. 2019, equation 3).
    xc, yc = (each.numpy() - each.numpy().mean(0) for each in (x, y))
    expected = np.linalg.norm(yc.T @ xc) ** 2 / (
        np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc)
    )
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_landmarks_of_alignment(generator: torch.Generator) -> None:
    classes = torch.randint(5, (200,), generator=generator)
    labels = label_kernel(classes)
    assert torch.equal(labels, torch.nn.functional.one_hot(classes).double() @ _one_hot(classes).T)
    assert centred_alignment(labels, labels).item() == pytest.approx(1, abs=1e-14)
    scaled = 7 * labels + torch.arange(200.0)[:, None] + torch.arange(200.0)
    assert centred_alignment(scaled, labels).item() == pytest.approx(1, abs=1e-12)
    assert centred_alignment(torch.ones(200, 200), labels).isnan()


def _one_hot(classes: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(classes).double()


@pytest.mark.parametrize(("features", "ratio"), [(3, 16), (3000, 4)])
def test_shuffled_labels_are_aligned_by_chance_alone(
    features: int, ratio: float, generator: torch.Generator
) -> None:
    def of_chance(samples: int) -> float:
        x = torch.randn(samples, features, generator=generator, dtype=torch.float64)
        kernel, classes = x @ x.T, torch.arange(samples) % 2
        found = [
            centred_alignment(kernel, label_kernel(classes[order]))
            for order in (torch.randperm(samples, generator=generator) for _ in range(40))
        ]
        return float(torch.stack(found).mean())

    few, many = of_chance(25), of_chance(400)
    # The kernel of r directions has √r/N by chance, and one of all directions 1/√N, the most.
    assert 0 < many < 1.1 / np.sqrt(400)
    assert few / many == pytest.approx(ratio, rel=0.4)


def test_the_alignment_of_chance_is_the_mean_over_all_orders(generator: torch.Generator) -> None:
    x = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    kernels, classes = x @ x.mT + 1, torch.tensor([0, 0, 0, 1, 1, 2])
    orders = [torch.tensor(order) for order in permutations(range(6))]
    all_labels = [label_kernel(classes[order]) for order in orders]
    expected = torch.stack([centred_alignment(kernels, each) for each in all_labels]).mean(0)
    torch.testing.assert_close(
        chance_alignment(kernels, label_kernel(classes)), expected, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("samples", [64, 256])
@pytest.mark.parametrize("classes", [2, 10])
def test_of_many_directions_chance_grows_with_the_classes(
    samples: int, classes: int, generator: torch.Generator
) -> None:
    x = torch.randn(samples, 20_000, generator=generator)
    labels = torch.arange(samples) % classes
    found = chance_alignment(x @ x.T, label_kernel(labels)).item()
    assert found == pytest.approx(np.sqrt((classes - 1) / (samples - 1)), rel=0.02)


def test_labels_that_are_numbers_are_taken_as_they_are(generator: torch.Generator) -> None:
    y = torch.randn(6, 2, 2, generator=generator, dtype=torch.float64)
    assert torch.allclose(label_kernel(y), torch.einsum("nab,mab->nm", y, y))
    assert torch.equal(label_kernel(torch.tensor([1.0, 2.0])), torch.tensor([[1.0, 2], [2, 4]]))
    hot = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert label_kernel(hot).tolist() == [[2, 1], [1, 2]]


def test_predicted_depth() -> None:
    assert predicted_depth(1) == 1
    assert predicted_depth(32) == pytest.approx(8)


# Projections --------------------------------------------------------------------------------


def test_projected_outputs_have_the_expectation_of_all() -> None:
    source = torch.Generator().manual_seed(1)
    draws = torch.stack([random_outputs(40, 8, source) for _ in range(2000)])
    gram = draws[0].T @ draws[0]
    assert torch.allclose(gram, 5 * torch.eye(8, dtype=torch.float64))
    mean = (draws @ draws.mT).mean(0)
    assert (mean - torch.eye(40, dtype=torch.float64)).abs().max() < 0.06


def test_the_error_of_projections_is_as_stated() -> None:
    source = torch.Generator().manual_seed(2)
    classes, kept = 100, 32
    g = torch.randn(2, classes, 50, generator=source, dtype=torch.float64)
    exact = torch.einsum("ncf,mcf->nm", g, g)[0, 0]
    found = []
    for _ in range(300):
        projected = torch.einsum("ncf,ck->nkf", g, random_outputs(classes, kept, source))
        found.append(torch.einsum("nkf,mkf->nm", projected, projected)[0, 0])
    # Here the gradient of each output points elsewhere, so that errors average over 50 features.
    error = torch.stack(found).std() / exact
    assert error < np.sqrt(2 / kept) * np.sqrt(1 - kept / classes)


def test_each_status_has_a_reason() -> None:
    reasons = [each.reason for each in AlignmentStatus]
    assert len(set(reasons)) == len(reasons)
    assert all(reasons)
    for one, other in product(AlignmentStatus, repeat=2):
        assert (one.reason == other.reason) == (one is other)
