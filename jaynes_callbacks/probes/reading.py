"""Define what is taken of each call of an activation function: by default the counts of its iota.

Other readings sum powers (`probes.neurons`) or energies (`probes.energies`) for each neuron, look
at maps (`probes.coalitions`) or wait for the gradient (`probes.saliency`).
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count_, count_product_, subsample
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.probes.dtensors import owned_values
from jaynes_callbacks.records.stream import IOTA

__all__ = ["Call", "Counts", "IotaReading", "Reading"]


class Call(NamedTuple):
    """A call of a function that is a layer.

    Attributes:
        args: that it was called with.
        kwargs: likewise.
        output: that it returned.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    output: Any


class Reading(Protocol):
    """What is taken of each call of an activation function, and added to its stream's row.

    It is traced by torch.compile unless it is not `compiled`.

    Attributes:
        kind: of the streams.
        shape: of a row of the table that is added to.
        dtype: of the table.
        compiled: whether calls inside compiled models can be read.
        layers: functions of which `layer_ends` is told.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    compiled: bool
    layers: Container[Callable[..., Any]]

    def variable(self, iota: str) -> str:
        """Return the name of what is taken of a function's calls, as records have it.

        Args:
            iota: of the function, ``y`` or ``z*y`` (`probes.functions.variable_of`).
        """
        ...

    def needs_preactivation(self, iota: str) -> bool:
        """Tell whether `keep` is called before a function of this iota is applied."""
        ...

    def keep(self, z: Tensor, limit: int, *, overwritten: bool) -> Any:
        """Return what `add_` needs of a pre-activation.

        Args:
            z: the pre-activation.
            limit: most values that are taken.
            overwritten: whether the function is about to write its output over it.
        """
        ...

    def add_(self, kept: Any, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Add what is taken of a call to a row of the table, in place.

        Args:
            kept: from `keep`; None if it was not called.
            y: the output.
            table: to add to.
            row: of the call's stream.
            limit: most values that are taken.
        """
        ...

    def forward_begins(self) -> None:
        """Forget the layers of earlier forwards."""
        ...

    def layer_ends(self, function: Callable[..., Any], call: Call) -> None:
        """Take note of a call of one of `layers`."""
        ...


class IotaReading:
    """Base of readings that take the iota of each call: y of ReLU, z·y of other functions."""

    kind, compiled = IOTA, True

    def variable(self, iota: str) -> str:
        """Return ``y`` or ``z*y``."""
        return iota

    def needs_preactivation(self, iota: str) -> bool:
        """Tell whether the product z·y is taken, or y alone."""
        return iota != "y"

    def keep(self, z: Tensor, limit: int, *, overwritten: bool) -> Any:
        """Return the pre-activation, or as much of it as is taken if the call overwrites it."""
        z = owned_values(z)
        if not overwritten:
            return z
        # To pick some values while tracing would tie the graph to the shape.
        return (z if torch.compiler.is_compiling() else self._few(z, limit)).clone()

    def _few(self, values: Tensor, limit: int) -> Tensor:
        """Return at most so many values, at a constant stride."""
        return subsample(values, limit)


class Counts(IotaReading):
    """Counts the iota of each call on the universal grid."""

    dtype = torch.int64
    shape: tuple[int, ...] = (CODES,)
    layers: Container[Callable[..., Any]] = frozenset()

    def add_(self, kept: Tensor | None, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Count y, or the product of what was kept with it."""
        y = owned_values(y)
        if kept is None:
            count_(y, table, row, limit)
        else:
            y = y if y.shape == kept.shape else self._few(y, limit)
            count_product_(kept, y, table, row, limit)

    def forward_begins(self) -> None:
        """Do nothing: no layer matters."""

    def layer_ends(self, function: Callable[..., Any], call: Call) -> None:
        """Do nothing: no layer matters."""
