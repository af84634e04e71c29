"""When the bias of the layer that made z is known; what is read of a call, eager and compiled."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jaynes_callbacks.counts.energies import add_energies_, energy_parts, energy_row
from jaynes_callbacks.probes import energies
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.energies import Energies
from tests.probes.test_neurons import Deep, Then

MOST = 40


def _watched(model: nn.Module, *inputs: Tensor, limit: int = 1 << 30) -> ActivationWatch:
    watch = ActivationWatch(model, lambda name: True, limit, reading=Energies(MOST))
    watch.attach()
    watch.open()
    for x in inputs:
        model(x)
    watch.detach()
    return watch


def _linear(**options: Any) -> nn.Module:
    return nn.Linear(6, 5, **options)


#: Whether φ is known, of what lies between a layer of five neurons and the activation.
KNOWN: dict[str, tuple[Callable[[], list[Any]], tuple[int, ...], int]] = {
    "linear": (lambda: [_linear()], (8, 6), 1),
    "sequences": (lambda: [_linear()], (2, 4, 6), 2),
    "no bias": (lambda: [_linear(bias=False)], (8, 6), 1),
    "by keyword": (
        lambda: [lambda x: functional.linear(x, torch.ones(5, 6), bias=torch.arange(5.0))],
        (8, 6),
        1,
    ),
    "a product": (lambda: [lambda x: x @ torch.ones(6, 5)], (8, 6), 1),
    "convolution": (lambda: [nn.Conv2d(3, 5, 2)], (2, 3, 6, 6), 1),
    "one dimension": (lambda: [nn.Conv1d(3, 5, 2)], (2, 3, 6), 1),
    "unbatched": (lambda: [nn.Conv2d(3, 5, 2)], (3, 6, 6), 0),
    "transposed": (lambda: [nn.ConvTranspose2d(3, 5, 2)], (2, 3, 6, 6), 1),
    "identity": (lambda: [_linear(), nn.Identity()], (8, 6), 1),
}
UNKNOWN: dict[str, tuple[Callable[[], list[Any]], tuple[int, ...]]] = {
    "normalised": (lambda: [_linear(), nn.BatchNorm1d(5)], (8, 6)),
    "added to": (lambda: [_linear(), lambda x: x + 1], (8, 6)),
    "changed in place": (lambda: [_linear(), lambda x: x.mul_(2)], (8, 6)),
    "pooled": (lambda: [nn.Conv2d(3, 5, 2), nn.MaxPool2d(2)], (2, 3, 6, 6)),
    "flattened": (lambda: [nn.Conv2d(3, 5, 2), nn.Flatten()], (2, 3, 6, 6)),
    "no layer": (lambda: [], (8, 5)),
    "a product plus a vector": (lambda: [lambda x: x @ torch.ones(6, 5) + 1], (8, 6)),
    "the bias as a term": (
        lambda: [lambda x: torch.addmm(torch.ones(5), x, torch.ones(6, 5))],
        (8, 6),
    ),
    "another activation between": (lambda: [_linear(), functional.softplus], (8, 6)),
}


@pytest.mark.parametrize("activation", [functional.relu, nn.ReLU(inplace=True), nn.SiLU()])
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.sampled(2)
def test_the_bias_of_the_layer_that_made_z(
    name: str, activation: Any, generator: torch.Generator
) -> None:
    build, shape, dim = KNOWN[name]
    torch.manual_seed(2)
    parts = build()
    model, x = Then(*parts, activation), torch.randn(shape, generator=generator)
    found = _watched(model, x).ledger.counts
    z = Then(*parts)(x).detach()
    bias = getattr(parts[0], "bias", torch.arange(5.0) if name == "by keyword" else None)
    bias = torch.zeros(5) if bias is None else bias
    expected = torch.zeros(1, energy_row(MOST), dtype=torch.float64)
    add_energies_(activation(z.clone()), z, bias, expected, 0, dim=dim)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    parts_found = energy_parts(found)
    assert parts_found.samples[0, 5] == parts_found.samples[0, 0] > 0


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_bias_is_not_known(name: str, generator: torch.Generator) -> None:
    build, shape = UNKNOWN[name]
    model = Then(*build(), functional.relu)
    with torch.no_grad():
        found = energy_parts(_watched(model, torch.randn(shape, generator=generator)).ledger.counts)
    assert found.samples[0, 0] > 0
    assert found.samples[0, 5] == 0
    assert not found.neurons[..., 4].any()


def test_a_layer_of_an_earlier_forward_says_nothing(generator: torch.Generator) -> None:
    model = nn.ModuleDict({"fc": nn.Linear(5, 5), "act": nn.ReLU()})
    watch = ActivationWatch(model, lambda name: True, 1000, reading=Energies(MOST))
    watch.attach()
    watch.open()
    z = model["fc"](torch.randn(4, 5, generator=generator))
    watch.close()
    watch.open()
    model["act"](z)
    watch.detach()
    assert energy_parts(watch.ledger.counts).samples[0, :6:5].tolist() == [4, 0]


def test_inference_mode_is_read_without_a_bias() -> None:
    with torch.inference_mode():
        watch = _watched(Then(nn.Conv1d(3, 5, 3), functional.relu), torch.ones(2, 3, 6))
    found = energy_parts(watch.ledger.counts)
    assert found.samples[0, :6:5].tolist() == [2, 0]
    # The layer still tells where the neurons lie.
    assert (found.neurons[0, :, 0] > 0).sum() == 5


def test_a_bias_that_is_freed_after_its_layer_was_copied() -> None:
    # As a sharded layer does.
    bias = torch.arange(5.0)

    def layer(x: Tensor) -> Tensor:
        z = functional.linear(x, torch.ones(5, 6), bias)
        bias.untyped_storage().resize_(0)
        return z

    found = energy_parts(_watched(Then(layer, functional.relu), torch.ones(4, 6)).ledger.counts)
    y = 6 + torch.arange(5.0)
    assert found.neurons[0, :5, 4].tolist() == (4 * y * torch.arange(5.0)).tolist()


@pytest.mark.parametrize("dim", [1, 2])
def test_parts_of_samples_are_not_read(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energies, "is_sharded_along", lambda tensor, along: along == dim)
    with pytest.warns(UserWarning, match="spread over ranks"):
        watch = _watched(Then(nn.Linear(6, 5), functional.relu), torch.ones(4, 3, 6))
    assert [name for name, _ in watch.ledger.skipped] == ["relu"]


def test_only_so_many_samples_are_read(generator: torch.Generator) -> None:
    x = torch.randn(20, 6, generator=generator)
    for activation in (nn.ReLU(), nn.ReLU(inplace=True)):
        watch = _watched(Then(nn.Linear(6, 5), activation), x, limit=40)
        assert energy_parts(watch.ledger.counts).samples[0, 0] == 7


def test_no_tensor_is_kept(generator: torch.Generator) -> None:
    model, seen = nn.Linear(6, 5), []
    head = Then(model, lambda z: seen.append(weakref.ref(z)) or z, functional.relu, nn.Linear(5, 3))
    watch = ActivationWatch(head, lambda name: True, 1000, reading=Energies(MOST))
    watch.attach()
    watch.open()
    output = weakref.ref(head(torch.randn(4, 6, generator=generator)))
    gc.collect()
    assert (seen[0](), output()) == (None, None)
    watch.detach()


def test_compiled_models_give_the_same_but_for_the_bias(generator: torch.Generator) -> None:
    x = torch.randn(20, 2, 4, 4, generator=generator)
    model = Deep()
    eager = energy_parts(_watched(model, x, limit=60).ledger.counts)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    watch = ActivationWatch(model, lambda name: True, 60, reading=Energies(MOST))
    watch.attach()
    for _ in range(2):
        watch.open(one_forward=True)
        compiled(x)
        watch.close()
        compiled(x)
    watch.detach()
    found = energy_parts(watch.ledger.counts)
    torch.testing.assert_close(found.counts, 2 * eager.counts, rtol=0, atol=0)
    torch.testing.assert_close(found.samples[:, :5], 2 * eager.samples[:, :5], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        found.neurons[..., :4], 2 * eager.neurons[..., :4], rtol=1e-6, atol=1e-12
    )
    assert not found.samples[:, 5].any()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
