"""Sums of powers of ln|x| for each neuron: all that moments within and between neurons need.

For neuron j over its finite, non-zero values x, with l = ln|x|, a table holds the six numbers

    number of values seen, n, Σ l, Σ l², Σ l³, Σ l⁴

(`POWERS`).  They add over batches and over ranks.  They are float64 about l = 0: with |l| < 89, the
range of float32, the fourth central moment of values whose ln has standard deviation 1 keeps seven
digits at least.  What counts as zero is what the universal grid counts as zero (`counts.grid`), so
n is the number that `count_` finds.

`add_log_powers_` is a `torch.library` custom op, so that a compiled model calls it without a graph
break.
"""

import sys

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from jaynes_callbacks.counts.counting import coprime_stride
from jaynes_callbacks.counts.grid import FIRST_POSITIVE, edges, require_floating_point

__all__ = ["POWERS", "add_log_powers_", "by_neuron", "float64_device"]

#: Numbers kept of each neuron.
POWERS = 6
#: Magnitudes below it count as zeros.
_LOWEST = edges()[FIRST_POSITIVE].item()


def by_neuron(
    values: Tensor, dim: int = -1, neurons: int = sys.maxsize, limit: int = sys.maxsize
) -> Float[Tensor, "samples neurons"]:
    """Lay values out as samples × neurons, taking no more than asked for of either.

    Neurons are taken at the smallest constant stride that leaves no more than `neurons`; samples
    (places in all other dimensions) at one that favours no index, so that no more than `limit`
    values remain, but at least one of each neuron.

    Args:
        values: of any shape and strides; no more than what is taken is copied.
        dim: along which the neurons lie.
        neurons: most neurons taken.
        limit: most values taken.

    Example:
        >>> import torch
        >>> by_neuron(torch.arange(12.0).view(1, 3, 4), dim=1).tolist()
        [[0.0, 4.0, 8.0], [1.0, 5.0, 9.0], [2.0, 6.0, 10.0], [3.0, 7.0, 11.0]]
    """
    moved = values.reshape(1, -1) if values.dim() < 2 else values.movedim(dim, -1)
    moved = moved[..., :: max(1, -(-moved.shape[-1] // neurons))]
    width = moved.shape[-1]
    samples = moved.numel() // max(1, width)
    most = max(1, limit // max(1, width))
    if samples <= most:
        return moved.reshape(samples, width)
    place = torch.arange(0, samples, coprime_stride(samples, most), device=values.device)
    index = []
    for size in reversed(moved.shape[:-1]):
        index.append(place % size)
        place = place // size
    return moved[tuple(reversed(index))]


def float64_device(device: torch.device) -> torch.device:
    """Return where float64 is computed: the device itself, or the CPU for one that has none."""
    return torch.device("cpu") if device.type == "mps" else device


@torch.library.custom_op("jaynes_callbacks::add_log_powers_", mutates_args=("table",))
def _add_log_powers_op(
    y: Tensor, z: Tensor | None, table: Tensor, row: int, dim: int, limit: int
) -> None:
    require_floating_point(y)
    neurons = table.shape[1]
    taken = [by_neuron(each, dim, neurons, limit) for each in (y, z) if each is not None]
    # As `count_product_` has it: the product in float32, whatever the factors' precision.
    values = taken[0].to(torch.float32)
    for each in taken[1:]:
        values = values * each.to(torch.float32)
    found = _log_powers(values.to(float64_device(values.device)))
    table[row, : len(found)].add_(found.to(table.device))


@_add_log_powers_op.register_fake
def _(y: Tensor, z: Tensor | None, table: Tensor, row: int, dim: int, limit: int) -> None:
    return None


def add_log_powers_(
    y: Tensor,
    z: Tensor | None,
    table: Float64[Tensor, "streams neurons powers"],
    row: int,
    *,
    dim: int = -1,
    limit: int = sys.maxsize,
) -> None:
    """Add the power sums of ln|y|, or of ln|z·y|, to row `row` of `table`, in place.

    Args:
        y: real floating-point tensor of any shape and strides.
        z: another of the same shape, or None for powers of ln|y| alone.
        table: to add to, on any device.  Of more neurons than it has columns some are taken, at a
            constant stride (`by_neuron`).
        row: the stream's row.
        dim: along which the neurons lie.
        limit: most values taken; all by default.

    Raises:
        TypeError: if `y` is not of a floating-point dtype.

    Example:
        >>> import torch
        >>> table = torch.zeros(1, 2, POWERS, dtype=torch.float64)
        >>> add_log_powers_(torch.tensor([[1.0, 0.0], [1.0, -8.0]]), None, table, 0)
        >>> table[0, :, :2].tolist()  # values seen, n
        [[2.0, 2.0], [2.0, 1.0]]
    """
    _add_log_powers_op(y.detach(), None if z is None else z.detach(), table, row, dim, limit)


def _log_powers(values: Float[Tensor, "samples neurons"]) -> Float64[Tensor, "neurons powers"]:
    """Sum the powers over samples."""
    magnitudes = values.abs().to(torch.float64)
    valid = (magnitudes >= _LOWEST) & (magnitudes < torch.inf)
    logs = torch.where(valid, magnitudes, 1.0).log_()
    squares = logs.square()
    sums = [
        logs.new_full(logs.shape[1:], len(values)),
        valid.sum(0),
        logs.sum(0),
        squares.sum(0),
        (squares * logs).sum(0),
        squares.square_().sum(0),
    ]
    return torch.stack([each.to(torch.float64) for each in sums], -1)
