"""Check the heaps of texts in an HDF5 file, because the HDF5 library does not.

It goes round for ever in a heap of which a part takes no bytes.  Format: "Global Heap" in
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from collections.abc import Iterator, Sequence
from struct import Struct

import numpy as np
import numpy.typing as npt

__all__ = ["check_heaps"]

_Bytes = npt.NDArray[np.uint8]
#: Signature, version and reserved bytes, with which a heap begins; then comes its size.
_BEGIN, _SIZE = b"GCOL\x01\0\0\0", Struct("<Q")
_HEADER = len(_BEGIN) + _SIZE.size
#: Number, references and size of a part; number 0 is what is free, its size with this header.
_PART = Struct("<HH4xQ")
_BLOCK = 1 << 20


def check_heaps(content: _Bytes, values: Sequence[tuple[int, int]]) -> None:
    """Check all heaps of a file.

    Args:
        content: bytes of the file.
        values: first and last places of arrays' values, which are not searched for heaps.

    Raises:
        ValueError: if the parts of one do not fill it.
    """
    for start in _heaps(content, values):
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


def _heaps(content: _Bytes, values: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Yield where heaps begin, between the arrays' values."""
    at = 0
    for start, end in (*sorted(values), (len(content), len(content))):
        while at < start:
            block = bytes(content[at : min(start, at + _BLOCK)])
            found = block.find(_BEGIN)
            while found >= 0:
                if at + found + _HEADER <= len(content):
                    yield at + found
                found = block.find(_BEGIN, found + 1)
            # A heap may begin in one block and go on in the next.
            at += max(1, len(block) - len(_BEGIN) + 1)
        at = max(at, end)
