"""Every activation function, however it is called: iota is |z·y| of what went in and came out."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.functions import ACTIVATION_MODULES, FUNCTIONS

#: name -> y of z, written out by hand (z float64).
LAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda z: z * (z > 0),
    "relu6": lambda z: (z * (z > 0)).clamp(max=6.0),
    "hardtanh": lambda z: z.clamp(-1.0, 1.0),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "prelu": lambda z: torch.where(z > 0, z, 0.25 * z),
    "elu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "selu": lambda z: (
        1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * (z.exp() - 1))
    ),
    "celu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5)),
    "silu": lambda z: z / (1 + (-z).exp()),
    "mish": lambda z: z * torch.tanh(torch.log1p(z.exp())),
    "hardswish": lambda z: z * (z + 3).clamp(0.0, 6.0) / 6,
    "softsign": lambda z: z / (1 + z.abs()),
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
}
MODULES = {kind: kind.__name__.lower() for kind in ACTIVATION_MODULES}
MODULES[nn.LeakyReLU] = "leaky_relu"
#: Functions that take ``inplace=True``.
INPLACE = (
    *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "silu", "mish"),
    "hardswish",
)


class Calling(nn.Module):
    """Applies one function, as some forward would."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def _watched(model: nn.Module, x: Tensor, limit: int = 1 << 30) -> ActivationWatch:
    watch = ActivationWatch(model, lambda name: True, limit)
    watch.attach()
    watch.open()
    with torch.no_grad():
        model(x)
    watch.detach()
    return watch


def _iota(name: str, z: Tensor) -> Tensor:
    y = LAWS[name](z.double())
    return y if name == "relu" else z.double() * y


def _agree(counts: Tensor, iota: Tensor) -> None:
    """Counts of the same values up to round-off, which may move a value by one code."""
    expected = torch.zeros(1, CODES, dtype=torch.int64)
    count_(iota, expected, 0)
    assert counts.sum() == expected.sum()
    shifted = (counts.cumsum(0) - expected[0].cumsum(0)).abs()
    assert shifted.max() <= 1e-3 * counts.sum()


def _values(generator: torch.Generator) -> Tensor:
    """Pre-activations at which float32 loses no digits: not near 0, not far below."""
    z = (3 * torch.randn(40, 100, generator=generator)).clamp(min=-3.0)
    return torch.where(z.abs() < 0.05, 0.5, z)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", ACTIVATION_MODULES)
def test_modules(kind: type[nn.Module], inplace: bool, generator: torch.Generator) -> None:
    try:
        module = kind(inplace=True) if inplace else kind()
    except TypeError:
        pytest.skip("has no in-place form")
    z = _values(generator)
    watch = _watched(nn.Sequential(nn.Identity(), module), z.clone())
    (stream,) = watch.ledger.streams
    assert (stream.name, stream.variable) == ("1", "y" if kind is nn.ReLU else "z*y")
    assert stream.shape == (100,)
    _agree(watch.ledger.counts[0], _iota(MODULES[kind], z))


def _more(function: Callable[..., Tensor], name: str) -> tuple[Any, ...]:
    """Arguments that a spelling of a function cannot do without."""
    if name == "prelu":
        return (torch.tensor([0.25]),)
    builtin = type(function).__name__ == "builtin_function_or_method"
    return {"hardtanh": (-1.0, 1.0)}.get(name, ()) if builtin else ()


# An identifier of its own: a function's repr has an address, which no two workers share.
@pytest.mark.parametrize(
    ("function", "name"),
    FUNCTIONS.items(),
    ids=[f"{name}-{number}" for number, name in enumerate(FUNCTIONS.values())],
)
def test_functions(function: Callable[..., Tensor], name: str, generator: torch.Generator) -> None:
    z = _values(generator)
    watch = _watched(Calling(lambda x: function(x, *_more(function, name))), z.clone())
    (stream,) = watch.ledger.streams
    assert stream.name == name
    _agree(watch.ledger.counts[0], _iota(name, z))


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS.values())))
def test_no_spelling_is_forgotten(name: str) -> None:
    for namespace in (torch, functional, Tensor):
        for spelling in (name, f"{name}_"):
            if hasattr(namespace, spelling):
                assert FUNCTIONS[getattr(namespace, spelling)] == name


def _calls() -> dict[str, Callable[[Tensor], Tensor]]:
    """Every way to apply an activation: functions, by argument and keyword, methods, modules."""
    calls: dict[str, Callable[[Tensor], Tensor]] = {}
    for number, (function, name) in enumerate(FUNCTIONS.items()):
        more = _more(function, name)
        calls[f"{name} {number}"] = partial(_call, function, more)
    for name in INPLACE:
        calls[f"{name} in place"] = partial(getattr(functional, name), inplace=True)
        calls[f"{name} by keyword"] = partial(_call_by_keyword, getattr(functional, name))
    for kind in ACTIVATION_MODULES:
        calls[f"{MODULES[kind]} module"] = kind()
        if MODULES[kind] in INPLACE:
            calls[f"{MODULES[kind]} module in place"] = kind(inplace=True)
    for name in ("relu", "relu_", "tanh", "tanh_"):
        calls[f"x.{name}()"] = partial(_call_method, name)
    return calls


def _call(function: Callable[..., Tensor], more: tuple[Any, ...], x: Tensor) -> Tensor:
    return function(x, *more)


def _call_by_keyword(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(inplace=True, input=x)


def _call_method(name: str, x: Tensor) -> Tensor:
    return getattr(x, name)()


class Everything(nn.Module):
    """Applies an activation in every way, each in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calling = nn.ModuleList(Calling(call) for call in _calls().values())

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([call(x * 1.0) for call in self.calling]).sum()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.slow
def test_compiled_every_spelling_is_counted_as_in_eager(
    backend: str, generator: torch.Generator
) -> None:
    """By stream, so that the name in a failure tells the spelling."""
    z, names = _values(generator)[:5], list(_calls())
    model = Everything()
    eager = _by_call(names, _watched(model, z))
    assert list(eager) == names
    torch.compiler.reset()
    watch = ActivationWatch(model, lambda name: True, 1 << 30)
    watch.attach()
    watch.open(one_forward=True)
    with torch.no_grad():
        torch.compile(model, backend=backend, fullgraph=True)(z)
    watch.detach()
    compiled = _by_call(names, watch)
    assert list(compiled) == names
    assert [name for name in names if not torch.equal(compiled[name], eager[name])] == []


def _by_call(names: list[str], watch: ActivationWatch) -> dict[str, Tensor]:
    """Counts by spelling; whatever lies in no module of its own by the stream's name."""
    counted = {}
    for stream, counts in zip(watch.ledger.streams, watch.ledger.counts, strict=True):
        head, _, number = stream.name.partition(".")
        name = names[int(number.split(".")[0])] if head == "calling" else stream.name
        counted[name] = counts
    return counted


def test_models_of_traced_code_are_counted(generator: torch.Generator) -> None:
    """Their code is a `torch.fx` graph too, like that of what is compiled, but the model's own."""
    z = _values(generator)
    model = nn.Sequential(nn.ReLU(), Calling(functional.gelu))
    traced = _watched(nn.Sequential(fx.symbolic_trace(model)), z)
    assert [stream.name for stream in traced.ledger.streams] == ["0.0", "0.gelu"]
    assert torch.equal(traced.ledger.counts, _watched(model, z).ledger.counts)


def test_spellings_that_another_torch_may_hide_are_named(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    # This is what an import gives in a version of torch that keeps its list elsewhere.
    monkeypatch.setitem(sys.modules, "torch._dynamo.variables.torch", None)
    model = nn.Sequential(nn.ReLU())
    watch = _watched(model, _values(generator))
    assert not watch.ledger.skipped
    watch.attach()
    monkeypatch.undo()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    watch.open(one_forward=True)
    compiled(_values(generator))
    watch.detach()
    skipped = {name for name, reason in watch.ledger.skipped if "compiled models" in reason}
    assert {"torch.nn.functional.relu_", "torch.nn.functional.hardswish", "torch.tanh_"} <= skipped


@pytest.mark.parametrize("name", ["silu", "relu6", "elu", "mish", "hardswish", "leaky_relu"])
def test_inplace_by_argument_and_by_keyword(name: str, generator: torch.Generator) -> None:
    z = _values(generator)
    function = getattr(functional, name)
    _agree(
        _watched(Calling(lambda x: function(input=x, inplace=True)), z.clone()).ledger.counts[0],
        _iota(name, z),
    )


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda z: z.t(),
    "expanded": lambda z: z[:1].expand(40, 100),
    "every other column": lambda z: z[:, ::2],
    "one row": lambda z: z[0],
    "channels last": lambda z: z.view(1, 10, 20, 20).to(memory_format=torch.channels_last),
    "nothing": lambda z: z[:0],
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("limit", [1 << 30, 700])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_z_and_y_are_of_the_same_place_in_every_layout(
    layout: str, limit: int, inplace: bool, generator: torch.Generator
) -> None:
    z = LAYOUTS[layout](_values(generator))
    if inplace and layout == "expanded":
        pytest.skip("cannot be written in place")
    expected = torch.zeros(1, CODES, dtype=torch.int64)
    count_(z * functional.silu(z), expected, 0, limit)
    call = Calling(lambda x: functional.silu(x, inplace=inplace))
    assert torch.equal(_watched(call, z, limit).ledger.counts, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_products_are_taken_in_single_precision(
    dtype: torch.dtype, generator: torch.Generator
) -> None:
    z = _values(generator).to(dtype)
    counts = _watched(Calling(functional.silu), z).ledger.counts
    expected = torch.zeros(1, CODES, dtype=torch.int64)
    count_(z.float() * functional.silu(z).float(), expected, 0)
    assert torch.equal(counts, expected)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sigmoid(), "sign"),
        (nn.Softplus(), "sign"),
        (nn.GLU(), "gated"),
        (nn.RReLU(), "random"),
        (nn.LSTM(100, 3), "recurrent kernel"),
        (nn.GRUCell(100, 3), "recurrent kernel"),
    ],
)
def test_what_is_not_watched_says_why(
    module: nn.Module, reason: str, generator: torch.Generator
) -> None:
    watch = _watched(nn.Sequential(module), _values(generator))
    assert not watch.ledger.streams
    ((name, said),) = watch.ledger.skipped
    assert name == "0"
    assert reason in said
