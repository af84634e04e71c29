"""Sums of energies: per sample, and per neuron over samples.

The energy of a neuron in one sample is Z = z·y of its pre-activation z and output y (Eq. 17 of
arXiv 2405.10955), summed over the places of a map or a sequence; that of a layer in one sample is
the sum over all of its neurons.  A row of a table holds, one after the other (`energy_parts`),

- counts of all values of Z on the universal grid;
- of samples (`SAMPLE_SUMS`): their number, the number of those left out because their energy is
  not finite, values, Σ E, Σ E², and the number of samples for which the biases were known;
- of each neuron (`NEURON_SUMS`): samples, samples in which it is active, Σ Z, Σ Z², and Σ b·y with
  the bias b of the layer that made z.

All of them add over batches and over ranks.  Samples are taken whole, so that the energy of each is
exact.  `add_energies_` is a `torch.library` custom op, so that a compiled model calls it without a
graph break.
"""

import sys
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from jaynes_callbacks.counts.counting import coprime_stride
from jaynes_callbacks.counts.grid import CODES, require_floating_point
from jaynes_callbacks.counts.kernels import code_counts
from jaynes_callbacks.counts.log_powers import float64_device

__all__ = [
    "NEURON_SUMS",
    "SAMPLE_SUMS",
    "EnergyParts",
    "add_energies_",
    "by_sample",
    "energy_parts",
    "energy_row",
]

#: Numbers kept of the samples, and of each neuron.
SAMPLE_SUMS, NEURON_SUMS = 6, 5
#: Fewest samples taken of a call, for a standard deviation.
_FEWEST_SAMPLES = 2


class EnergyParts(NamedTuple):
    """Parts of the rows of a table.

    Attributes:
        counts: of Z on the universal grid.
        samples: sums over samples.
        neurons: sums of each neuron.
    """

    counts: Float64[Tensor, "streams 4096"]
    samples: Float64[Tensor, "streams 6"]
    neurons: Float64[Tensor, "streams neurons 5"]


def energy_row(neurons: int) -> int:
    """Return the length of a row for so many neurons."""
    return CODES + SAMPLE_SUMS + neurons * NEURON_SUMS


def energy_parts(table: Float64[Tensor, "streams row"]) -> EnergyParts:
    """Split the rows of a table into their parts, without a copy."""
    counts, samples, neurons = table.split(
        [CODES, SAMPLE_SUMS, table.shape[-1] - CODES - SAMPLE_SUMS], -1
    )
    return EnergyParts(counts, samples, neurons.unflatten(-1, (-1, NEURON_SUMS)))


def by_sample(
    values: Tensor, dim: int = 1, limit: int = sys.maxsize
) -> Float[Tensor, "samples neurons places"]:
    """Lay values out as samples × neurons × places, taking some samples and each of them whole.

    Samples lie along the first dimension, unless the neurons do: then there is one.  They are taken
    at a constant stride, so that no more than `limit` values remain, but at least two samples.

    Args:
        values: of any shape and strides; no more than what is taken is copied.
        dim: along which the neurons lie.
        limit: most values taken.

    Example:
        >>> import torch
        >>> by_sample(torch.arange(12.0).view(2, 2, 3), dim=2).tolist()[1]
        [[6.0, 9.0], [7.0, 10.0], [8.0, 11.0]]
    """
    if values.dim() < 2 or dim % values.dim() == 0:
        values, dim = values.reshape(1, *(values.shape or (1,))), 1
    moved = values.movedim(dim, 1)
    samples, neurons = moved.shape[:2]
    places = moved.shape[2:].numel()
    most = max(_FEWEST_SAMPLES, limit // max(1, neurons * places))
    if samples > most:
        moved = moved[:: coprime_stride(samples, most)]
    return moved.reshape(len(moved), neurons, places)


@torch.library.custom_op("jaynes_callbacks::add_energies_", mutates_args=("table",))
def _add_energies_op(
    y: Tensor, z: Tensor, bias: Tensor | None, table: Tensor, row: int, dim: int, limit: int
) -> None:
    require_floating_point(y)
    if not y.numel():
        return
    outputs, inputs = (by_sample(each, dim, limit) for each in (y, z))
    # As `count_product_` has it: the product in float32 at least, whatever the factors' precision.
    precise = torch.promote_types(y.dtype, torch.float32)
    values = outputs.to(precise) * inputs.to(precise)
    counts, samples, neurons = energy_parts(table[row : row + 1])
    counts[0].add_(code_counts(values.reshape(-1)).to(table.device))

    device = float64_device(values.device)
    energies = values.to(device).to(torch.float64).sum(-1)
    energy = energies.sum(-1)
    finite = energy.isfinite()
    number, energy = finite.sum(), torch.where(finite, energy, 0.0)
    known = number if bias is not None else torch.zeros_like(number)
    of_samples = [
        *(number, (~finite).sum(), number * values[0].numel()),
        *(energy.sum(), energy.square().sum(), known),
    ]
    samples[0].add_(torch.stack([each.to(torch.float64) for each in of_samples]).to(table.device))

    # Of more neurons than there are places, some at a constant stride.
    stride = -(-energies.shape[1] // neurons.shape[1])
    energies = torch.where(finite[:, None], energies[:, ::stride], 0.0)
    active = finite[:, None] & (values[:, ::stride] != 0).any(-1).to(device)
    of_neurons = torch.zeros(
        energies.shape[1], NEURON_SUMS, dtype=torch.float64, device=energies.device
    )
    of_neurons[:, 0], of_neurons[:, 1] = number, active.sum(0)
    of_neurons[:, 2], of_neurons[:, 3] = energies.sum(0), energies.square().sum(0)
    if bias is not None:
        sums = outputs[:, ::stride].to(device).to(torch.float64).sum(-1)
        sums = torch.where(finite[:, None], sums, 0.0).sum(0)
        of_neurons[:, 4] = sums * bias.to(device).to(torch.float64)[::stride]
    neurons[0, : len(of_neurons)].add_(of_neurons.to(table.device))


@_add_energies_op.register_fake
def _(
    y: Tensor, z: Tensor, bias: Tensor | None, table: Tensor, row: int, dim: int, limit: int
) -> None:
    return None


def add_energies_(
    y: Tensor,
    z: Tensor,
    bias: Tensor | None,
    table: Float64[Tensor, "streams row"],
    row: int,
    *,
    dim: int = 1,
    limit: int = sys.maxsize,
) -> None:
    """Add the energies of one call to row `row` of `table`, in place.

    Args:
        y: outputs, real floating-point values of any shape and strides.
        z: pre-activations of the same shape.
        bias: of each neuron; None where it is not known.
        table: to add to, of rows of length `energy_row`.
        row: the stream's row.
        dim: along which the neurons lie.
        limit: most values taken, but at least two samples (`by_sample`).

    Raises:
        TypeError: if `y` is not of a floating-point dtype.

    Example:
        >>> import torch
        >>> table = torch.zeros(1, energy_row(2), dtype=torch.float64)
        >>> y = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
        >>> add_energies_(y, y, torch.tensor([0.5, 1.0]), table, 0)
        >>> energy_parts(table).samples[0].tolist()  # E is 1 and 13
        [2.0, 0.0, 4.0, 14.0, 170.0, 2.0]
        >>> energy_parts(table).neurons[0].tolist()
        [[2.0, 2.0, 5.0, 17.0, 1.5], [2.0, 1.0, 9.0, 81.0, 3.0]]
    """
    bias = None if bias is None else bias.detach()
    _add_energies_op(y.detach(), z.detach(), bias, table, row, dim, limit)
