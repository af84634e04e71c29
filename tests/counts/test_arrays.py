"""Arrays of other libraries: the same values, the same records."""

from typing import Any

import numpy as np
import pytest
import torch

from jaynes_callbacks import analyse, compare
from jaynes_callbacks.counts.arrays import as_tensor


class Exported:
    """An array of a library that only follows DLPack."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tensor.__dlpack__(*args, **kwargs)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class Refusing(Exported):
    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        raise BufferError("not now")


def read_only(array: Any) -> Any:
    array.setflags(write=False)
    return array


WEIGHT = np.random.default_rng(3).normal(size=(40, 50)).astype(np.float32)
ARRAYS: dict[str, Any] = {
    "plain": WEIGHT,
    "other order of bytes": WEIGHT.astype(">f4"),
    "columns first": np.asfortranarray(WEIGHT),
    "backwards": WEIGHT[::-1, ::-1].copy()[::-1, ::-1],
    "read only": read_only(WEIGHT.copy()),
    "DLPack": Exported(torch.from_numpy(WEIGHT)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_values_are_the_same(name: str) -> None:
    assert torch.equal(as_tensor(ARRAYS[name]), torch.from_numpy(WEIGHT))


@pytest.mark.parametrize("name", ["plain", "DLPack"])
def test_nothing_is_copied(name: str) -> None:
    assert as_tensor(ARRAYS[name]).data_ptr() == WEIGHT.__array_interface__["data"][0]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_short_floats(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    expected = torch.from_numpy(WEIGHT).to(getattr(torch, name))
    found = as_tensor(WEIGHT.astype(getattr(ml_dtypes, name)))
    assert torch.equal(found.float(), expected.float())


def test_a_tensor_is_returned_as_it_is() -> None:
    weight = torch.randn(3, 4)
    assert as_tensor(weight) is weight


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.zeros(3, "M8[s]")])
def test_what_holds_no_numbers_is_refused(array: Any) -> None:
    with pytest.raises(TypeError, match="holds no numbers that PyTorch knows"):
        as_tensor(array)


def test_an_array_that_cannot_be_exported_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a Refusing cannot be taken for a tensor \(not now\)"):
        as_tensor(Refusing(torch.ones(3)))


@pytest.mark.fitted
def test_records_are_the_same() -> None:
    (expected,) = analyse(torch.from_numpy(WEIGHT))
    for array in ARRAYS.values():
        (found,) = analyse(array)
        assert np.array_equal(found.counts, expected.counts)
        assert (found.gap, found.core_gap) == (expected.gap, expected.core_gap)
    mixed = {"a": WEIGHT, "b": torch.from_numpy(WEIGHT.copy()), "c": np.ones((9, 9), np.int64)}
    rows = {row.name: row for row in analyse(mixed)}
    assert rows["a"].gap == rows["b"].gap == expected.gap
    assert rows["c"].status
    (pair,) = compare({"a": WEIGHT}, {"a": torch.from_numpy(2 * WEIGHT)}).pairs
    assert pair.after.moved == pytest.approx(1)


def test_a_single_array_without_magnitudes_is_refused() -> None:
    with pytest.raises(TypeError, match="magnitudes are taken of a real floating-point tensor"):
        analyse(np.ones((9, 9), np.int64))
    with pytest.raises(TypeError, match="expected a tensor or an array under every name, got list"):
        analyse({"w": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="or the path of a checkpoint, got int"):
        analyse(3)  # type: ignore[arg-type]
