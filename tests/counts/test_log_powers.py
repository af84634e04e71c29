"""Power sums of each neuron against numpy, in every layout."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE
from jaynes_callbacks.counts.log_powers import POWERS, add_log_powers_, by_neuron


def _sums(y: Tensor, z: Tensor | None = None, neurons: int = 7, **options: int) -> Tensor:
    table = torch.zeros(2, neurons, POWERS, dtype=torch.float64)
    add_log_powers_(y, z, table, 1, **options)
    assert not table[0].any()
    return table[1]


def _by_numpy(values: Tensor, dim: int) -> np.ndarray:
    """Loop over neurons; logs in double precision of magnitudes in single."""
    rows = np.moveaxis(values.detach().float().numpy(), dim, 0)
    found = []
    for own in rows.reshape(len(rows), -1):
        size = np.abs(own.astype(np.float64))
        logs = np.log(size[(size >= 2.0**-130) & np.isfinite(size)])
        found.append([own.size, logs.size, *((logs**power).sum() for power in range(1, 5))])
    return np.array(found)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "features": (lambda x: x.view(96, 7), 1),
    "sequences": (lambda x: x.view(12, 8, 7), 2),
    "channels": (lambda x: x.view(8, 7, 12), 1),
    "maps": (lambda x: x.view(4, 7, 4, 6), 1),
    "channels last": (lambda x: x.view(4, 7, 4, 6).to(memory_format=torch.channels_last), 1),
    "transposed": (lambda x: x.view(7, 96).t(), 1),
    "unbatched maps": (lambda x: x.view(7, 12, 8), 0),
}


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_are_those_of_numpy(layout: str, product: bool, generator: torch.Generator) -> None:
    lay_out, dim = LAYOUTS[layout]
    y, z = (lay_out(torch.randn(672, generator=generator)) for _ in range(2))
    values = y * z if product else y
    found = _sums(y, z if product else None, dim=dim)
    np.testing.assert_allclose(found, _by_numpy(values, dim), rtol=1e-12)


def test_zeros_and_what_is_not_finite_take_no_part(generator: torch.Generator) -> None:
    y = torch.randn(40, 3, generator=generator)
    y[:4, 0] = torch.tensor([0.0, -0.0, torch.inf, torch.nan])
    y[:3, 1] = torch.tensor([2.0**-130, 2.0**-131, -torch.inf])
    y[:, 2] = 0
    found = _sums(y, neurons=3)
    np.testing.assert_allclose(found, _by_numpy(y, 1), rtol=1e-12)
    assert found[:, :2].tolist() == [[40, 36], [40, 38], [40, 0]]
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(y, counts, 0)
    assert found[:, 1].sum() == counts[0, FIRST_POSITIVE:FIRST_NONFINITE].sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_products_are_taken_in_single_precision(
    dtype: torch.dtype, generator: torch.Generator
) -> None:
    y, z = (torch.randn(50, 7, generator=generator).to(dtype) for _ in range(2))
    np.testing.assert_allclose(_sums(y, z), _by_numpy(y.float() * z.float(), 1), rtol=1e-12)


def test_batches_add_up_and_narrow_layers_leave_the_rest_empty(generator: torch.Generator) -> None:
    y = torch.randn(60, 5, generator=generator)
    table = torch.zeros(1, 8, POWERS, dtype=torch.float64)
    for part in y.split((10, 0, 50)):
        add_log_powers_(part, None, table, 0)
    np.testing.assert_allclose(table[0, :5], _by_numpy(y, 1), rtol=1e-12)
    assert not table[0, 5:].any()


def test_of_many_neurons_some_are_taken_at_a_constant_stride(generator: torch.Generator) -> None:
    y = torch.randn(20, 23, generator=generator)
    found = _sums(y, neurons=8)
    np.testing.assert_allclose(found, _by_numpy(y[:, ::3], 1), rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 3])
def test_the_limit_is_kept_at_places_of_every_index(dim: int) -> None:
    shape = (6, 4, 10, 4)
    places = torch.arange(6 * 4 * 10 * 4, dtype=torch.float64).view(shape)
    few = by_neuron(places, dim, limit=240)
    assert few.shape == (few.numel() // 4, 4)
    assert 120 < few.numel() <= 240
    indices = [index.unique().tolist() for index in torch.unravel_index(few.long(), shape)]
    assert indices == [list(range(size)) for size in shape]
    assert (torch.unravel_index(few.long(), shape)[dim] == torch.arange(4)).all()


def test_a_single_value_or_one_dimension_are_one_sample() -> None:
    assert by_neuron(torch.tensor(2.0)).tolist() == [[2.0]]
    assert by_neuron(torch.arange(3.0)).tolist() == [[0.0, 1.0, 2.0]]


def test_integers_have_no_logarithms_here() -> None:
    with pytest.raises(TypeError, match="floating-point"):
        _sums(torch.ones(3, 3, dtype=torch.int64))
