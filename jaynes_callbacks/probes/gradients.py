"""Gradients before an optimizer step, and the updates that it made of them.

Nothing here changes a gradient or a weight.  A copy of each watched parameter lives from before the
step until its update is read, or until the watch is told to forget it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jaynes_callbacks.counts.counting import reason_not_countable
from jaynes_callbacks.probes.dtensors import (
    is_sharded,
    local_shard,
    owned_values,
    reason_not_countable_in_parts,
)
from jaynes_callbacks.probes.parameters import reason_to_skip
from jaynes_callbacks.probes.selection import Coverage, Selection, Skipped
from jaynes_callbacks.records.stream import Stream

__all__ = [
    "GRADIENT",
    "SALIENCY",
    "UPDATE",
    "Gradient",
    "GradientWatch",
    "Update",
    "saliency_stream",
]

#: Kinds of the streams: gradients ∇L(w_t), updates w_{t+1} − w_t, and saliencies w·∂L/∂w.
GRADIENT, UPDATE, SALIENCY = "gradient", "update", "saliency"


class Gradient(NamedTuple):
    """The gradient of one parameter before a step, or its product with the parameter.

    Attributes:
        stream: of kind ``gradient`` or ``saliency``, named like the parameter.
        values: what this rank has of it: all, or of a sharded gradient what it alone counts.
        sharded: whether ranks hold parts of it.
    """

    stream: Stream
    values: Tensor
    sharded: bool


class Update(NamedTuple):
    """What one optimizer step added to a parameter.

    Attributes:
        stream: of kind ``update``, named like the parameter.
        values: w_{t+1} − w_t, what this rank has of it.
        sharded: whether ranks hold parts of it.
        squares: ‖w_{t+1} − w_t‖² and ‖w_t‖² of this rank's part.
    """

    stream: Stream
    values: Tensor
    sharded: bool
    squares: Float[Tensor, "2"]


class _Copy(NamedTuple):
    """A parameter that is about to be updated, and its values before."""

    stream: Stream
    parameter: nn.Parameter
    values: Tensor


class GradientWatch:
    """Reads the gradients and the updates of a model's parameters.

    Watched are trained parameters of two or more dimensions, as the optimizer has them: of a weight
    under a parametrization those that it is computed from.  A tied parameter is watched once.

    Args:
        model: any module.
        selection: name patterns and smallest size.
    """

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        self._model, self._selection = model, selection
        self._copies: dict[str, _Copy] = {}
        self._without: dict[str, str] = {}

    @property
    def coverage(self) -> Coverage:
        """Two streams for each watched parameter; those without a countable gradient are named.

        Whether a parameter gets a gradient is known only once a step was seen.
        """
        parameters, skipped = self._find()
        names = [stream.name for stream, _ in parameters]
        without = [Skipped(name, self._without[name]) for name in names if name in self._without]
        gradients = [stream for stream, _ in parameters if stream.name not in self._without]
        streams = [*gradients, *map(_of_update, gradients)]
        return Coverage(tuple(streams), (*skipped, *without))

    @property
    def copied(self) -> frozenset[str]:
        """Names of the parameters that were copied and whose updates have not been read."""
        return frozenset(self._copies)

    def before_step(self, parameters: Sequence[nn.Parameter]) -> list[Gradient]:
        """Return the gradients of those parameters that are watched, and copy these parameters.

        Args:
            parameters: that are about to be updated.
        """
        found = []
        for stream, parameter in self._stepping(parameters):
            self._copies.pop(stream.name, None)
            if (gradient := self._gradient(stream.name, parameter)) is not None:
                self._copies[stream.name] = _Copy(stream, parameter, _own(parameter).clone())
                found.append(Gradient(stream, _own(gradient), is_sharded(gradient)))
        return found

    def saliency(self, parameters: Sequence[nn.Parameter]) -> list[Gradient]:
        """Return w·∂L/∂w of those parameters that are watched, in float32 at least.

        Args:
            parameters: that are about to be updated.
        """
        found = []
        for of_gradient, parameter in self._stepping(parameters):
            gradient = self._gradient(of_gradient.name, parameter)
            if gradient is None:
                continue
            weight, own, sharded = _own(parameter), _own(gradient), is_sharded(parameter)
            if (own.shape, is_sharded(gradient)) != (weight.shape, sharded):
                self._without[of_gradient.name] = "with a gradient in other parts than the weight"
                continue
            stream = saliency_stream(of_gradient)
            product = _at_least_single(weight) * _at_least_single(own)
            found.append(Gradient(stream, product, sharded))
        return found

    def names(self, parameters: Sequence[nn.Parameter]) -> frozenset[str]:
        """Return the names of those of some parameters that are watched."""
        return frozenset(stream.name for stream, _ in self._stepping(parameters))

    def after_step(self) -> Iterator[Update]:
        """Return the updates of the parameters that were copied, and let the copies go.

        A parameter that now has another shape, precision or device has no update.
        """
        copies, self._copies = self._copies, {}
        for name in list(copies):
            stream, parameter, old = copies.pop(name)
            new = _own(parameter)
            if (new.shape, new.dtype, new.device) == (old.shape, old.dtype, old.device):
                before = _square(old)
                difference = old.neg_().add_(new)
                squares = torch.stack([_square(difference), before])
                yield Update(_of_update(stream), difference, is_sharded(parameter), squares)

    def forget(self) -> None:
        """Let the copies go."""
        self._copies = {}

    def _stepping(self, parameters: Sequence[nn.Parameter]) -> list[tuple[Stream, nn.Parameter]]:
        """Return those of some parameters that are watched, with their streams."""
        stepping = {id(parameter) for parameter in parameters}
        return [pair for pair in self._find()[0] if id(pair[1]) in stepping]

    def _gradient(self, name: str, parameter: nn.Parameter) -> Tensor | None:
        """Return a parameter's gradient; None, with the reason noted, if it cannot be counted."""
        self._without.pop(name, None)
        gradient = parameter.grad
        if gradient is None:
            self._without[name] = "without a gradient when last recorded"
        elif reason := _reason_not_countable(gradient):
            self._without[name] = f"with a gradient that is {reason}"
        else:
            return gradient
        return None

    def _find(self) -> tuple[list[tuple[Stream, nn.Parameter]], list[Skipped]]:
        """Find the trained parameters, as they may be exchanged, frozen or made late (lazy)."""
        found: dict[int, tuple[Stream, nn.Parameter]] = {}
        skipped = []
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            if id(parameter) in found:
                stream, _ = found[id(parameter)]
                stream = replace(stream, aliases=(*stream.aliases, name))
                found[id(parameter)] = stream, parameter
            elif reason := self._reason_to_skip(name, parameter):
                skipped.append(Skipped(name, reason))
            else:
                stream = Stream(GRADIENT, name, tuple(parameter.shape), (), "g")
                found[id(parameter)] = stream, parameter
        return list(found.values()), skipped

    def _reason_to_skip(self, name: str, parameter: nn.Parameter) -> str | None:
        reason = reason_to_skip(name, parameter, self._selection)
        return reason or (None if parameter.requires_grad else "frozen, without gradients")


def saliency_stream(gradient: Stream) -> Stream:
    """Return the stream of a parameter's saliency, by that of its gradient."""
    return replace(gradient, kind=SALIENCY, variable="w·∂L/∂w")


def _of_update(gradient: Stream) -> Stream:
    return replace(gradient, kind=UPDATE, variable="Δw")


def _reason_not_countable(gradient: Tensor) -> str | None:
    in_parts = reason_not_countable_in_parts(gradient)
    return in_parts or reason_not_countable(local_shard(gradient))


def _own(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor: all, or of a sharded one what it alone counts."""
    return owned_values(tensor) if is_sharded(tensor) else local_shard(tensor)


def _at_least_single(values: Tensor) -> Tensor:
    """Return the values in float32, or in float64 if they are."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)


def _square(values: Tensor) -> Float[Tensor, ""]:
    """Return ‖values‖² in double precision: squares of small updates underflow in single."""
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
    return norm.square()
