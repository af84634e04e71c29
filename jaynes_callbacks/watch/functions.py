"""Which functions are activations, how each is called, and what iota is of each.

Iota is Z = z·y of a neuron's pre-activation z and output y (Eq. 17).  Here are the element-wise
functions that keep the sign of z, so that Z ≥ 0 (THEORY §5).  Of ReLU y alone is recorded: Z = y²
on the active neurons, whose gap and q are those of y.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaynes_callbacks.instruments.record import Variable

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
    "tanh": (torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
}
#: Every way to call one of them, and its name.
FUNCTIONS = {function: name for name, spelt in _SPELLINGS.items() for function in spelt}
_WRITING = frozenset(function for function in FUNCTIONS if function.__name__.endswith("_"))

#: Modules that do nothing but call one of them.
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


def variable_of(function: str) -> Variable:
    """What is recorded of an activation function."""
    return "y" if function == "relu" else "z*y"


def writes_in_place(function: Callable[..., Tensor], args: Any, kwargs: Any) -> bool:
    """Whether this call overwrites its pre-activation."""
    # The one boolean that any of them takes is `inplace`.
    flags = (*args[1:], *(kwargs or {}).values())
    return function in _WRITING or any(flag is True for flag in flags)


def preactivation(args: Any, kwargs: Any) -> Tensor:
    """The z of a call."""
    z: Tensor = args[0] if args else kwargs["input"]
    return z


def reason_not_to_watch(module: nn.Module) -> str:
    """Why a module's activation is not recorded; empty if that is no question."""
    return next((reason for reason, kinds in _NOT_WATCHED.items() if isinstance(module, kinds)), "")
