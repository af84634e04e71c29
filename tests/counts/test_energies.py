"""Sums of energies against numpy; which samples are taken."""

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count
from jaynes_callbacks.counts.energies import (
    NEURON_SUMS,
    add_energies_,
    by_sample,
    energy_parts,
    energy_row,
)


def _table(neurons: int) -> Tensor:
    return torch.zeros(2, energy_row(neurons), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "dim", "laid_out"),
    [
        ((8, 5), 1, (8, 5, 1)),
        ((8, 5), -1, (8, 5, 1)),
        ((8, 3, 5), 2, (8, 5, 3)),
        ((8, 5, 4, 6), 1, (8, 5, 24)),
        ((8, 4, 6, 5), 3, (8, 5, 24)),
        ((5, 4, 6), 0, (1, 5, 24)),
        ((5,), 0, (1, 5, 1)),
        ((), 0, (1, 1, 1)),
        ((0, 5), 1, (0, 5, 1)),
    ],
)
def test_layout(shape: tuple[int, ...], dim: int, laid_out: tuple[int, ...]) -> None:
    values = torch.arange(float(np.prod(shape))).view(shape)
    found = by_sample(values, dim)
    assert found.shape == laid_out
    assert found.flatten().sort().values.equal(values.flatten())
    if len(shape) > 2 and dim:
        assert torch.equal(found[3, 2], values.select(dim, 2)[3].flatten())


def test_samples_are_taken_whole() -> None:
    values = torch.arange(10.0)[:, None].expand(10, 4)
    assert by_sample(values, 1, 16)[:, 0, 0].tolist() == [0, 3, 6, 9]
    # Two are taken however large they are.
    assert by_sample(values, 1, 1)[:, 0, 0].tolist() == [0, 7]


@pytest.mark.parametrize("shape", [(30, 7), (6, 7, 3, 4)])
def test_sums_are_numpys(shape: tuple[int, ...], generator: torch.Generator) -> None:
    z = torch.randn(shape, generator=generator).double()
    y, bias = z.tanh(), torch.randn(7, generator=generator).double()
    y[:, 4] = 0
    table = _table(9)
    add_energies_(y, z, bias, table, 1)
    add_energies_(y[:2], z[:2], None, table, 1)
    assert not table[0].any()
    parts = energy_parts(table)
    energies = (z * y).flatten(2).sum(-1) if len(shape) > 2 else z * y
    energies, outputs = energies.numpy(), y.reshape(shape[0], 7, -1).sum(-1).numpy()
    twice = np.concatenate([energies, energies[:2]])
    total = twice.sum(1)
    size = np.prod(shape[1:])
    expected = [len(twice), 0, len(twice) * size, total.sum(), (total**2).sum(), shape[0]]
    np.testing.assert_allclose(parts.samples[1], expected, rtol=1e-12)
    counts = count(z * y).counts + count((z * y)[:2]).counts
    assert torch.equal(parts.counts[1].long(), counts)
    active = np.where(np.arange(7) == 4, 0, len(twice))
    columns = [np.full(7, len(twice)), active, twice.sum(0), (twice**2).sum(0)]
    columns.append(outputs.sum(0) * bias.numpy())
    np.testing.assert_allclose(parts.neurons[1, :7], np.stack(columns, 1), rtol=1e-12)
    assert not parts.neurons[1, 7:].any()


def test_samples_that_are_not_finite_are_left_out(generator: torch.Generator) -> None:
    z = torch.randn(6, 3, generator=generator)
    table, whole = _table(3), _table(3)
    add_energies_(z[1:4], z[1:4], torch.ones(3), whole, 0)
    z[0, 1], z[4, 2], z[5, 0] = torch.inf, torch.nan, -torch.inf
    add_energies_(z, z, torch.ones(3), table, 0)
    found, expected = energy_parts(table), energy_parts(whole)
    assert found.samples[0].tolist()[:3] == [3, 3, 9]
    torch.testing.assert_close(found.samples[0, 2:], expected.samples[0, 2:])
    torch.testing.assert_close(found.neurons, expected.neurons)
    assert found.counts.sum() == 18


def test_of_more_neurons_some_are_taken() -> None:
    z = torch.arange(1.0, 11.0).expand(4, 10)
    table = _table(4)
    add_energies_(z, z, torch.arange(10.0), table, 0)
    found = energy_parts(table)
    assert found.neurons[0, :, 2].tolist() == [4 * k**2 for k in (1, 4, 7, 10)]
    assert found.neurons[0, :, 4].tolist() == [4 * k * (k - 1) for k in (1, 4, 7, 10)]
    # The energy of a sample is that of all.
    assert found.samples[0, 3] == 4 * 385


def test_low_precision_is_multiplied_in_float32() -> None:
    z = torch.full((2, 2), 300.0, dtype=torch.float16)
    table = _table(2)
    add_energies_(z, z, None, table, 0)
    assert energy_parts(table).samples[0, 3] == 4 * 90_000


def test_no_samples_add_nothing_and_integers_raise() -> None:
    table = _table(2)
    add_energies_(torch.zeros(0, 2), torch.zeros(0, 2), None, table, 0)
    add_energies_(torch.zeros(0), torch.zeros(0), None, table, 0)
    assert not table.any()
    with pytest.raises(TypeError, match="floating-point"):
        add_energies_(torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2), None, table, 0)


def test_parts_share_the_tables_memory() -> None:
    table = _table(3)
    parts = energy_parts(table)
    assert parts.neurons.shape == (2, 3, NEURON_SUMS)
    parts.neurons[1, 2, 4] = 5
    assert table[1, -1] == 5
