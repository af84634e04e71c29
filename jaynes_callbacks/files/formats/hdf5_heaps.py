"""Check the heaps of texts in an HDF5 file, because the HDF5 library does not.

It goes round for ever in a heap of which a part takes no bytes, and makes room for a text of any
length before it looks for it.  Format: "Global Heap" in
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from collections.abc import Iterator, Sequence
from struct import Struct

import numpy as np
import numpy.typing as npt

from jaynes_callbacks.files.limits import Limits

__all__ = ["check_heaps"]

_Bytes = npt.NDArray[np.uint8]
#: Signature, version and reserved bytes, with which a heap begins; then comes its size.
_BEGIN, _SIZE = b"GCOL\x01\0\0\0", Struct("<Q")
_HEADER = len(_BEGIN) + _SIZE.size
#: Number, references and size of a part; number 0 is what is free, its size with this header.
_PART = Struct("<HH4xQ")
#: How the file refers to a text: its length, the heap's place, and the part's number.
_REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("part", "<u4")])
#: What stands before the heap's place where a virtual dataset refers to its sources: the version of
#: the layout, and its class.  Taken for the upper half of a length it is 50 MB.
_VIRTUAL = 0x0304
_BLOCK = 1 << 20


def check_heaps(content: _Bytes, values: Sequence[tuple[int, int]], limits: Limits) -> None:
    """Check all heaps of a file, and the lengths of texts in them.

    Args:
        content: bytes of the file.
        values: first and last places of arrays' values, which are not searched for heaps.
        limits: on the length of texts.

    Raises:
        ValueError: if the parts of a heap do not fill it, or a text is too long.
    """
    heaps = list(_heaps(content, values))
    for start in heaps:
        (size,) = _SIZE.unpack(bytes(content[start + len(_BEGIN) : start + _HEADER]))
        at, end = start + _HEADER, start + size
        if size < _HEADER or end > len(content):
            raise ValueError("a heap of texts in it is not whole")
        while at + _PART.size <= end:
            number, _, length = _PART.unpack(bytes(content[at : at + _PART.size]))
            needed = _PART.size + -(-length // 8) * 8 if number else length
            if needed < _PART.size or at + needed > end:
                raise ValueError("the parts of a heap of texts in it do not fill it")
            at += needed
    for _, block in _blocks(content, values) if heaps else ():
        if len(block) < _REFERENCE.itemsize:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(block, _REFERENCE.itemsize)
        found = np.ascontiguousarray(windows).view(_REFERENCE)
        is_one = np.isin(found["heap"], heaps) & (found["part"] > 0) & (found["part"] < 1 << 16)
        is_length = found["length"] >> 16 != _VIRTUAL
        if (is_one & is_length & (found["length"] > limits.text)).any():
            raise ValueError(f"a text in it is longer than {limits.text:,} bytes")


def _heaps(content: _Bytes, values: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Yield where heaps begin, each once."""
    last = -1
    for at, block in _blocks(content, values):
        data = bytes(block)
        found = data.find(_BEGIN)
        while found >= 0:
            if at + found > last and at + found + _HEADER <= len(content):
                last = at + found
                yield last
            found = data.find(_BEGIN, found + 1)


def _blocks(content: _Bytes, values: Sequence[tuple[int, int]]) -> Iterator[tuple[int, _Bytes]]:
    """Yield what lies between the arrays' values in blocks, and where each begins.

    A block repeats the end of the one before it, so that nothing is missed that lies across.
    """
    at = 0
    for start, end in (*sorted(values), (len(content), len(content))):
        while at < start:
            yield at, content[at : min(start, at + _BLOCK)]
            at += _BLOCK - _REFERENCE.itemsize
        at = max(at, end)
