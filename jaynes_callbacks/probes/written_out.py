"""Notice where a tanh is part of something larger and so is no neuron's activation.

A soft cap, c·tanh(x/c), bounds attention scores or logits (Gemma).  A GELU that is written out by
hand, 0.5·z·(1 + tanh(…)), has its neuron outside of the tanh.  Either shows in the functions that
are called right before and right after the tanh, so that no tensor needs to be kept.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["ARITHMETIC", "Context", "Part"]

_Functions = frozenset[Callable[..., Any]]
_MULTIPLY: _Functions = frozenset({Tensor.mul, Tensor.mul_, torch.mul, torch.multiply})
_DIVIDE: _Functions = frozenset(
    {Tensor.div, Tensor.div_, torch.div, torch.divide, torch.true_divide}
)
_ADD: _Functions = frozenset({Tensor.add, Tensor.add_, torch.add})
#: The functions that a `Context` must be told of.
ARITHMETIC: _Functions = _MULTIPLY | _DIVIDE | _ADD

_SOFT_CAP = "soft cap, c·tanh(x/c): bounds scores or logits and is no neuron's activation"
_WRITTEN_OUT = (
    "part of a function written out by hand, 1 + tanh(…): if a module applies it, name the module "
    "in activations=..."
)


class Part(NamedTuple):
    """A stream that turned out to be part of something else.

    Attributes:
        stream: its name.
        reason: not to record it.
    """

    stream: str
    reason: str


class _Factor(NamedTuple):
    """A multiplication by a constant, or a division by it."""

    constant: float | Tensor
    divides: bool

    def undoes(self, other: "_Factor") -> bool:
        """Tell whether a multiplication by both leaves everything as it was."""
        mine, others = self.constant, other.constant
        if isinstance(mine, Tensor) or isinstance(others, Tensor):
            return mine is others and self.divides != other.divides
        if self.divides != other.divides:
            return mine == others and mine != 1
        return mine != 1 and math.isclose(mine * others, 1, rel_tol=1e-6)


class Context:
    """The function that was called last, and the stream of the tanh before it."""

    def __init__(self) -> None:
        self._factor: _Factor | None = None
        self._stream: str | None = None

    def forget(self) -> None:
        """Take note of a call of any other function."""
        self._factor = self._stream = None

    def applied(self, stream: str) -> None:
        """Take note of a tanh that is recorded in a stream."""
        self._stream = stream

    def arithmetic(self, function: Callable[..., Any], args: Any) -> Part | None:
        """Take note of a call of one of `ARITHMETIC`.

        Returns:
            The stream of the tanh right before, if this shows it to be part of something.
        """
        before, stream = self._factor, self._stream
        self._stream = None
        constant = _constant(args)
        self._factor = None
        if constant is None:
            return None
        if function in _ADD:
            written_out = stream is not None and not isinstance(constant, Tensor) and constant == 1
            return Part(stream, _WRITTEN_OUT) if stream is not None and written_out else None
        factor = _Factor(constant, function in _DIVIDE)
        if stream is not None and before is not None and factor.undoes(before):
            return Part(stream, _SOFT_CAP)
        if stream is None:
            self._factor = factor
        return None


def _constant(args: Any) -> float | Tensor | None:
    """Return the number, or the tensor of no dimensions, that is one of two operands."""
    for value in args[:2]:
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0):
            constant: float | Tensor = value
            return constant
    return None
