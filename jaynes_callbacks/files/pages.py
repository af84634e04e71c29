"""Advise the kernel on the pages of mapped files: read ahead, and release after use.

Pages of a mapped file that were used stay counted as this process' memory until the kernel needs
them for something else.  `release` returns them at once, so that the peak does not grow with the
file; `prefetch` has the kernel read ahead while something else is counted.  Both do nothing where
the system has no `madvise`.
"""

import ctypes
import mmap
from functools import lru_cache
from typing import Any

from torch import Tensor

__all__ = ["prefetch", "release"]


def prefetch(tensor: Tensor) -> None:
    """Begin to read the pages of a mapped tensor, without waiting for them."""
    _advise(tensor, getattr(mmap, "MADV_WILLNEED", None))


def release(tensor: Tensor) -> None:
    """Return the pages between a mapped tensor's first value and its last to the system.

    The next use reads them anew.  Only for a view of a file: other memory would lose its values.
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
    """Return the C library's `madvise`, or None where there is none."""
    try:
        return ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
