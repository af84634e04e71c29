"""Modules that are activations as a whole: by the name of their class, or by the user's word."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.modules import Activations, chosen_activations
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.recorder import Recorder


class _Written(nn.Module):
    """An activation that is written out by hand."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.call(input)


def _tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x.pow(3.0))))


def _fast_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


#: What the classes of transformers and timm compute, by the names of the classes.
KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "NewGELUActivation": _tanh_gelu,
    "FastGELUActivation": _fast_gelu,
    "AccurateGELUActivation": _tanh_gelu,
    "QuickGELUActivation": lambda x: x * torch.sigmoid(1.702 * x),
    "QuickGELU": lambda x: x * torch.sigmoid(1.702 * x),
    "GELUActivation": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "GELUTanh": lambda x: functional.gelu(x, approximate="tanh"),
    "ClippedGELUActivation": lambda x: torch.clip(functional.gelu(x), -10, 10),
    "SiLUActivation": lambda x: x * torch.sigmoid(x),
    "MishActivation": lambda x: x * torch.tanh(functional.softplus(x)),
    "HardSwish": lambda x: x * functional.relu6(x + 3) / 6,
    "ReLUSquaredActivation": lambda x: torch.square(functional.relu(x)),
}


def _known(name: str) -> nn.Module:
    """Make a module whose class bears this name, as a library would."""
    kind = type(name, (_Written,), {})
    module = kind(KNOWN[name])
    assert isinstance(module, nn.Module)
    return module


class Block(nn.Module):
    """A layer, and its activation under the usual name."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(16, 16), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x))


def _watched(
    model: nn.Module, x: Tensor, activations: Activations = (), *, compiled: bool = False
) -> ActivationWatch:
    watch = ActivationWatch(model, lambda name: True, 1 << 30, activations=activations)
    watch.attach()
    run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    watch.open(one_forward=True)
    run(x)
    watch.detach()
    return watch


def _counted(iota: Tensor) -> Tensor:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(iota, counts, 0)
    return counts[0]


@pytest.mark.parametrize("name", KNOWN)
def test_known_classes_are_one_stream_of_their_input_and_output(
    name: str, generator: torch.Generator
) -> None:
    x = torch.randn(64, 16, generator=generator)
    model = Block(_known(name))
    watch = _watched(model, x)
    (stream,) = watch.ledger.streams
    assert (stream.name, stream.variable, stream.shape) == ("act", "z*y", (16,))
    z = model.fc(x)
    assert torch.equal(watch.ledger.counts[0], _counted(z * KNOWN[name](z)))
    assert not watch.ledger.skipped


@pytest.mark.slow
def test_compiled_they_give_the_same_counts(generator: torch.Generator) -> None:
    x = torch.randn(64, 16, generator=generator)
    model = nn.Sequential(*(Block(_known(name)) for name in KNOWN), Block(_Capped()))
    eager = _watched(model, x)
    torch.compiler.reset()
    compiled = _watched(model, x, compiled=True)
    assert len(eager.ledger.streams) == len(KNOWN)
    assert compiled.ledger.skipped == eager.ledger.skipped
    assert [s.name for s in compiled.ledger.streams] == [s.name for s in eager.ledger.streams]
    assert torch.equal(compiled.ledger.counts, eager.ledger.counts)


def test_known_classes_with_parameters_are_containers() -> None:
    act = _known("QuickGELU")
    act.register_parameter("slope", nn.Parameter(torch.ones(())))
    watch = _watched(Block(act), torch.randn(5, 16))
    assert not watch.ledger.streams
    ((name, reason),) = watch.ledger.skipped
    assert name == "act.sigmoid"
    assert "sign" in reason


def _in_place(x: Tensor) -> Tensor:
    return x.mul_(torch.sigmoid(x))


@pytest.mark.parametrize("call", [_in_place, lambda x: x * x.sigmoid()])
@pytest.mark.parametrize("chosen", ["*.act", ["*.act"], {"*.act": "z*y"}, {"*.act": "silu"}])
def test_modules_of_the_users_choice_are_one_stream(
    chosen: object, call: Callable[[Tensor], Tensor], generator: torch.Generator
) -> None:
    x = torch.randn(64, 16, generator=generator)
    model = nn.Sequential(Block(_Written(call)))
    activations = chosen_activations(chosen)  # type: ignore[arg-type]
    watch = _watched(model, x, activations)
    assert [stream.name for stream in watch.ledger.streams] == ["0.act"]
    z = model[0].fc(x)
    assert torch.equal(watch.ledger.counts[0], _counted(z * functional.silu(z)))
    assert watch.ledger.skipped == []


def test_output_alone_and_modules_left_out(generator: torch.Generator) -> None:
    x = torch.randn(64, 16, generator=generator)
    model = nn.Sequential(
        Block(_Written(lambda x: functional.relu(x).square())), Block(_Written(torch.tanh))
    )
    watch = _watched(model, x, chosen_activations({"0.act": "relu", "1.act": None}))
    (stream,) = watch.ledger.streams
    assert (stream.name, stream.variable) == ("0.act", "y")
    assert torch.equal(watch.ledger.counts[0], _counted(model[0](x)))
    assert watch.ledger.skipped == [("1.act", "left out by activations=...")]


class Twofold(nn.Module):
    """Calls one activation twice, once by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.act = _known("NewGELUActivation")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x) + self.act(input=2 * x)


def test_calls_are_numbered_and_arguments_may_be_named() -> None:
    watch = _watched(Twofold(), torch.randn(8, 16))
    assert [stream.name for stream in watch.ledger.streams] == ["act", "act#1"]


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x[..., ::2])


def test_what_does_not_keep_the_shape_is_no_activation() -> None:
    watch = _watched(Block(Halving()), torch.randn(8, 16), chosen_activations("act"))
    assert not watch.ledger.streams
    ((name, reason),) = watch.ledger.skipped
    assert name == "act"
    assert "same shape" in reason


def test_the_model_itself_may_be_the_activation() -> None:
    watch = _watched(_known("QuickGELU"), torch.randn(8, 16))
    assert [stream.name for stream in watch.ledger.streams] == ["QuickGELU"]


@pytest.mark.parametrize("chosen", [{"act": "gelo"}, {"act": 1}, {"act": ""}])
def test_unknown_iotas_are_refused(chosen: object) -> None:
    with pytest.raises(ValueError, match=r"activations\['act'\] must be 'z\*y'.*gelu.*got"):
        Selection.of("iota", "*", (), 1, chosen)  # type: ignore[arg-type]


def test_patterns_of_activations_must_be_strings() -> None:
    with pytest.raises(TypeError, match="patterns of activations must be strings, got 3"):
        Selection.of("iota", "*", (), 1, [3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("*.atc", r"pattern '\*\.atc' matches no module; names look like"),
        ("*", "matches 'the model itself', which has parameters"),
        ("*.fc", "matches '0.fc', which has parameters"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recorder(nn.Sequential(Block(_Capped())), activations=pattern).attach()


def test_a_recorder_hands_the_choice_to_all_that_listen() -> None:
    model = nn.Sequential(Block(_Written(lambda x: x * torch.sigmoid(x))))
    names = ["magnitudes", "neurons"]
    with Recorder(model, instruments=names, kinds="iota", activations="*.act") as recorder:
        model(torch.randn(64, 16))
        records = recorder.record(step=1)
    assert [records[name]["name"].tolist() for name in names] == [["0.act"], ["0.act"]]


# Functions that are part of something larger ------------------------------------------------------


class _Capped(nn.Module):
    def __init__(self, cap: float | Tensor = 30.0) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        return self.cap * torch.tanh(x / self.cap)


def _gemma(x: Tensor) -> Tensor:
    x = x / 30.0
    x = torch.tanh(x)
    return x * 30.0


CAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "at once": _Capped(),
    "step by step": _gemma,
    "by a tensor": _Capped(torch.tensor(50.0)),
    "in place": lambda x: (x * 1).div_(7.0).tanh_().mul_(7.0),
    "functions": lambda x: torch.mul(torch.tanh(torch.div(x, 15)), 15),
    "by the reciprocal": lambda x: (x * (1 / 30)).tanh() * 30,
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("spelling", CAPS)
@pytest.mark.sampled(4)
def test_soft_caps_are_left_out_with_the_reason(spelling: str, compiled: bool) -> None:
    torch.compiler.reset()
    model = nn.Sequential(_Written(CAPS[spelling]), nn.Tanh())
    watch = _watched(model, torch.randn(8, 16), compiled=compiled)
    assert [stream.name for stream in watch.ledger.streams] == ["1"]
    ((name, reason),) = watch.ledger.skipped
    assert name.endswith("tanh")
    assert reason.startswith("soft cap")


#: A tanh that is a neuron's, with arithmetic around it.
NEURONS: dict[str, Callable[[Tensor], Tensor]] = {
    "scaled before": lambda x: torch.tanh(x / 4.0),
    "scaled after": lambda x: 4.0 * torch.tanh(x),
    "LeCun's": lambda x: 1.7159 * torch.tanh(2 / 3 * x),
    "by one": lambda x: torch.tanh(x / 1.0) * 1.0,
    "something between": lambda x: torch.tanh((x / 4.0).neg()) * 4.0,
    "by another tensor": lambda x: torch.tanh(x / torch.tensor(4.0)) * torch.tensor(4.0),
    "gated": lambda x: torch.tanh(x) * torch.sigmoid(x),
    "with a bias": lambda x: torch.tanh(x) + 0.5,
}


@pytest.mark.parametrize("spelling", NEURONS)
def test_other_arithmetic_leaves_a_tanh_the_neuron_that_it_is(spelling: str) -> None:
    watch = _watched(_Written(NEURONS[spelling]), torch.randn(8, 16))
    assert [stream.name for stream in watch.ledger.streams] == ["tanh"]


def test_the_tanh_of_a_written_out_function_is_no_neuron() -> None:
    """No module is there to be read instead, so the coverage says what was seen."""
    watch = _watched(nn.Sequential(_Written(_tanh_gelu)), torch.randn(8, 16))
    assert not watch.ledger.streams
    ((name, reason),) = watch.ledger.skipped
    assert name == "0.tanh"
    assert "activations=" in reason


def test_soft_caps_enter_no_record() -> None:
    model = nn.Sequential(Block(_Capped(2.0)), Block(nn.Tanh()))
    with Recorder(model, kinds="iota") as recorder:
        for step in range(2):
            model(torch.randn(64, 16))
            assert [record.name for record in recorder.snapshot(step)] == ["1.act"]
    assert [name for name, _ in recorder.coverage.skipped] == ["0.act.tanh"]


@pytest.mark.parametrize(
    "call",
    [torch.sigmoid, Tensor.sigmoid, functional.softplus, functional.glu, functional.hardsigmoid],
)
def test_functions_that_are_seen_and_not_recorded_are_named(
    call: Callable[[Tensor], Tensor],
) -> None:
    watch = _watched(nn.Sequential(_Written(call)), torch.randn(8, 16))
    assert not watch.ledger.streams
    assert [name for name, _ in watch.ledger.skipped] == [f"0.{call.__name__}"]


def test_activations_of_transformers() -> None:
    library = pytest.importorskip("transformers.activations")
    x = torch.randn(64, 16)
    for name, made in library.ACT2FN.items():
        act = made if isinstance(made, nn.Module) else library.get_activation(name)
        streams = _watched(Block(act), x).ledger.streams
        assert {stream.name for stream in streams} <= {"act"}, name
        if "gelu" in name or name in ("silu", "swish", "mish", "relu", "relu2", "tanh"):
            assert len(streams) == 1, name
