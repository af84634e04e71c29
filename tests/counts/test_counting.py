import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jaynes_callbacks.counts import kernels
from jaynes_callbacks.counts.counting import (
    count,
    count_,
    count_product_,
    reason_not_countable,
    subsample,
)
from jaynes_callbacks.counts.grid import CODES, edges
from tests.processes import python

#: Every floating-point dtype that torch converts to float32.
DTYPES = [
    getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
]
#: Of 300,000 values those of 8 and 16 bits are counted by patterns, of 5,000 those of 8 bits.
SIZES = [300_000, 5_000, 700]


def _counted(values: Tensor) -> Tensor:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(values, counts, 0)
    return counts[0]


def _counted_by_numpy(values: Tensor) -> Tensor:
    """Bins by comparison with the edges, not by bits."""
    magnitudes = values.detach().to(torch.float64).abs().flatten().numpy()
    finite = magnitudes[np.isfinite(magnitudes)]
    counts, _ = np.histogram(finite, bins=np.append(edges().numpy(), np.inf))
    return torch.from_numpy(counts[:-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_equal_to_numpy_over_the_same_edges(dtype: torch.dtype, generator: torch.Generator) -> None:
    values = torch.randn(300_000, generator=generator).exp().to(dtype).to(torch.float32)
    values[::7] = 0
    assert torch.equal(_counted(values.to(dtype))[:4080], _counted_by_numpy(values))


def test_products_are_counted_as_if_they_were_held(generator: torch.Generator) -> None:
    left = torch.randn(600, 700, generator=generator)
    right = torch.randn(700, 600, generator=generator).t()
    counts = torch.zeros(2, CODES, dtype=torch.int64)
    count_product_(left, right, counts, 1)
    assert torch.equal(counts[1], _counted(left * right))
    assert counts[0].sum() == 0
    torch.library.opcheck(torch.ops.jaynes_callbacks.count_product_, (left, right, counts, 0, 1000))


def test_nothing_is_dropped() -> None:
    values = torch.tensor([0.0, -0.0, 1e-45, math.inf, -math.inf, math.nan, 1.0, -1.0])
    counts = _counted(values)
    assert counts.sum() == values.numel()
    assert counts[0] == 3
    assert counts[4080:].sum() == 3
    assert counts[2032] == 2


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert _counted(torch.ones(shape)).sum() == math.prod(shape)


def test_strides_and_gradients_do_not_matter(generator: torch.Generator) -> None:
    values = torch.randn(8, 6, 5, 4, generator=generator)
    expected = _counted(values)
    channels_last = values.to(memory_format=torch.channels_last)
    for same in (channels_last, values.permute(3, 1, 0, 2), values.requires_grad_()):
        assert torch.equal(_counted(same), expected)
    with torch.no_grad():
        assert torch.equal(_counted(values[::2]), _counted(values[::2].clone()))
        assert torch.equal(_counted(values[:1].expand(9, 6, 5, 4)), 9 * _counted(values[:1]))


def test_counting_in_slices_is_counting_at_once(generator: torch.Generator) -> None:
    values = torch.randn(2**18 + 12_345, generator=generator)
    halves = _counted(values[:100_000]) + _counted(values[100_000:])
    assert torch.equal(_counted(values), halves)
    assert _counted(values).sum() == values.numel()


@given(
    st.lists(st.floats(width=32), max_size=60),
    st.integers(0, 60),
    st.integers(-20, 20),
)
@settings(deadline=None)
def test_algebra(values: list[float], cut: int, octaves: int) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    whole = _counted(tensor)
    assert torch.equal(_counted(tensor[:cut]) + _counted(tensor[cut:]), whole)
    assert torch.equal(_counted(tensor.flip(0)), whole)
    moderate = tensor[(tensor.abs() > 2.0**-80) & (tensor.abs() < 2.0**80)]
    shifted = _counted(moderate).roll(16 * octaves)
    assert torch.equal(_counted(moderate * 2.0**octaves), shifted)


def test_compiles_without_a_graph_break() -> None:
    counts = torch.zeros(2, CODES, dtype=torch.int64)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(x: Tensor) -> Tensor:
        y = torch.relu(x)
        count_(y, counts, 1)
        return 2 * y

    x = torch.tensor([-1.0, 0.5, 2.0])
    assert torch.equal(step(x), torch.tensor([0.0, 1.0, 4.0]))
    assert torch.equal(counts[1], _counted(torch.relu(x)))
    assert counts[0].sum() == 0


def test_the_custom_op_keeps_its_contract() -> None:
    counts = torch.zeros(2, CODES, dtype=torch.int64)
    op = torch.ops.jaynes_callbacks.count_.default
    torch.library.opcheck(op, (torch.randn(5), counts, 1, 4), raise_exception=True)


class TestSubsample:
    def test_small_tensors_are_taken_whole(self) -> None:
        values = torch.ones(3, 4)
        assert subsample(values, 12) is values

    @pytest.mark.parametrize("shape", [(32, 64, 8, 8), (100, 10), (7, 11, 13), (4096,)])
    @pytest.mark.parametrize("limit", [97, 256])
    def test_keeps_the_limit(self, shape: tuple[int, ...], limit: int) -> None:
        taken = subsample(torch.zeros(shape), limit).numel()
        assert limit / 2 < taken <= limit

    def test_no_index_of_any_dimension_is_favoured(self) -> None:
        shape = (16, 12, 10, 10)
        positions = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
        taken = subsample(positions, 2000).long()
        for indices, size in zip(torch.unravel_index(taken, shape), shape, strict=True):
            share = torch.bincount(indices, minlength=size) * size / len(taken)
            assert share.sub(1).abs().max() < 0.02


def _by_loop(values: Tensor, bins: int) -> tuple[list[int], float, list[int]]:
    """Do what `count` does, one value after the other, in numpy's float32."""
    counts, linear = [0] * CODES, [0] * bins
    magnitudes = values.detach().to(torch.float32).abs().flatten().numpy()
    for code in (magnitudes.view(np.uint32) & 0x7FFFFFFF) >> 19:
        counts[code] += 1
    finite = magnitudes[np.isfinite(magnitudes) & (magnitudes > 0)]
    maximum = finite.max(initial=np.float32(0))
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.float32(1) / maximum * np.float32(bins)
        for scaled in finite * factor:
            linear[int(min(scaled, np.float32(bins - 1)))] += 1
    return counts, float(maximum), linear


def _values(size: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    values = torch.randn(size, generator=generator, dtype=torch.float64).exp()
    values[::3] *= -1
    special = [0.0, -0.0, 1e-45, -1e-39, 1e-30, math.inf, -math.inf, math.nan]
    values[5 : 5 + len(special)] = torch.tensor(special, dtype=torch.float64)
    return values.to(torch.float32).to(dtype) if dtype.itemsize == 1 else values.to(dtype)


def _in_threads(function: Callable[[Tensor], Any], slices: Any) -> list[Any]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(function, slices))


class TestCount:
    @pytest.mark.parametrize("by_numba", [True, False])
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.sampled(5)
    def test_equal_to_a_loop_over_the_values(
        self,
        dtype: torch.dtype,
        size: int,
        by_numba: bool,
        generator: torch.Generator,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not by_numba:
            monkeypatch.setattr(kernels, "_compiled_loops", lambda: None)
        values = _values(size, dtype, generator)
        counts, maximum, linear = _by_loop(values, 70)
        found = count(values, 70)
        assert found.counts.tolist() == counts
        assert found.maximum.item() == maximum
        assert found.linear.tolist() == linear
        assert sum(counts) == size

    @pytest.mark.parametrize("apply", [map, _in_threads])
    @pytest.mark.parametrize("slice_size", [1, 999, 100_000])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.sampled(5)
    def test_slices_count_what_the_whole_counts(
        self, dtype: torch.dtype, slice_size: int, apply: Any, generator: torch.Generator
    ) -> None:
        values = _values(min(300_000, 700 * slice_size), dtype, generator)
        found, whole = count(values, slice_size=slice_size, apply=apply), count(values)
        # What torch makes of the payload of a float16's nan depends on where in a vector it is.
        assert torch.equal(found.counts[:4081], whole.counts[:4081])
        assert found.counts.sum() == whole.counts.sum()
        assert torch.equal(found.maximum, whole.maximum)
        assert torch.equal(found.linear, whole.linear)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_any_strides(self, dtype: torch.dtype, generator: torch.Generator) -> None:
        values = _values(600 * 700, dtype, generator).view(600, 700)
        cube = values.view(60, 70, 10, 10)
        for view in (
            values.t(),
            values[::2, 1::3],
            values[:, 5],
            values[3, 4],
            values[:0],
            values[:1].expand(500, 700),
            cube.to(memory_format=torch.channels_last),
            values.flatten()[::3],
        ):
            copy = view.clone(memory_format=torch.contiguous_format)
            for found, expected in zip(count(view), count(copy), strict=True):
                assert torch.equal(found, expected)

    def test_equal_to_numpy_over_the_same_bins(self, generator: torch.Generator) -> None:
        values = torch.randn(400, 700, generator=generator)
        magnitudes = values.abs().flatten().double().numpy()
        expected, _ = np.histogram(magnitudes / magnitudes.max(), bins=100, range=(0, 1))
        found = count(values)
        assert found.maximum.item() == magnitudes.max()
        assert torch.equal(found.counts[:4080], _counted_by_numpy(values))
        # float32 division moves the odd value that lies on an edge, no more.
        assert np.abs(found.linear.numpy() - expected).sum() <= 4

    def test_zeros_and_nonfinite_values_are_in_no_equal_bin(self) -> None:
        values = torch.tensor([0.0, math.nan, math.inf, -2.0, 1.0, 0.01])
        found = count(values, bins=4)
        assert found.maximum == 2.0
        assert found.linear.tolist() == [1, 0, 1, 1]
        assert found.counts.sum() == 6

    @pytest.mark.parametrize(
        "values", [torch.zeros(3, 2), torch.zeros(0), torch.tensor([math.nan])]
    )
    def test_nothing_to_count(self, values: Tensor) -> None:
        found = count(values)
        assert found.maximum == 0
        assert found.linear.sum() == 0
        assert found.counts.sum() == values.numel()

    def test_subnormal_maximum(self) -> None:
        found = count(torch.tensor([1e-44, 5e-45]), bins=10)
        assert found.linear.sum() == 2

    def test_parameters_are_counted_without_a_graph(self) -> None:
        found = count(torch.nn.Parameter(torch.ones(3)))
        assert not any(part.requires_grad for part in found)

    @pytest.mark.parametrize("size", [3, 1 << 17])
    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_other_kinds_of_numbers_are_refused(self, dtype: torch.dtype, size: int) -> None:
        values = torch.ones(size, dtype=dtype)
        with pytest.raises(TypeError, match=f"got dtype {dtype}.*convert"):
            count(values)
        with pytest.raises(TypeError, match=f"got dtype {dtype}.*convert"):
            _counted(values)


class _Wrapper(Tensor):
    """A tensor whose values lie in another one, as those of quantised weights do."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Wrapper":
        made: _Wrapper = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    inner: Tensor

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, *_: Any) -> "_Wrapper":
        return _Wrapper(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ones(2, device="meta"), "on the meta device"),
        (lambda: torch.eye(3).to_sparse(), "sparse or nested"),
        (lambda: _Wrapper(torch.ones(2)), "a _Wrapper, whose values lie in other tensors"),
        (lambda: torch.ones(2, dtype=torch.int8), "of dtype torch.int8"),
        (lambda: torch.ones(2, dtype=torch.complex64), "of dtype torch.complex64"),
    ],
)
def test_reasons_not_to_count(make: Callable[[], Tensor], reason: str) -> None:
    found = reason_not_countable(make())
    assert found is not None
    assert found.startswith(reason)


@pytest.mark.parametrize("dtype", DTYPES)
def test_floating_point_tensors_are_countable(dtype: torch.dtype) -> None:
    assert reason_not_countable(torch.ones(2, 3).to(dtype)) is None
    assert reason_not_countable(torch.nn.Parameter(torch.ones(2))) is None


def test_counting_does_not_load_torchmetrics() -> None:
    """Only `counts.metric` is for users of torchmetrics, whose import costs a second."""
    code = (
        "import sys, jaynes_callbacks.counts.counting, jaynes_callbacks.counts.threads\n"
        "from jaynes_callbacks.counts.kernels import _compiled_loops\n"
        "_compiled_loops()\n"
        "assert 'torchmetrics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# From /proc: the peak that getrusage reports includes that of the process that started this one.
PEAK = """
import re, torch
from jaynes_callbacks.counts.counting import count, count_
def peak(): return int(re.search("VmHWM:[^0-9]+([0-9]+)", open("/proc/self/status").read())[1])
torch.set_num_threads(1)
counts = torch.zeros(1, 4096, dtype=torch.int64)
weights = torch.randn(8192, 8192)
# What is imported and compiled is so here.
count_(torch.randn(1 << 18), counts, 0)
count(torch.randn(1 << 18))
before = peak()
count_(weights, counts, 0)
count(weights)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_tensor() -> None:
    """Of 256 MiB of weights: what is needed is for slices, however many."""
    run = python("-c", PEAK)
    assert int(run.stdout) < 48 * 1024
