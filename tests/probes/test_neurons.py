"""What a neuron is, by the layer before an activation; eager and compiled alike."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jaynes_callbacks.counts.log_powers import POWERS, add_log_powers_
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.neurons import Layer, LogPowers, neuron_dimension
from jaynes_callbacks.probes.reading import Call

MOST = 40


class Then(nn.Module):
    """Applies functions one after the other; modules among them are its own."""

    def __init__(self, *parts: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.parts = parts
        self.own = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def _watch(model: nn.Module, limit: int = 1 << 30) -> ActivationWatch:
    watch = ActivationWatch(model, lambda name: True, limit, reading=LogPowers(MOST))
    watch.attach()
    return watch


def _watched(model: nn.Module, x: Tensor, limit: int = 1 << 30) -> ActivationWatch:
    watch = _watch(model, limit)
    watch.open()
    model(x)
    watch.detach()
    return watch


#: Layers, the shape that goes in, the number of neurons of the activation and their dimension.
NETWORKS: dict[str, tuple[Callable[[], Then], tuple[int, ...], int, int]] = {
    "features": (lambda: Then(nn.Linear(6, 5), functional.relu), (8, 6), 5, 1),
    "sequences": (lambda: Then(nn.Linear(6, 5), functional.relu), (2, 4, 6), 5, 2),
    "maps": (lambda: Then(nn.Conv2d(3, 5, 2), functional.relu), (2, 3, 6, 6), 5, 1),
    "signals": (lambda: Then(nn.Conv1d(3, 5, 2), functional.relu), (2, 3, 6), 5, 1),
    "volumes": (lambda: Then(nn.Conv3d(3, 5, 2), functional.relu), (2, 3, 4, 4, 4), 5, 1),
    "unbatched maps": (lambda: Then(nn.Conv2d(3, 5, 2), functional.relu), (3, 6, 6), 5, 0),
    "normalised maps": (
        lambda: Then(nn.Conv2d(3, 5, 2), nn.BatchNorm2d(5), nn.MaxPool2d(2), functional.relu),
        (2, 3, 6, 6),
        5,
        1,
    ),
    # As in ConvNeXt, at a width of the map that is also a number of channels.
    "permuted maps": (
        lambda: Then(
            nn.Conv2d(3, 5, 2),
            lambda x: x.permute(0, 2, 3, 1),
            nn.LayerNorm(5),
            nn.Linear(5, 7),
            functional.relu,
        ),
        (2, 3, 6, 6),
        7,
        3,
    ),
    "flattened maps": (
        lambda: Then(nn.Conv2d(3, 4, 2), nn.Flatten(), functional.relu),
        (2, 3, 4, 4),
        36,
        1,
    ),
    "maps in rows": (
        lambda: Then(nn.Conv2d(3, 5, 2), nn.Flatten(2), functional.relu),
        (2, 3, 4, 4),
        5,
        1,
    ),
    "transposed convolution": (
        lambda: Then(nn.ConvTranspose2d(3, 5, 2), functional.relu),
        (2, 3, 4, 4),
        5,
        1,
    ),
    "a product of one's own": (
        lambda: Then(nn.Conv1d(3, 5, 1), lambda x: x @ torch.ones(6, 4), functional.relu),
        (2, 3, 6),
        4,
        2,
    ),
    "images without a layer": (lambda: Then(functional.relu), (2, 3, 6, 6), 3, 1),
    "sequences without a layer": (lambda: Then(functional.relu), (2, 4, 6), 6, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_neuron_is_a_channel_or_a_feature(name: str) -> None:
    build, shape, neurons, dim = NETWORKS[name]
    torch.manual_seed(1)
    model, x = build(), torch.randn(shape)
    # A convolution in an earlier forward says nothing of this one.
    watch = _watch(model)
    watch._reading.layer_ends(functional.conv1d, Call((), {}, torch.zeros(2, 3, 6)))
    watch.open()
    y = model(x)
    watch.detach()
    found = watch.ledger.counts[0]
    expected = torch.zeros(1, MOST, POWERS, dtype=torch.float64)
    add_log_powers_(y, None, expected, 0, dim=dim)
    assert (found[:, 0] > 0).sum() == neurons
    torch.testing.assert_close(found, expected[0], rtol=0, atol=0)


def test_a_part_that_is_called_alone_forgets_earlier_forwards_too() -> None:
    model = nn.ModuleDict({"conv": nn.Conv1d(3, 5, 2), "act": nn.ReLU()})
    watch = _watch(model)
    watch.open()
    model["conv"](torch.ones(2, 3, 6))
    watch.close()
    watch.open()
    model["act"](torch.ones(2, 4, 6))
    watch.detach()
    assert (watch.ledger.counts[0, :, 0] > 0).sum() == 6


def test_what_no_layer_tells_of() -> None:
    assert [neuron_dimension(rank, None) for rank in range(6)] == [0, 0, 1, 2, 1, 1]
    assert neuron_dimension(2, Layer(4, 2)) == 1
    assert neuron_dimension(3, Layer(4, 2)) == 1
    assert neuron_dimension(4, Layer(2, 0)) == 3


class Deep(nn.Module):
    """Channels, then features; in place and not, ReLU and others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.SiLU(inplace=True))
        self.line = nn.Sequential(nn.Flatten(), nn.Linear(24, 9), nn.ReLU(inplace=True))
        self.last = nn.Linear(9, 50)

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.conv(x))
        return functional.gelu(self.last(x)).tanh()


@pytest.mark.parametrize("limit", [1 << 30, 60])
@pytest.mark.sampled(2)
def test_compiled_models_give_the_same_sums(limit: int, generator: torch.Generator) -> None:
    x = torch.randn(20, 2, 4, 4, generator=generator)
    model = Deep()
    eager = _watched(model, x, limit)
    assert [stream.name for stream in eager.ledger.streams] == ["conv.2", "line.2", "gelu", "tanh"]
    seen = (eager.ledger.counts[:, :, 0] > 0).sum(-1).tolist()
    assert seen == [6, 9, 25, 25]
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    watch = _watch(model, limit)
    for _ in range(2):
        watch.open(one_forward=True)
        compiled(x)
        watch.close()
        compiled(x)
    watch.detach()
    torch.testing.assert_close(watch.ledger.counts, 2 * eager.ledger.counts, rtol=1e-12, atol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def _broken(*args: object, **options: object) -> None:
    raise MemoryError("none left")


def test_a_site_that_fails_costs_only_its_own_stream(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    x = torch.randn(20, 2, 4, 4, generator=generator)
    model = Deep()
    whole = _watched(model, x).ledger.counts
    # Only the function in place picks its values before it is applied.
    monkeypatch.setattr(LogPowers, "_few", _broken)
    with pytest.warns(UserWarning, match=r"activation 'conv.2' is no longer recorded.*none left"):
        watch = _watched(model, x)
    assert [name for name, _ in watch.ledger.skipped] == ["conv.2"]
    assert torch.equal(watch.ledger.counts, whole[1:])


def test_watches_close_in_any_order() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    outer, inner = _watch(model), _watch(model)
    for first, second in ((outer, inner), (inner, outer)):
        outer.open()
        inner.open()
        with outer.paused():
            model(torch.ones(2, 4))
        first.close()
        model(torch.ones(2, 4))
        second.close()
        assert torch.overrides._get_current_function_mode() is None
    # Each saw two forwards of four, and the inner one two more while the other paused.
    assert outer.ledger.counts[0, :4, 0].tolist() == [2.0] * 4
    assert inner.ledger.counts[0, :4, 0].tolist() == [6.0] * 4
