"""Bring weights of other frameworks to PyTorch's order: outputs, inputs, then the kernel's places.

A row of a weight is then an output neuron and a column an input, which is what `gap_se` and the
instrument of scales take them for.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Says which axes of a stored weight are its outputs, its inputs and its kernel's places.

    Attributes:
        outputs: axes that together number the output neurons.
        inputs: axes that together number the inputs; none of a depthwise kernel, whose outputs have
            one input each.
        places: axes of the kernel in space or time, in order.

    Example:
        >>> Layout(outputs=(3,), inputs=(2,), places=(0, 1)).shape_of((3, 5, 16, 32))
        (32, 16, 3, 5)
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    places: tuple[int, ...] = ()

    @classmethod
    def as_stored(cls, dimensions: int) -> "Layout":
        """Return the layout of a weight that is in PyTorch's order already."""
        axes = tuple(range(dimensions))
        return cls(axes[:1], axes[1:2], axes[2:])

    @classmethod
    def outputs_last(cls, dimensions: int) -> "Layout":
        """Return the layout of kernels ``[…, in, out]``, as Keras and Flax store them."""
        return cls((dimensions - 1,), (dimensions - 2,), tuple(range(dimensions - 2)))

    @classmethod
    def depthwise(cls, dimensions: int) -> "Layout":
        """Return the layout of kernels ``[…, in, multiplier]`` that mix no inputs."""
        return cls((dimensions - 2, dimensions - 1), (), tuple(range(dimensions - 2)))

    def shape_of(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in PyTorch's order.

        Raises:
            ValueError: if the stored shape has other axes than this layout.
        """
        if sorted((*self.outputs, *self.inputs, *self.places)) != list(range(len(stored))):
            raise ValueError(f"its shape {stored} has not the dimensions of its kind of weight")
        if len(stored) < 2:
            return stored
        rows, columns = (
            prod(stored[axis] for axis in axes) for axes in (self.outputs, self.inputs)
        )
        return (rows, columns, *(stored[axis] for axis in self.places))

    def keeps_memory(self, stored: tuple[int, ...]) -> bool:
        """Tell whether `of` returns a view of the values, whatever these are."""
        try:
            self._permuted(torch.empty(stored, device="meta")).view(self.shape_of(stored))
        except RuntimeError:
            return False
        return True

    def of(self, values: Tensor) -> Tensor:
        """Return the values in PyTorch's order, a view where axes need not be merged."""
        return self._permuted(values).reshape(self.shape_of(tuple(values.shape)))

    def _permuted(self, values: Tensor) -> Tensor:
        return values.permute((*self.outputs, *self.inputs, *self.places))
