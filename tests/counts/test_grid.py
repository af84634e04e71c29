import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, codes, edges, log_edges


def _code_by_struct(value: float) -> int:
    """The definition, on one number, without torch."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits & 0x7FFFFFFF) >> 19


def test_every_edge_is_the_first_value_of_its_bin() -> None:
    lower = edges()[:-1].to(torch.float32)
    assert codes(lower).tolist() == list(range(FIRST_NONFINITE))


def test_the_value_just_below_an_edge_belongs_to_the_bin_below() -> None:
    lower = edges()[1:-1].to(torch.float32)
    below = torch.nextafter(lower, torch.zeros(()))
    assert codes(below).tolist() == list(range(FIRST_NONFINITE - 1))


def test_last_edge_is_the_first_magnitude_float32_cannot_hold() -> None:
    assert edges()[-1].item() == 2.0**128
    assert codes(torch.tensor(torch.finfo(torch.float32).max)).item() == FIRST_NONFINITE - 1


def test_sixteen_bins_to_the_octave() -> None:
    normal = edges()[128:]
    assert torch.equal(normal[16:], 2 * normal[:-16])
    widths = log_edges()[128:].diff()
    assert widths.min().item() == pytest.approx(math.log(32 / 31), rel=1e-12)
    assert widths.max().item() == pytest.approx(math.log(17 / 16), rel=1e-12)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0.0, 0),
        (-0.0, 0),
        (2.0**-131, 0),
        (2.0**-130, 1),
        (2.0**-149, 0),
        (2.0**-126, 16),
        (1.0, 2032),
        (-1.0, 2032),
        (math.inf, FIRST_NONFINITE),
        (-math.inf, FIRST_NONFINITE),
    ],
)
def test_landmark_values(value: float, code: int) -> None:
    assert codes(torch.tensor([value])).item() == code


def test_nan_is_above_every_finite_code() -> None:
    assert FIRST_NONFINITE < codes(torch.tensor(math.nan)).item() < CODES


@given(st.lists(st.floats(width=32), max_size=40))
def test_agrees_with_the_definition_on_any_float(values: list[float]) -> None:
    assert codes(torch.tensor(values, dtype=torch.float32)).tolist() == [
        _code_by_struct(value) for value in values
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_read_as_float32(dtype: torch.dtype, generator: torch.Generator) -> None:
    exponents = torch.randint(-40, 40, (5000,), generator=generator).to(torch.float64)
    values = (torch.randn(5000, generator=generator, dtype=torch.float64) * 2**exponents).to(dtype)
    assert torch.equal(codes(values), codes(values.to(torch.float32)))


def test_every_float16_and_bfloat16_bit_pattern() -> None:
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        values = patterns.view(dtype)
        expected = (values.to(torch.float32).view(torch.int32) & 0x7FFFFFFF) >> 19
        assert torch.equal(codes(values).to(torch.int32), expected), dtype


def test_float64_beyond_float32_is_zero_or_infinite() -> None:
    assert codes(torch.tensor([1e-300, 1e300], dtype=torch.float64)).tolist() == [0, 4080]


def test_shapes_and_strides(generator: torch.Generator) -> None:
    values = torch.randn(3, 4, 5, generator=generator)
    for view in (values, values.transpose(0, 2), values[:, ::2], values[0, 0, 0], values[:0]):
        assert codes(view).shape == view.shape
        assert codes(view).flatten().tolist() == [
            _code_by_struct(value) for value in view.flatten().tolist()
        ]


def test_no_graph_is_kept() -> None:
    assert not codes(torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_other_kinds_of_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"got dtype {dtype}.*convert"):
        codes(torch.zeros(2, dtype=dtype))
