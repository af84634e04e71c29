import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jaynes_callbacks.counts.counting import count_, count_product_, linear_counts, subsample
from jaynes_callbacks.counts.grid import CODES, edges


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


class TestLinearCounts:
    def test_equal_to_numpy(self, generator: torch.Generator) -> None:
        values = torch.randn(400, 700, generator=generator)
        magnitudes = values.abs().flatten().double().numpy()
        expected, _ = np.histogram(magnitudes / magnitudes.max(), bins=100, range=(0, 1))
        found = linear_counts(values)
        assert found.maximum.item() == magnitudes.max()
        # float32 division moves the odd value that lies on an edge, no more.
        assert np.abs(found.counts.numpy() - expected).sum() <= 4

    def test_zeros_and_nonfinite_values_take_no_part(self) -> None:
        values = torch.tensor([0.0, math.nan, math.inf, -2.0, 1.0, 0.01])
        found = linear_counts(values, bins=4)
        assert found.maximum == 2.0
        assert found.counts.tolist() == [1, 0, 1, 1]

    @pytest.mark.parametrize(
        "values", [torch.zeros(3, 2), torch.zeros(0), torch.tensor([math.nan])]
    )
    def test_nothing_to_count(self, values: Tensor) -> None:
        found = linear_counts(values)
        assert found.maximum == 0
        assert found.counts.sum() == 0

    def test_subnormal_maximum(self) -> None:
        found = linear_counts(torch.tensor([1e-44, 5e-45]), bins=10)
        assert found.counts.sum() == 2


# Of getrusage the peak begins with that of the process that started this one.
PEAK = """
import re, torch
from jaynes_callbacks.counts.counting import count_, linear_counts
def peak(): return int(re.search("VmHWM:[^0-9]+([0-9]+)", open("/proc/self/status").read())[1])
torch.set_num_threads(1)
counts = torch.zeros(1, 4096, dtype=torch.int64)
weights = torch.randn(8192, 8192)
# What is imported and compiled is so here.
count_(torch.randn(1 << 18), counts, 0)
linear_counts(torch.randn(1 << 18))
before = peak()
count_(weights, counts, 0)
linear_counts(weights)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_tensor() -> None:
    """Of 256 MiB of weights: what is needed is for slices, however many."""
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 48 * 1024
