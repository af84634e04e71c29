"""Both paths of counting, and the patterns of short floats, give the same counts."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from jaynes_callbacks.counts import kernels as passes
from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="the extra `fast` is not installed")
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SHORT = [
    getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
]
SPECIAL = [0.0, -0.0, 1e-45, -1e-39, 1e-38, 3e38, math.inf, -math.inf, math.nan]


def _everything(values: Tensor) -> list[Any]:
    flat = values.reshape(-1)
    counts, maximum = passes.first_pass(flat)
    found = [counts, maximum, passes.position_counts(flat, maximum, 100)]
    found += [passes.code_counts(flat), passes.position_counts(flat, maximum, 1000)]
    if values.dtype in SHORT:
        found.append(passes.pattern_counts(flat))
    return found


def _by_torch(values: Tensor) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_compiled_loops", lambda: None)
        return _everything(values)


def _by_numba(values: Tensor) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_WORTH_COMPILING", 0)
        return _everything(values)


def _assert_equal(found: list[Any], expected: list[Any]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@needs_numba
@given(
    arrays.arrays(
        np.uint32, st.integers(0, 40), elements=st.integers(0, 2**32 - 1), fill=st.nothing()
    ),
    st.sampled_from(DTYPES),
)
def test_any_bits_count_alike(bits: Any, dtype: torch.dtype) -> None:
    values = torch.from_numpy(bits.view(np.float32).copy()).to(dtype)
    _assert_equal(_by_numba(values), _by_torch(values))


@needs_numba
@pytest.mark.parametrize("dtype", [*DTYPES, *SHORT[2:]])
@pytest.mark.parametrize("size", [1, 8191, 8192, 8195, 300_007])
def test_any_size_counts_alike(dtype: torch.dtype, size: int, generator: torch.Generator) -> None:
    values = torch.randn(size, generator=generator).exp()
    special = torch.tensor(SPECIAL)[: max(0, size - 1)]
    values[1 : 1 + len(special)] = special
    _assert_equal(_by_numba(values.to(dtype)), _by_torch(values.to(dtype)))


@needs_numba
def test_float64_beyond_float32_counts_alike() -> None:
    values = torch.tensor([1e300, -1e300, 1e-300, 5e-324, 1.0], dtype=torch.float64)
    _assert_equal(_by_numba(values), _by_torch(values))


@needs_numba
@pytest.mark.parametrize("maximum", [1e-44, 1e-40, 3.4e38])
def test_extreme_maxima_count_alike(maximum: float) -> None:
    values = torch.tensor([maximum, maximum / 2, maximum / 3, 0.0, math.inf, math.nan])
    _assert_equal(_by_numba(values), _by_torch(values))


@needs_numba
def test_large_tensors_are_counted_by_numba(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    loops = passes._compiled_loops()
    assert loops is not None
    called: list[int] = []
    first_pass: Callable[[Tensor], tuple[Tensor, Tensor]] = loops.first_pass

    def spy(part: Tensor) -> tuple[Tensor, Tensor]:
        called.append(part.numel())
        return first_pass(part)

    monkeypatch.setattr(loops, "first_pass", spy)
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(torch.randn(1 << 17, generator=generator), counts, 0)
    count_(torch.randn(1000, generator=generator), counts, 0)
    assert called == [1 << 17]
    assert counts.sum() == (1 << 17) + 1000


@pytest.mark.parametrize("dtype", SHORT)
def test_patterns_say_what_two_passes_say(dtype: torch.dtype, generator: torch.Generator) -> None:
    values = torch.randn(300_000, generator=generator).exp()
    values[: len(SPECIAL)] = torch.tensor(SPECIAL)
    values = values.to(dtype)
    first, linear = passes.expand_patterns(passes.pattern_counts(values), dtype, 100)
    expected = passes.first_pass(values)
    _assert_equal([*first], [*expected])
    assert torch.equal(linear, passes.position_counts(values, expected.maximum, 100))


@pytest.mark.parametrize("dtype", SHORT)
def test_every_pattern_expands_to_what_two_passes_find(dtype: torch.dtype) -> None:
    """All bit patterns of a dtype, some more often than others and some never."""
    bits = {1: torch.uint8, 2: torch.int16}[dtype.itemsize]
    every = torch.arange(1 << (8 * dtype.itemsize)).to(bits)
    values = every.repeat_interleave(torch.arange(len(every)) % 5).view(dtype)
    for compute in (_by_torch, _by_numba) if HAS_NUMBA else (_by_torch,):
        counts, maximum, linear, _, _, patterns = compute(values)
        first, expanded = passes.expand_patterns(patterns, dtype, 100)
        # What torch makes of the payload of a float16's nan depends on where in a vector it is.
        assert torch.equal(first.counts[:4081], counts[:4081])
        assert first.counts.sum() == len(values)
        assert first.maximum == maximum
        assert torch.equal(expanded, linear)


@pytest.mark.parametrize("dtype", SHORT)
def test_patterns_of_nothing(dtype: torch.dtype) -> None:
    has_zero = torch.zeros(1).to(dtype).float() == 0
    nothing = torch.full((5,), 0.0 if has_zero else math.nan).to(dtype)
    for values in (torch.zeros(0, dtype=dtype), nothing):
        first, linear = passes.expand_patterns(passes.pattern_counts(values), dtype, 100)
        assert first.counts.sum() == values.numel()
        assert first.maximum == 0
        assert linear.sum() == 0
