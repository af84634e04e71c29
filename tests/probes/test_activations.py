import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.magnitudes import Magnitudes
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.ledger import Ledger, pack_counts
from jaynes_callbacks.recorder import Recorder


class Calling(nn.Module):
    """Applies one way of writing ReLU."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.relu_of_x = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_of_x(x * 1.0)


def _everything(name: str) -> bool:
    return True


def _counted(values: Tensor) -> Tensor:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(values, counts, 0)
    return counts[0]


def _watched(model: nn.Module, x: Tensor, limit: int = 1 << 30) -> ActivationWatch:
    watch = ActivationWatch(model, _everything, limit)
    watch.attach()
    watch.open()
    model(x)
    watch.detach()
    return watch


@pytest.mark.parametrize(
    "relu",
    [
        functional.relu,
        lambda x: functional.relu(x, inplace=True),
        functional.relu_,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
        lambda x: x.relu(),
    ],
)
def test_every_way_to_write_a_relu(
    relu: Callable[[Tensor], Tensor], generator: torch.Generator
) -> None:
    x = torch.randn(50, 8, generator=generator)
    watch = _watched(nn.Sequential(Calling(relu)), x)
    assert [stream.name for stream in watch.ledger.streams] == ["0.relu"]
    assert torch.equal(watch.ledger.counts[0], _counted(x.relu()))


@pytest.mark.parametrize("inplace", [False, True])
def test_modules_go_by_their_own_name(inplace: bool, generator: torch.Generator) -> None:
    x = torch.randn(50, 8, generator=generator)
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(inplace=inplace)))
    watch = _watched(model, x.clone())
    (stream,) = watch.ledger.streams
    assert (stream.kind, stream.name, stream.shape) == ("iota", "1.0", (8,))
    assert torch.equal(watch.ledger.counts[0], _counted(x.relu()))


class Reusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.act(block(x))
        return torch.relu(x - 0.1) + functional.relu(x)


def test_calls_of_one_site_are_numbered_anew_in_every_forward() -> None:
    model = Reusing()
    watch = ActivationWatch(model, _everything, 1 << 30)
    watch.attach()
    for _ in range(3):
        watch.open()
        model(torch.randn(5, 8))
        watch.close()
    assert [stream.name for stream in watch.ledger.streams] == ["act", "act#1", "relu", "relu#1"]
    assert watch.ledger.counts.sum(-1).tolist() == [3 * 5 * 8] * 4
    watch.detach()


def test_nothing_is_counted_while_closed() -> None:
    model = Reusing()
    watch = ActivationWatch(model, _everything, 1 << 30)
    watch.attach()
    model(torch.randn(5, 8))
    assert not watch.ledger.streams
    watch.open()
    watch.close()
    model(torch.randn(5, 8))
    assert not watch.ledger.streams
    watch.detach()


def test_other_models_in_the_same_window_are_named_by_none_of_our_modules() -> None:
    model, other = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())
    watch = ActivationWatch(model, _everything, 1 << 30)
    watch.attach()
    watch.open()
    other(torch.randn(3))
    model(torch.randn(3))
    watch.detach()
    assert [stream.name for stream in watch.ledger.streams] == ["relu", "0"]


def test_the_limit_is_kept() -> None:
    watch = _watched(nn.Sequential(nn.ReLU()), torch.randn(64, 100), limit=500)
    assert 250 < watch.ledger.counts.sum() <= 500


def test_only_admitted_names_take_a_row() -> None:
    watch = ActivationWatch(Reusing(), lambda name: name.startswith("act"), 1 << 30)
    watch.attach()
    watch.open()
    watch.model(torch.randn(5, 8))
    watch.detach()
    assert [stream.name for stream in watch.ledger.streams] == ["act", "act#1"]


def test_more_call_sites_than_rows_are_said_and_spared() -> None:
    class Looping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(200):
                x = torch.relu(x)
            return x

    watch = _watched(Looping(), torch.randn(5))
    assert len(watch.ledger.streams) == 128
    assert watch.ledger.skipped == [("relu#128", "called more than 128 times in one forward")]


def test_taking_keeps_the_streams() -> None:
    watch = _watched(Reusing(), torch.randn(5, 8))
    streams, counts, groups = watch.ledger.take()
    assert [stream.name for stream in streams] == ["act", "act#1", "relu", "relu#1"]
    assert counts.sum((1, 2)).tolist() == [40] * 4
    assert groups == (1, 1, 1, 1)
    assert watch.ledger.counts.sum() == 0
    assert len(watch.ledger.streams) == 4


def test_hooks_are_gone_after_detach_and_after_an_exception() -> None:
    model = Reusing()
    watch = ActivationWatch(model, _everything, 1 << 30)
    watch.attach()
    watch.open()
    with pytest.raises(RuntimeError):
        model(torch.randn(5, 3))
    watch.detach()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert torch.overrides._get_current_function_mode() is None


def test_no_activation_is_kept() -> None:
    kept: list[weakref.ref[Tensor]] = []
    model = nn.Sequential(nn.ReLU())
    model.register_forward_hook(lambda module, args, out: kept.append(weakref.ref(out)))
    _watched(model, torch.randn(5))
    gc.collect()
    assert kept
    assert kept[0]() is None


def _broken(*args: object) -> None:
    raise MemoryError("none left")


def test_a_failure_to_count_is_said_once_a_site_and_spares_the_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jaynes_callbacks.probes.reading.count_", _broken)
    model = Reusing()
    watch = ActivationWatch(model, _everything, 1 << 30)
    watch.attach()
    with pytest.warns(UserWarning, match="no longer recorded.*MemoryError: none left") as said:
        out = _run_twice(watch, model, torch.randn(5, 8))
    watch.detach()
    assert out.shape == (5, 8)
    assert [str(each.message).split("'")[1] for each in said] == ["act", "relu"]
    assert [name for name, _ in watch.ledger.skipped] == ["act", "act#1", "relu", "relu#1"]


class Mixed(nn.Module):
    """Of three sites, one is a ReLU, one is in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.silu = nn.GELU(), nn.ReLU(), nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.silu(self.relu(self.first(x)) - 0.5)


def _broken_for_silu(function: Callable[..., Tensor], args: Any, kwargs: Any) -> bool:
    if function is functional.silu:
        raise MemoryError("none left")
    return False


def _broken_for_first(name: str) -> bool:
    if name == "first":
        raise MemoryError("none left")
    return True


#: Before the function is applied, after it, and when the stream is given its row.
FAILURES: dict[str, dict[str, Callable[..., Any]]] = {
    "silu": {"activations.writes_in_place": _broken_for_silu},
    "relu": {"reading.count_": _broken},
    "first": {},
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("site", FAILURES)
@pytest.mark.sampled(3)
def test_a_site_that_fails_costs_only_its_own_stream(
    site: str, compiled: bool, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    x = torch.randn(50, 8, generator=generator)
    model = Mixed()
    whole = _watched(model, x)
    for name, broken in FAILURES[site].items():
        monkeypatch.setattr(f"jaynes_callbacks.probes.{name}", broken)
    admits = _everything if FAILURES[site] else _broken_for_first
    watch = ActivationWatch(model, admits, 1 << 30)
    watch.attach()
    torch.compiler.reset()
    run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    with pytest.warns(UserWarning, match=f"activation '{site}' is no longer recorded") as said:
        _run_twice(watch, run, x)
    watch.detach()
    assert len(said) == 1
    ((name, reason),) = watch.ledger.skipped
    assert name == site
    assert reason.startswith("counting failed with MemoryError")
    others = [row for row, stream in enumerate(whole.ledger.streams) if stream.name != site]
    names = [whole.ledger.streams[row].name for row in others]
    assert [stream.name for stream in watch.ledger.streams] == names
    assert torch.equal(watch.ledger.counts, 2 * whole.ledger.counts[others])


def _run_twice(watch: ActivationWatch, model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    for _ in range(2):
        watch.open(one_forward=True)
        out = model(x)
        watch.close()
    return out


def _ledger(recorder: Recorder) -> Ledger:
    magnitudes = recorder.instruments["magnitudes"]
    assert isinstance(magnitudes, Magnitudes)
    return magnitudes._ledger


def test_what_was_counted_before_a_failure_enters_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Mixed()
    recorder = Recorder(model, kinds="iota")
    with recorder:
        model(torch.randn(50, 8))
        assert [stream.name for stream in recorder.streams] == ["first", "relu", "silu"]
        monkeypatch.setattr("jaynes_callbacks.probes.reading.count_", _broken)
        with pytest.warns(UserWarning, match="activation 'relu' is no longer recorded"):
            model(torch.randn(50, 8))
        monkeypatch.undo()
        for step in range(2):
            model(torch.randn(50, 8))
            assert [record.name for record in recorder.snapshot(step)] == ["first", "silu"]
        assert pack_counts(_ledger(recorder))[1]["name"] == "silu"
    assert ("relu", "counting failed with MemoryError: none left") in recorder.coverage.skipped
    assert [stream.name for stream in recorder.coverage.watched] == ["first", "silu"]


@pytest.mark.parametrize("groups", [1, 4])
def test_streams_that_wait_for_a_row_have_counted_nothing(groups: int) -> None:
    ledger = Ledger(_everything, groups)
    ledger.reserve(1, torch.device("cpu"))
    for name in ("first", "second"):
        ledger.row(name, (), "y")
    ledger.table[0, 7] = 3
    assert ledger.counts.sum(-1).tolist() == [3, 0]
    assert ledger.grouped.shape == (2, groups, CODES)


class Residual(nn.Module):
    """A ResNet's basic block: one in-place module, applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + x)


def test_residual_blocks_in_channels_last(generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 6, 6, generator=generator)
    model = nn.Sequential(Residual(), Residual()).to(memory_format=torch.channels_last)
    expected = [Residual.forward(model[0], x)]
    expected.append(Residual.forward(model[1], expected[0].clone()))
    watch = _watched(model, x)
    names = [stream.name for stream in watch.ledger.streams]
    assert names == ["0.relu", "0.relu#1", "1.relu", "1.relu#1"]
    assert [stream.shape for stream in watch.ledger.streams] == [(4, 6, 6)] * 4
    for row, out in zip((1, 3), expected, strict=True):
        assert torch.equal(watch.ledger.counts[row], _counted(out))


class Choosing(nn.Module):
    """Takes its activation from a list, by what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.choices = nn.ModuleDict({"pos": nn.Sequential(nn.GELU()), "neg": nn.Tanh()})
        self.hidden = [nn.SiLU()]  # no submodule as far as PyTorch knows

    def forward(self, x: Tensor) -> Tensor:
        x = self.choices["pos" if x.sum() > 0 else "neg"](x)
        return self.hidden[0](x)


def test_branches_and_modules_held_in_a_plain_list() -> None:
    model = nn.Sequential(Choosing())
    watch = ActivationWatch(model, _everything, 1 << 30)
    watch.attach()
    for sign in (1, -1, -1):
        watch.open()
        model(sign * torch.ones(5, 8))
        watch.close()
    watch.detach()
    names = [stream.name for stream in watch.ledger.streams]
    assert names == ["0.choices.pos.0", "0.silu", "0.choices.neg"]
    assert watch.ledger.counts.sum(-1).tolist() == [40, 120, 80]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_encoder_layer_s_fused_path_hides_nothing(activation: str, training: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation=activation, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    with torch.no_grad():
        watch = _watched(model, torch.randn(3, 5, 16))
    names = [stream.name for stream in watch.ledger.streams]
    assert names == [f"layers.0.{activation}", f"layers.1.{activation}"]
    assert watch.ledger.counts.sum(-1).tolist() == [3 * 5 * 32] * 2


class Deep(nn.Module):
    """Nested, reused, in-place and functional activations."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), Reusing()) for _ in range(3))
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = functional.silu(self.last(x + 1).relu() - 0.5, inplace=True)
        return functional.gelu(x).tanh() + functional.leaky_relu(x)


@pytest.mark.parametrize("compiled_first", [False, True])
@pytest.mark.sampled(2)
def test_compiled_models_give_the_same_counts(
    compiled_first: bool, generator: torch.Generator
) -> None:
    x = torch.randn(50, 8, generator=generator)
    model = Deep()
    eager = _watched(model, x, limit=300)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    if compiled_first:
        compiled(x)
    watch = ActivationWatch(model, _everything, 300)
    watch.attach()
    for _ in range(4):
        watch.open(one_forward=True)
        compiled(x)
        watch.close()
        compiled(x)
    watch.detach()
    assert [s.name for s in watch.ledger.streams] == [s.name for s in eager.ledger.streams]
    assert len(watch.ledger.streams) == 18
    assert torch.equal(watch.ledger.counts, 4 * eager.ledger.counts)
    # One graph with the watch, one without.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
