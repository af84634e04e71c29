"""Counting a weight with its core: what the two find one by one, to the bit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count
from jaynes_callbacks.counts.two_way import two_way
from jaynes_callbacks.counts.with_core import count_with_core

SHAPES = [(300, 1100), (40, 3, 7, 7), (1, 50), (50, 1), (0, 5)]


def _assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("zeros", [False, True])
def test_it_is_what_both_find(
    shape: tuple[int, ...], dtype: torch.dtype, zeros: bool, generator: torch.Generator
) -> None:
    values = torch.randn(shape, generator=generator).to(dtype)
    if zeros and values.numel():
        values.view(-1)[::3] = 0
    for each in (values, values.transpose(0, 1)):
        counted, core, effects = count_with_core(each, 30, slice_size=1 << 16)
        _assert_same(counted, count(each, 30))
        expected, of_rows = two_way(each, slice_size=1 << 16)
        assert torch.equal(core, expected)
        _assert_same(effects, of_rows)


def test_values_are_read_twice(generator: torch.Generator) -> None:
    values = torch.randn(64, 100, generator=generator)
    values[values == 0] = 1
    read: list[int] = []

    def apply(function: Any, slices: Any, *others: Any) -> Any:
        for each, *rest in zip(slices, *others, strict=True):
            read.append(each.numel())
            yield function(each, *rest)

    count_with_core(values, 10, slice_size=1600, apply=apply)
    assert read == [1600] * 8
    assert sum(read) == 2 * values.numel()


@pytest.mark.parametrize("values", [torch.ones(5), torch.ones(3, 3, dtype=torch.int64)])
def test_what_has_no_core_raises(values: Tensor) -> None:
    with pytest.raises((TypeError, ValueError), match=r"two dimensions|floating-point"):
        count_with_core(values, 10)
