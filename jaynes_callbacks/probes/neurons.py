"""Neurons of an activation: along which dimension they lie, and power sums of each.

A neuron is one channel of a map or one feature.  Which dimension of an activation that is follows
from the layer that was applied last before it, since shapes alone cannot tell ``[N, C, L]`` from
``[N, L, features]``:

- after a convolution, the dimension of its channels (1 of ``[N, C, …]``, 0 of an unbatched
  ``[C, …]``);
- after a linear layer or a product of matrices, the last one;
- if the rank has changed since, or no layer was seen: dimension 1 of three or more dimensions after
  a convolution, and of four or more where no layer was seen; else the last one.

Layers are seen as activations are, by the functions that they call, so that ``F.conv2d`` and
``x @ w`` count too.  Normalisations, additions and pooling between a layer and the activation leave
the rule as it is; a transposition between the two is not noticed.
"""

from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jaynes_callbacks.counts.log_powers import POWERS, add_log_powers_, by_neuron
from jaynes_callbacks.probes.dtensors import is_sharded_along, owned_values
from jaynes_callbacks.probes.reading import Call, IotaReading

__all__ = ["SPREAD", "Layer", "LogPowers", "NeuronReading", "neuron_dimension"]

#: Why neurons cannot be read one by one.
SPREAD = "its neurons are spread over ranks (a sharded DTensor)"

#: Number of dimensions that follow the neurons' in the output of each function that is a layer.
_LAYERS: Mapping[Callable[..., Any], int] = {
    functional.linear: 0,
    functional.bilinear: 0,
    torch.matmul: 0,
    torch.mm: 0,
    torch.addmm: 0,
    Tensor.matmul: 0,
    Tensor.mm: 0,
    Tensor.__matmul__: 0,
    functional.conv1d: 1,
    functional.conv2d: 2,
    functional.conv3d: 3,
    functional.conv_transpose1d: 1,
    functional.conv_transpose2d: 2,
    functional.conv_transpose3d: 3,
}


class Layer(NamedTuple):
    """The output of a layer.

    Attributes:
        rank: number of its dimensions.
        following: how many of them follow that of the neurons.
    """

    rank: int
    following: int


def neuron_dimension(rank: int, layer: Layer | None) -> int:
    """Return the dimension along which the neurons of an activation lie.

    Args:
        rank: number of dimensions of the activation.
        layer: that was applied last before it; None if none was seen.

    Example:
        >>> neuron_dimension(4, Layer(4, 2)), neuron_dimension(4, Layer(4, 0))
        (1, 3)
        >>> neuron_dimension(3, None), neuron_dimension(4, None)
        (2, 1)
    """
    last = max(0, rank - 1)
    if layer is None:
        return 1 if rank >= 4 else last
    if layer.rank == rank:
        return last - layer.following
    return 1 if layer.following and rank >= 3 else last


class NeuronReading(IotaReading):
    """Base of readings that must know along which dimension the neurons of an activation lie."""

    dtype = torch.float64
    layers: Container[Callable[..., Any]] = _LAYERS

    def __init__(self) -> None:
        self._layer: Layer | None = None

    def forward_begins(self) -> None:
        """Forget the layers of earlier forwards."""
        self._layer = None

    def layer_ends(self, function: Callable[..., Any], call: Call) -> None:
        """Take note of a linear layer or a convolution."""
        self._layer = Layer(call.output.dim(), _LAYERS[function])

    def _dimension(self, values: Tensor) -> int:
        """Return the dimension along which the neurons of these values lie."""
        return neuron_dimension(values.dim(), self._layer)


class LogPowers(NeuronReading):
    """Sums powers of ln y (ReLU) or ln|z·y| for each neuron: of the same values that are counted.

    Args:
        neurons: most neurons of a stream; of more, some at a constant stride are taken.
    """

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = (neurons, POWERS)

    def add_(self, kept: Tensor | None, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Add the power sums of y, or of its product with what was kept.

        Raises:
            ValueError: if the neurons of a DTensor are spread over ranks, each of which would take
                its own first neuron for that of all.
        """
        dimension = self._dimension(y)
        if is_sharded_along(y, dimension):
            raise ValueError(SPREAD)
        y = owned_values(y)
        if kept is not None and kept.shape != y.shape:
            y, dimension = self._few(y, limit), -1
        add_log_powers_(y, kept, table, row, dim=dimension, limit=limit)

    def _few(self, values: Tensor, limit: int) -> Tensor:
        return by_neuron(values, self._dimension(values), self.shape[0], limit)
