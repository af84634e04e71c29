"""Saliency of neurons: z·∂L/∂z of pre-activations z, once their gradient is known.

A hook on each pre-activation waits for the gradient.  It keeps a copy of no more values than are
counted, lets go of it as soon as the gradient has come, and counts the products then.  Nothing of
the graph is changed.

Pre-activations without a gradient are not read: under ``no_grad``, in the first of the two forwards
of activation checkpointing, and inside compiled models, where hooks on inner tensors would need
another compiler for the backward.
"""

from collections.abc import Callable, Container
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from jaynes_callbacks.counts.counting import coprime_stride, count_product_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.probes.dtensors import owned_values, reason_not_countable_in_parts
from jaynes_callbacks.probes.gradients import SALIENCY
from jaynes_callbacks.probes.ledger import NO_ROW
from jaynes_callbacks.probes.reading import Call

__all__ = ["Saliencies"]


class _Pending:
    """A call that waits for the gradient of its pre-activation.

    Attributes:
        values: those of the pre-activation that are counted.
        table: to add to; None until the function has been applied.
        row: of the call's stream.
        handle: of the hook, which alone keeps this object.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.table: Tensor | None = None
        self.row = NO_ROW
        self.handle: RemovableHandle | None = None

    def release(self) -> None:
        """Take off the hook, and with it let go of the values."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


class Saliencies:
    """Counts |z·∂L/∂z| of each call during the backward that follows.

    A loss scale (``GradScaler``) is contained in the gradients: counts are then those of the scaled
    loss, whose gap and q are the same.

    Args:
        failed: is told the row of a stream that cannot be counted, and the error.
    """

    kind, dtype, compiled = SALIENCY, torch.int64, False
    shape: tuple[int, ...] = (CODES,)
    layers: Container[Callable[..., Any]] = frozenset()

    def __init__(self, failed: Callable[[int, Exception], None]) -> None:
        self._failed = failed
        #: The graph alone keeps them.
        self._pending: WeakSet[_Pending] = WeakSet()

    def variable(self, iota: str) -> str:
        """Return ``z·∂L/∂z``."""
        return "z·∂L/∂z"

    def needs_preactivation(self, iota: str) -> bool:
        """Return True: every function's pre-activation has a gradient of its own."""
        return True

    def keep(self, z: Tensor, limit: int, *, overwritten: bool) -> _Pending | None:
        """Register a hook on a pre-activation that will have a gradient; None for any other."""
        if torch.compiler.is_compiling() or not (z.requires_grad and torch.is_grad_enabled()):
            return None
        # A copy, for what is written in place later would be counted instead.
        pending = _Pending(_few(owned_values(z), limit).clone())

        def gradient_comes(gradient: Tensor) -> None:
            self._count(pending, gradient, limit)

        pending.handle = z.register_hook(gradient_comes)
        self._pending.add(pending)
        return pending

    def add_(self, kept: _Pending | None, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Say in which row to count once the gradient comes."""
        if kept is not None:
            kept.table, kept.row = table, row

    def forward_begins(self) -> None:
        """Do nothing: no layer matters."""

    def layer_ends(self, function: Callable[..., Any], call: Call) -> None:
        """Do nothing: no layer matters."""

    def release(self) -> None:
        """Let go of all calls whose gradient has not come."""
        for each in list(self._pending):
            each.release()
        self._pending.clear()

    def _count(self, pending: _Pending, gradient: Tensor, limit: int) -> None:
        """Count a call's products; an error costs its stream and spares the backward."""
        pending.release()
        if pending.table is None:
            return
        try:
            if reason := reason_not_countable_in_parts(gradient):
                raise TypeError(f"its gradient is {reason}")
            gradients = _few(owned_values(gradient), limit)
            count_product_(pending.values, gradients, pending.table, pending.row)
        except Exception as error:
            self._failed(pending.row, error)


def _few(values: Tensor, limit: int) -> Tensor:
    """Take at most `limit` values, the same places whatever the order in memory."""
    flat = values.detach().reshape(-1)
    total = flat.numel()
    return flat if total <= limit else flat[:: coprime_stride(total, limit)]
