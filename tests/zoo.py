"""Models of every kind that people train, and some that nobody should: each with its input.

A specimen is a function that makes a model and an input, seeded by its caller; the loss is the mean
square of all floating-point outputs.
"""

import enum
import math
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

__all__ = ["ZOO", "Specimen"]

Specimen = Callable[[], tuple[nn.Module, Any]]


def _mlp(*activations: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(16, 16)]
    for act in activations or (nn.ReLU(),):
        layers += [act, nn.Linear(16, 16)]
    return nn.Sequential(*layers)


def _x(*shape: int) -> Tensor:
    return torch.randn(*(shape or (4, 16)))


class Calls(nn.Module):
    """Applies a function between two layers."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(16, 16), nn.Linear(16, 16), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def _calling(function: Callable[..., Any]) -> Specimen:
    return lambda: (Calls(function), _x())


def _of(make: Callable[[], nn.Module], *shape: int) -> Specimen:
    return lambda: (make(), _x(*shape))


# Activations --------------------------------------------------------------------------------------

_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU),
    *(nn.SiLU, nn.Mish, nn.Hardswish, nn.Softsign, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid),
    *(nn.LogSigmoid, nn.Softplus, nn.RReLU, nn.Tanhshrink, nn.Hardshrink, nn.Identity),
)
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu_": lambda x: (x * 1).relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "tanh gelu": lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3))),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "soft cap": lambda x: 30 * torch.tanh(x / 30),
    "soft cap in place": lambda x: (x * 1).div_(5).tanh_().mul(5),
    "swiglu": lambda x: functional.silu(x) * x.flip(-1),
    "glu": lambda x: functional.glu(torch.cat([x, x], -1)),
    "out argument": lambda x: torch.tanh(x.detach(), out=torch.empty_like(x)) + x,
    "complex tanh": lambda x: torch.tanh(torch.complex(x, x)).real,
    "double inside": lambda x: functional.gelu(x.double()).float(),
    "half inside": lambda x: functional.silu(x.half()).float(),
    "bfloat16 inside": lambda x: functional.silu(x.bfloat16()).float(),
    "float8 inside": lambda x: x + x.to(torch.float8_e4m3fn).float().relu(),
    "integer relu": lambda x: x + (x * 3).int().relu(),
    "empty": lambda x: torch.cat([x, functional.gelu(x[:0])]),
    "scalar": lambda x: x * functional.silu(x.mean()),
    "meta": lambda x: x + functional.gelu(torch.empty(3, device="meta")).numel(),
    "sparse relu": lambda x: x + torch.relu(x.detach().to_sparse()).to_dense(),
    "nested": lambda x: x + functional.gelu(_nested(x)).to_padded_tensor(0.0)[0, :1],
    "nested jagged": lambda x: x + functional.gelu(_nested(x, torch.jagged)).values().sum(),
    "vmap": lambda x: torch.vmap(functional.gelu)(x),
    "functional grad": lambda x: x + torch.func.grad(lambda t: t.relu().sum())(x.detach()),
    "jvp": lambda x: torch.func.jvp(functional.silu, (x,), (x,))[1],
    "checkpoint": lambda x: checkpoint(functional.gelu, x, use_reentrant=False),
    "reentrant checkpoint": lambda x: checkpoint(functional.gelu, x, use_reentrant=True),
    "no grad": lambda x: x + _without_grad(functional.gelu, x),
    "inference": lambda x: x + _inferred(functional.gelu, x),
    "two hundred calls": lambda x: _repeat(functional.silu, x, 200),
    "autocast": lambda x: _autocast(functional.gelu, x),
    "expanded": lambda x: functional.silu(x[:1].expand(4, 16)),
    "transposed": lambda x: functional.silu(x.t()).t(),
    "keyword": lambda x: functional.relu(input=x, inplace=False),
}


def _nested(x: Tensor, layout: torch.layout = torch.strided) -> Tensor:
    parts = [x.detach()[:2], x.detach()[:3]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(parts, layout=layout)


def _without_grad(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return function(x)


def _inferred(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    with torch.inference_mode():
        return float(function(x).mean())


def _autocast(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return function(x @ x.t() @ x).float()


def _repeat(function: Callable[[Tensor], Tensor], x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = function(x)
    return x


# Layers and whole networks ------------------------------------------------------------------------


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Recurs(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.core = kind(16, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)[0]


class Cells(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(3):
            state = self.cell(x, state)
        return state[0] if isinstance(state, tuple) else state


class Embeds(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(40, 16, **options), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.table(x).relu())


def _convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))


_LAYERS: dict[str, Specimen] = {
    "convolution": _of(_convolution, 2, 3, 8, 8),
    "channels last": lambda: (
        _convolution().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        _x(2, 3, 8, 8).to(memory_format=torch.channels_last),
    ),
    "one-dimensional convolution": _of(
        lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.GELU()), 2, 3, 9
    ),
    "transposed convolution": _of(
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.SiLU()), 2, 3, 8, 8
    ),
    "attention": _of(Attends, 2, 5, 16),
    "LSTM": _of(lambda: Recurs(nn.LSTM), 2, 5, 16),
    "GRU": _of(lambda: Recurs(nn.GRU), 2, 5, 16),
    "RNN": _of(lambda: Recurs(nn.RNN), 2, 5, 16),
    "LSTM cell": _of(lambda: Cells(nn.LSTMCell(16, 16))),
    "GRU cell": _of(lambda: Cells(nn.GRUCell(16, 16))),
    "embedding": lambda: (Embeds(), torch.randint(40, (4, 3))),
    "sparse embedding": lambda: (Embeds(sparse=True), torch.randint(40, (4, 3))),
    "embedding with a bound": lambda: (Embeds(max_norm=1.0), torch.randint(40, (4, 3))),
    "layer norm": _of(lambda: _mlp(nn.LayerNorm(16))),
    "dropout": _of(lambda: _mlp(nn.Dropout(0.5), nn.ReLU())),
    "lazy": _of(lambda: nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(16))),
    "bilinear": lambda: (Pair(), _x()),
    "double": lambda: (_mlp().double(), _x().double()),
    "bfloat16": lambda: (_mlp().bfloat16(), _x().bfloat16()),
    "half": lambda: (_mlp().half(), _x().half()),
    "complex": lambda: (nn.Linear(16, 16, dtype=torch.complex64), _x().to(torch.complex64)),
    "tiny": _of(lambda: nn.Sequential(nn.Linear(1, 1), nn.ReLU()), 4, 1),
    "no parameters but one": _of(lambda: nn.PReLU()),
    "empty parameter": _of(lambda: _with(nothing=nn.Parameter(torch.zeros(0, 5)))),
    "scalar parameter": _of(lambda: _with(one=nn.Parameter(torch.ones(())))),
    "integer parameter": _of(
        lambda: _with(table=nn.Parameter(torch.zeros(9, 9, dtype=torch.int8), requires_grad=False))
    ),
    "boolean parameter": _of(
        lambda: _with(mask=nn.Parameter(torch.ones(9, 9, dtype=torch.bool), requires_grad=False))
    ),
    "float8 parameter": _of(lambda: _with(low=_stored(torch.float8_e4m3fn))),
    "float8 scales": _of(lambda: _with(low=_stored(torch.float8_e8m0fnu))),
    "float4 parameter": _of(lambda: _with(low=_stored(torch.float4_e2m1fn_x2))),
    "four-bit integers": _of(lambda: _with(low=_stored(torch.uint4))),
    "meta parameter": _of(
        lambda: _with(far=nn.Parameter(torch.empty(9, 9, device="meta"), requires_grad=False))
    ),
    "sparse parameter": _of(
        lambda: _with(few=nn.Parameter(torch.eye(9).to_sparse(), requires_grad=False))
    ),
    "infinite": _of(lambda: _filled(math.inf)),
    "not a number": _of(lambda: _filled(math.nan)),
    "zero": _of(lambda: _filled(0.0)),
    "denormal": _of(lambda: _filled(1e-42)),
    "six dimensions": _of(lambda: _with(deep=nn.Parameter(torch.randn(2, 2, 2, 2, 2, 3)))),
    "expanded parameter": _of(
        lambda: _with(wide=nn.Parameter(torch.randn(1, 9).expand(9, 9), requires_grad=False))
    ),
    "frozen": _of(lambda: nn.Sequential(nn.Linear(16, 16).requires_grad_(False), _mlp())),
    "tied": _of(lambda: _tied()),
    "shared module": _of(lambda: _shared()),
}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Bilinear(16, 16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return functional.celu(self.form(x, x))


def _with(**parameters: nn.Parameter) -> nn.Module:
    net = _mlp()
    for name, parameter in parameters.items():
        net.register_parameter(name, parameter)
    return net


def _stored(dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.zeros(9, 9, dtype=torch.uint8).view(dtype), requires_grad=False)


def _filled(value: float) -> nn.Module:
    net = _mlp()
    nn.init.constant_(net[0].weight, value)  # type: ignore[arg-type]
    return net


def _tied() -> nn.Module:
    net = _mlp()
    net[2].weight = net[0].weight
    return net


def _shared() -> nn.Module:
    layer, act = nn.Linear(16, 16), nn.GELU()
    return nn.Sequential(layer, act, layer, act)


# Weights that modules compute ---------------------------------------------------------------------


class Scales(nn.Module):
    """A parametrization that does something besides multiplying by 0.9."""

    def __init__(self, act: Callable[["Scales"], float] = lambda self: 1.0) -> None:
        super().__init__()
        self.act, self.calls, self.factors = act, 0, [1.0]
        self.register_buffer("seen", torch.zeros(()))
        self.last = torch.zeros(())
        self.source = torch.Generator().manual_seed(3)

    def forward(self, weight: Tensor) -> Tensor:
        return 0.9 * self.act(self) * weight


def _counts(self: Scales) -> float:
    self.calls += 1
    return 1 / self.calls


def _appends(self: Scales) -> float:
    self.factors.append(self.factors[-1] * 0.99)
    return self.factors[-1]


def _fills_buffer(self: Scales) -> float:
    self.seen += 1
    return float(1 / self.seen)


def _fills_tensor(self: Scales) -> float:
    self.last += 1
    return float(1 / self.last)


def _only_in_training(self: Scales) -> float:
    if not self.training:
        raise RuntimeError("has no weight outside of training")
    return 1.0


class Remembers(nn.Module):
    """Keeps the last weight, which is part of a graph."""

    def forward(self, weight: Tensor) -> Tensor:
        self.last = weight * 0.5
        return self.last


class Uncopyable(Scales):
    """Has a state that cannot be copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("one of a kind")


def _parametrized(*parts: nn.Module) -> Specimen:
    def make() -> tuple[nn.Module, Any]:
        net = _mlp()
        for part in parts:
            parametrize.register_parametrization(net[0], "weight", part, unsafe=True)
        return net, _x()

    return make


def _changed(change: Callable[[nn.Module], Any]) -> Specimen:
    def make() -> tuple[nn.Module, Any]:
        net = _mlp()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(net[0])
        return net, _x()

    return make


_COMPUTED: dict[str, Callable[[], Specimen]] = {
    "plain parametrization": lambda: _parametrized(Scales()),
    "counts its calls": lambda: _parametrized(Scales(_counts)),
    "appends to a list": lambda: _parametrized(Scales(_appends)),
    "fills a buffer": lambda: _parametrized(Scales(_fills_buffer)),
    "fills a tensor": lambda: _parametrized(Scales(_fills_tensor)),
    "draws from torch": lambda: _parametrized(Scales(lambda self: float(torch.rand(())))),
    "draws from numpy": lambda: _parametrized(Scales(lambda self: np.random.rand())),  # noqa: NPY002
    "draws from Python": lambda: _parametrized(Scales(lambda self: random.random())),
    "draws from its own source": lambda: _parametrized(
        Scales(lambda self: float(torch.rand((), generator=self.source)))
    ),
    "raises outside of training": lambda: _parametrized(Scales(_only_in_training)),
    "remembers a weight": lambda: _parametrized(Remembers()),
    "cannot be copied": lambda: _parametrized(Uncopyable(_counts)),
    "two at once": lambda: _parametrized(Scales(_counts), Scales(_appends)),
    "weight norm": lambda: _changed(parametrizations.weight_norm),
    "spectral norm": lambda: _changed(parametrizations.spectral_norm),
    "orthogonal": lambda: _changed(parametrizations.orthogonal),
    "older weight norm": lambda: _changed(torch.nn.utils.weight_norm),
    "older spectral norm": lambda: _changed(torch.nn.utils.spectral_norm),
    "pruned": lambda: _changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "pruned by rows": lambda: _changed(
        lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, 0)
    ),
}


# Modules with a will of their own -----------------------------------------------------------------


class Refuses(nn.Module):
    """Has a `__getattr__` that raises no AttributeError."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _mlp()

    def __getattr__(self, name: str) -> Any:
        parts = self.__dict__.get("_modules", {})
        if name in parts:
            return parts[name]
        raise RuntimeError(f"there is no {name} here")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Answers(Refuses):
    """Has every attribute that it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return self.__dict__.get("_modules", {}).get(name, lambda *args: None)


class TakesNoHooks(nn.GELU):
    """Cannot be watched."""

    def register_forward_pre_hook(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("this module takes no hooks")


class Nests(nn.Module):
    """Calls another of its kind, as deep as it is told."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Nests(depth - 1) if depth else _mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class CallsItself(nn.Module):
    """Calls itself, as deep as it is told."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth, self.inner = depth, _mlp()

    def forward(self, x: Tensor, depth: int | None = None) -> Tensor:
        depth = self.depth if depth is None else depth
        return torch.relu(self(x, depth - 1)) if depth else self.inner(x)


class PicklesItself(nn.Module):
    """Is pickled and copied amid its forward; the copy must not be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _mlp()

    def forward(self, x: Tensor) -> Tensor:
        copy = pickle.loads(pickle.dumps(self.inner))
        return self.inner(x) + copy(x.detach())


class Catches(nn.Module):
    """Goes on after an exception in a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.bad, self.good = _mlp(nn.GELU()), _mlp(nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.bad(x[:, :3])
        except RuntimeError:
            return self.good(x)


class Grows(nn.Module):
    """Has a new layer at every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16)])

    def forward(self, x: Tensor) -> Tensor:
        self.layers.append(nn.GELU())
        for layer in self.layers:
            x = layer(x)
        return x


class Exchanges(nn.Module):
    """Puts another parameter in the place of its weight at every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight = nn.Parameter(self.layer.weight.detach() * 0.9)
        return self.last(self.layer(x).tanh())


class Hooked(nn.Module):
    """Has hooks of its own, one of which changes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _mlp(nn.GELU())
        self.inner[1].register_forward_hook(lambda module, args, out: 2 * out)
        self.inner[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        self.inner.register_full_backward_hook(lambda module, before, after: None)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Returns(nn.Module):
    """Returns and takes something that is no tensor."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.wrap = _mlp(nn.Tanh()), wrap

    def forward(self, x: Tensor, **ignored: Any) -> Any:
        return self.wrap(self.inner(x))


class Subclass(torch.Tensor):
    """A tensor of one's own class."""


class Loud(torch.Tensor):
    """A tensor that handles torch's functions itself, and fails at most of our questions."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.is_floating_point, Tensor.dim, Tensor.detach):
            raise NotImplementedError(f"a {cls.__name__} has no {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs or {})


class Color(enum.Enum):
    RED = 1


def _named(name: str) -> nn.Module:
    """Make a network with a part of an odd name."""
    net = _mlp()
    net.add_module(name, nn.Linear(16, 16))
    return net


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(_mlp()), _mlp(nn.GELU()))


def _traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.trace(_mlp(), torch.zeros(4, 16)), _mlp(nn.GELU()))


def _known(name: str) -> nn.Module:
    """Make an activation of a class that is known by its name."""
    kind = type(name, (Calls,), {"forward": lambda self, x: x * torch.sigmoid(x)})
    act: nn.Module = kind(torch.sigmoid)
    for part in ("first", "last"):
        delattr(act, part)
    return act


_ODD: dict[str, Specimen] = {
    "refuses attributes": _of(Refuses),
    "has every attribute": _of(Answers),
    "refuses hooks": _of(lambda: _mlp(TakesNoHooks(), nn.SiLU())),
    "two hundred deep": _of(lambda: Nests(200)),
    "calls itself two hundred times": _of(lambda: CallsItself(200)),
    "pickles itself": _of(PicklesItself),
    "catches exceptions": _of(Catches),
    "grows": _of(Grows),
    "exchanges parameters": _of(Exchanges),
    "hooks of its own": _of(Hooked),
    "scripted": _of(_scripted),
    "traced": _of(_traced),
    "symbolically traced": _of(lambda: torch.fx.symbolic_trace(_mlp(nn.GELU()))),
    "known by name": _of(lambda: _mlp(_known("QuickGELU"))),
    "known by name, with parameters": _of(lambda: _mlp(type("GELU", (nn.Linear,), {})(16, 16))),
    "known by name, another shape": _of(
        lambda: nn.Sequential(nn.Linear(16, 16), type("Swish", (nn.Flatten,), {})(0))
    ),
    "returns a tuple": _of(lambda: Returns(lambda y: (y, None, Color.RED))),
    "returns a mapping": _of(lambda: Returns(lambda y: {"loss": y, "name": "x"})),
    "subclass of tensor": lambda: (_mlp(nn.GELU()), _x().as_subclass(Subclass)),
    "loud subclass of tensor": lambda: (_mlp(nn.GELU()), _x().as_subclass(Loud)),
    "model is one activation": _of(lambda: nn.PReLU(16)),
    "module list": _of(lambda: Calls(nn.ModuleList([nn.ReLU()])[0])),
    "parameter list": _of(lambda: Holds(nn.ParameterList([torch.randn(16, 16)]))),
    "data parallel": _of(lambda: nn.DataParallel(_mlp())),
    "averaged": _of(lambda: torch.optim.swa_utils.AveragedModel(_mlp()).module),
    "quantised stub": _of(lambda: nn.Sequential(torch.ao.quantization.QuantStub(), _mlp())),
    **{
        f"named {name!r}": _of(lambda name=name: _named(name))  # type: ignore[misc]
        for name in ("#1", "a b", "é", "*", "[x]", "\x1b[31m", "a/b", "..", "x" * 300, "weight:0")
        if "." not in name
    },
}


class Holds(nn.Module):
    def __init__(self, parameters: nn.ParameterList) -> None:
        super().__init__()
        self.all = parameters

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.all[0])


def _specimens() -> Iterator[tuple[str, Specimen]]:
    for kind in _MODULES:
        yield f"nn.{kind.__name__}", _of(lambda kind=kind: _mlp(kind()))  # type: ignore[misc]
    for name, function in _FUNCTIONS.items():
        yield name, _calling(function)
    yield from _LAYERS.items()
    for name, made in _COMPUTED.items():
        # A new parametrization for each model: they keep a state.
        yield name, (lambda made=made: made()())  # type: ignore[misc]
    yield from _ODD.items()


#: Every model by a name that says what is odd about it.
ZOO: dict[str, Specimen] = dict(_specimens())
