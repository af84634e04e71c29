"""Pages of mapped files: asked for ahead of their use, let go after it.

A mapped file costs no memory of its own, but what was looked at stays counted as this process'
until the kernel needs it.  `forget` gives it back at once, so that the peak does not grow with the
file; `expect` has the kernel read ahead while something else is counted.  Where the system has no
`madvise` both do nothing.
"""

import ctypes
import mmap
from functools import lru_cache
from typing import Any

from torch import Tensor

__all__ = ["expect", "forget"]


def expect(tensor: Tensor) -> None:
    """Begin to read the pages of a mapped tensor, without waiting for them."""
    _advise(tensor, getattr(mmap, "MADV_WILLNEED", None))


def forget(tensor: Tensor) -> None:
    """Give back the pages between a mapped tensor's first value and its last.

    The next look reads them anew.  Only for a view of a file: other memory would lose its values.
    """
    _advise(tensor, getattr(mmap, "MADV_DONTNEED", None))


def _advise(tensor: Tensor, advice: int | None) -> None:
    madvise = _madvise()
    if madvise is None or advice is None or not tensor.numel():
        return
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    span = 1 + sum((size - 1) * stride for size, stride in steps)
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + span * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


@lru_cache(maxsize=1)
def _madvise() -> Any:
    try:
        return ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
