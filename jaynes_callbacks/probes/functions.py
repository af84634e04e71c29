"""The activation functions that are recorded, every way to spell a call of each, and its iota.

Iota is Z = z·y of a neuron's pre-activation z and output y (Eq. 17 of arXiv 2405.10955).  Recorded
are the element-wise functions that keep the sign of z, so that Z ≥ 0.  Of ReLU only y is recorded:
on its active neurons Z = y², and the gap and q of a square are those of the variable itself
(docs/statistics.md).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "ACTIVATION_MODULES",
    "FUNCTIONS",
    "preactivation",
    "reason_not_to_watch",
    "variable_of",
    "writes_in_place",
]

_SPELLINGS: Mapping[str, tuple[Callable[..., Tensor], ...]] = {
    "relu": (functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "relu6": (functional.relu6,),
    "hardtanh": (functional.hardtanh, functional.hardtanh_),
    "leaky_relu": (functional.leaky_relu, functional.leaky_relu_),
    "prelu": (torch.prelu, Tensor.prelu),
    "elu": (functional.elu, functional.elu_),
    "selu": (functional.selu, torch.selu, torch.selu_),
    "celu": (functional.celu, torch.celu, torch.celu_),
    "gelu": (functional.gelu,),
    "silu": (functional.silu,),
    "mish": (functional.mish,),
    "hardswish": (functional.hardswish,),
    "softsign": (functional.softsign,),
    "tanh": (functional.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
}
#: Name of the activation function by each callable that applies it.  `functional.relu_` and its
#: like are the same objects as `torch.relu_` or those of `torch._C`.
FUNCTIONS = {function: name for name, spelt in _SPELLINGS.items() for function in spelt}
_WRITING = frozenset(function for function in FUNCTIONS if function.__name__.endswith("_"))

#: Modules that do nothing but call one of these functions.
ACTIVATION_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Softsign,
    nn.Tanh,
)

_NOT_WATCHED: Mapping[str, tuple[type[nn.Module], ...]] = {
    "does not keep the sign of z, so that z·y is no iota": (
        nn.Sigmoid,
        nn.Hardsigmoid,
        nn.LogSigmoid,
        nn.Softplus,
        nn.Threshold,
    ),
    "has no pre-activation of its own (gated)": (nn.GLU,),
    "its slope is drawn at random": (nn.RReLU,),
    "recurrent kernel: its inner activations are never tensors of the model": (
        nn.RNNBase,
        nn.RNNCellBase,
    ),
}


def variable_of(function: str) -> str:
    """Return the variable that is recorded of an activation function, given by its name."""
    return "y" if function == "relu" else "z*y"


def writes_in_place(function: Callable[..., Tensor], args: Any, kwargs: Any) -> bool:
    """Tell whether this call overwrites its pre-activation."""
    # The one boolean that any of them takes is `inplace`.
    flags = (*args[1:], *(kwargs or {}).values())
    return function in _WRITING or any(flag is True for flag in flags)


def preactivation(args: Any, kwargs: Any) -> Tensor:
    """Return the z of a call."""
    z: Tensor = args[0] if args else kwargs["input"]
    return z


def reason_not_to_watch(module: nn.Module) -> str | None:
    """Say why a module's own activation cannot be recorded; None if it can, or if it has none."""
    reasons = (reason for reason, kinds in _NOT_WATCHED.items() if isinstance(module, kinds))
    return next(reasons, None)
