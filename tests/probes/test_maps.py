"""Kept calls are the calls of the last forward, of a few samples, and can be repeated."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks.probes import maps
from jaynes_callbacks.probes.maps import KeptCall, MapWatch


def _kept(model: nn.Module, *args: Any, samples: int = 4, **kwargs: Any) -> dict[str, KeptCall]:
    watch = MapWatch(dict(model.named_modules()), samples)
    watch.open()
    model(*args, **kwargs)
    watch.close()
    assert not any(module._forward_hooks for module in model.modules())
    return watch.calls


class Masked(nn.Module):
    """Takes its input by name, a mask for each sample, a table, and a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, mask: Tensor, *, x: Tensor, table: Any, scale: float = 1.0) -> Any:
        return {"out": self.layer(x) * mask[:, None] * scale, "table": table}


class DynamicCache:
    """Stands for the one of transformers."""


def test_a_call_can_be_repeated_with_fewer_samples(generator: torch.Generator) -> None:
    model = Masked()
    x, mask = torch.randn(9, 3, generator=generator), torch.arange(9)
    output = model(mask, x=x, table=DynamicCache(), scale=2.0)["out"]
    calls = _kept(model, mask, x=x, table=DynamicCache(), scale=2.0)
    call = calls[""]
    assert call.x.equal(x[:4])
    assert call.is_endomap
    # The mask differs from sample to sample, so that each has a map of its own.
    assert call.varies
    assert not calls["layer"].varies
    torch.testing.assert_close(call(call.x), output[:4])
    torch.testing.assert_close(
        call(2 * call.x), model(mask, x=2 * x, table=None, scale=2.0)["out"][:4]
    )
    # A linear layer maps vectors, which are taken at a stride.
    assert calls["layer"].x.equal(x[::2][:4])


def test_vectors_of_a_linear_layer_and_samples_of_a_convolution(generator: torch.Generator) -> None:
    x = torch.randn(2, 10, 6, generator=generator)
    (call,) = _kept(nn.Linear(6, 6), x).values()
    assert (call.x.shape, call.shape, call.is_endomap) == ((4, 6), (6,), True)
    (call,) = _kept(nn.Conv1d(10, 3, 3), x).values()
    assert (call.x.shape, call.shape, call.is_endomap) == ((2, 10, 6), (3, 4), False)
    # Two samples at least, however large; few of large ones.
    (call,) = _kept(nn.Conv1d(10, 3, 3), torch.zeros(20, 10, 20_000)).values()
    assert call.x.shape[0] == 2


def test_sequences_that_come_first_are_cut_along_their_samples(generator: torch.Generator) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16).eval()
    x = torch.randn(5, 6, 8, generator=generator)
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[0, -1] = True
    call = _kept(layer, x, src_key_padding_mask=mask)[""]
    assert (call.x.shape, call.dim, call.rows(call.x).shape) == ((5, 4, 8), 1, (4, 40))
    expected = layer(x, src_key_padding_mask=mask)[:, :4]
    torch.testing.assert_close(call(call.x), expected, rtol=1e-4, atol=1e-5)


def test_a_mask_of_places_is_not_taken_for_samples(generator: torch.Generator) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x, mask = torch.randn(6, 6, 8, generator=generator), torch.ones(6, 6).triu(1).bool()
    call = _kept(layer, x, src_mask=mask)[""]
    assert not call.varies
    torch.testing.assert_close(call(call.x), layer(x, src_mask=mask)[:4], rtol=1e-4, atol=1e-5)


def test_copies_are_not_changed_by_what_follows() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
    x = -torch.ones(4, 3)
    assert _kept(model, x)[""].x.equal(-torch.ones(4, 3))


def test_calls_under_autocast_are_repeated_in_the_weights_precision() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    watch = MapWatch(dict(model.named_modules()), 4)
    watch.open()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(5, 4))
    watch.close()
    call = watch.calls["1"]
    assert call(call.x).dtype == call.x.dtype == torch.float32


def test_a_forward_in_which_the_hooks_are_opened_is_kept_at_its_end() -> None:
    model = Masked()
    watch = MapWatch({"": model}, 4)
    x, mask = torch.randn(5, 3), torch.arange(5)
    model.register_forward_pre_hook(lambda *_: watch.open())
    watch.open()
    # What a loop's host does: torch calls no hook that is registered within another.
    hook = next(reversed(model._forward_pre_hooks.values()))
    watch.close()
    model.register_forward_pre_hook(lambda module, _: hook(module, (), {}))
    output = model(mask, x=x, table=None)["out"]
    watch.close()
    call = watch.calls[""]
    torch.testing.assert_close(call(call.x), output[:4])
    assert watch.skipped == []


def test_the_last_forward_counts_and_is_let_go() -> None:
    model = nn.Linear(3, 3)
    watch = MapWatch({"": model}, 4)
    watch.open()
    for value in (1.0, 2.0):
        model(torch.full((5, 3), value))
    watch.close()
    model(torch.zeros(5, 3))
    assert watch.calls[""].x.equal(torch.full((4, 3), 2.0))
    kept = weakref.ref(watch.calls[""].x)
    watch.forget()
    gc.collect()
    assert kept() is None


class Odd(nn.Module):
    def forward(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (torch.ones(3, dtype=torch.int64), "without a floating-point tensor"),
        ([torch.ones(3), object()], "without a floating-point tensor"),
        (torch.tensor(1.0), "without a floating-point tensor"),
    ],
)
def test_what_cannot_be_kept_is_named_and_spares_the_forward(given: Any, reason: str) -> None:
    model = Odd()
    watch = MapWatch({"": model}, 4)
    watch.open()
    assert model(given) is given
    watch.close()
    assert watch.calls == {}
    ((name, said),) = watch.skipped
    assert (name, reason in said) == ("", True)


def test_objects_that_are_not_known_are_named() -> None:
    model = Masked()
    watch = MapWatch({"": model}, 4)
    watch.open()
    model(torch.ones(5), x=torch.ones(5, 3), table=object())
    watch.close()
    ((_, said),) = watch.skipped
    assert said == "it is called with an object of class object"


def test_modules_that_take_no_hooks_are_named() -> None:
    model = nn.Linear(2, 2)
    watch = MapWatch({"": model}, 4)
    model.register_forward_pre_hook = None  # type: ignore[method-assign, assignment]
    watch.open()
    watch.close()
    ((_, said),) = watch.skipped
    assert said.startswith("takes no hooks: TypeError")


class Nesting(nn.Module):
    """Returns a nested tensor, whose sizes are no integers."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nested.nested_tensor([x[0], x[1, :2]], layout=torch.jagged)


@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_a_hook_never_ends_a_forward() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Nesting())
    watch = MapWatch({"nested": model[1], "linear": model[0]}, samples=4)
    watch.open()
    model(torch.ones(2, 5, 3))
    watch.close()
    assert "linear" in watch.calls


def test_copies_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST_BYTES", 1000)
    model = nn.Sequential(nn.Tanh(), nn.Tanh(), nn.Tanh())
    watch = MapWatch({str(place): each for place, each in enumerate(model)}, samples=4)
    for _ in range(2):
        watch.open()
        # 4 samples of 25 float32 values: 400 bytes.
        model(torch.ones(9, 25))
        watch.close()
        assert set(watch.calls) == {"0", "1"}
        ((name, reason),) = watch.skipped
        assert name == "2"
        assert "exceed" in reason
        watch.forget()
