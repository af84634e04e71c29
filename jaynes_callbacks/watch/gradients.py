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
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.watch.dtensors import (
    is_sharded,
    local_shard,
    owned_values,
    reason_not_countable_in_parts,
)
from jaynes_callbacks.watch.parameters import reason_to_skip
from jaynes_callbacks.watch.selection import Coverage, Selection, Skipped

__all__ = ["GRADIENT", "UPDATE", "Gradient", "GradientWatch", "Update"]

#: Kinds of the streams: gradients ∇L(w_t), and updates w_{t+1} − w_t.
GRADIENT, UPDATE = "gradient", "update"


class Gradient(NamedTuple):
    """The gradient of one parameter before a step.

    Attributes:
        stream: of kind ``gradient``, named like the parameter.
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
        stepping = {id(parameter) for parameter in parameters}
        found = []
        for stream, parameter in self._find()[0]:
            if id(parameter) not in stepping:
                continue
            name, gradient = stream.name, parameter.grad
            self._copies.pop(name, None)
            self._without.pop(name, None)
            if gradient is None:
                self._without[name] = "without a gradient when last recorded"
            elif reason := _reason_not_countable(gradient):
                self._without[name] = f"with a gradient that is {reason}"
            else:
                self._copies[name] = _Copy(stream, parameter, _own(parameter).clone())
                found.append(Gradient(stream, _own(gradient), is_sharded(gradient)))
        return found

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


def _of_update(gradient: Stream) -> Stream:
    return replace(gradient, kind=UPDATE, variable="Δw")


def _reason_not_countable(gradient: Tensor) -> str | None:
    in_parts = reason_not_countable_in_parts(gradient)
    return in_parts or reason_not_countable(local_shard(gradient))


def _own(tensor: Tensor) -> Tensor:
    """Return what this rank has of a tensor: all, or of a sharded one what it alone counts."""
    return owned_values(tensor) if is_sharded(tensor) else local_shard(tensor)


def _square(values: Tensor) -> Float[Tensor, ""]:
    """Return ‖values‖² in double precision: squares of small updates underflow in single."""
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
    return norm.square()
