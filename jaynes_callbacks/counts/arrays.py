"""Take arrays of other libraries for tensors, without a copy where this can be done."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

__all__ = ["Array", "as_tensor"]

#: Types that numpy lacks; the package ml_dtypes adds them under PyTorch's names.
_SHORT_FLOATS = {
    name: getattr(torch, name) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
}


@runtime_checkable
class Array(Protocol):
    """A tensor of PyTorch, an array of numpy, or anything that follows DLPack.

    Specification: https://data-apis.org/array-api/latest/design_topics/data_interchange.html
    """

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a capsule that says where the values are."""


def as_tensor(array: Array) -> Tensor:
    """Return a tensor with an array's values.

    Args:
        array: a tensor, which is returned as it is; an array of numpy; or anything with
            ``__dlpack__``.

    Raises:
        TypeError: for an array of anything but numbers, and one that PyTorch cannot take over.

    Example:
        >>> as_tensor(np.arange(3.0))
        tensor([0., 1., 2.], dtype=torch.float64)
    """
    if isinstance(array, Tensor):
        return array
    if isinstance(array, np.ndarray):
        return _of_numpy(array)
    try:
        return from_dlpack(array)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"a {type(array).__name__} cannot be taken for a tensor ({error}); convert it by "
            "numpy.asarray"
        ) from error


def _of_numpy(array: npt.NDArray[Any]) -> Tensor:
    # torch knows no other order of bytes, no negative strides and no arrays that are read only.
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not native.flags.writeable or any(step < 0 for step in native.strides):
        native = native.copy()
    name = native.dtype.name
    if name in _SHORT_FLOATS:
        return torch.from_numpy(native.view(f"i{native.dtype.itemsize}")).view(_SHORT_FLOATS[name])
    try:
        return torch.from_numpy(native)
    except TypeError as error:
        raise TypeError(
            f"an array of dtype {name} holds no numbers that PyTorch knows; convert it by "
            ".astype('float32')"
        ) from error
