"""Find the arrays in a file of MessagePack as Flax writes it, without reading their values.

The file is walked over once, so that arrays are mapped; the library msgpack would copy them all.
Format: https://github.com/msgpack/msgpack/blob/master/spec.md and ``flax.serialization``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from jaynes_callbacks.files.limits import Limits

__all__ = ["Packed", "PackedArray", "unpack"]

_Bytes = npt.NDArray[np.uint8]
#: Types of extensions by which Flax stores arrays, and scalars as arrays without dimensions.
_ARRAY, _SCALAR = 1, 3
_DEEPEST = 64
#: First bytes of numbers of a fixed size.
_NUMBERS = {
    0xCA: Struct(">f"), 0xCB: Struct(">d"),
    0xCC: Struct(">B"), 0xCD: Struct(">H"), 0xCE: Struct(">I"), 0xCF: Struct(">Q"),
    0xD0: Struct(">b"), 0xD1: Struct(">h"), 0xD2: Struct(">i"), 0xD3: Struct(">q"),
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
#: First bytes of what states its length in 1, 2 or 4 bytes.
_BINARY, _EXTENSION, _TEXT = (0xC4, 0xC5, 0xC6), (0xC7, 0xC8, 0xC9), (0xD9, 0xDA, 0xDB)
_LISTS, _MAPS = (0xDC, 0xDD), (0xDE, 0xDF)
_LENGTHS = (Struct(">B"), Struct(">H"), Struct(">I"))


@dataclass(frozen=True)
class PackedArray:
    """An array in the file.

    Attributes:
        shape: its shape.
        dtype: of its values, as numpy names it.
        data: their bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    data: _Bytes


#: What is unpacked; other bytes and extensions are None.
Packed = dict[str, Any] | list[Any] | PackedArray | str | float | bool | None


def unpack(content: _Bytes, limits: Limits) -> Packed:
    """Unpack a file but for the values of its arrays.

    Raises:
        EOFError: if it ends too early.
        ValueError: if it is none, goes on after its end, or has too many parts.
    """
    reader = _Reader(content, limits)
    found: Packed = reader.read()
    if reader.at != len(content):
        raise ValueError(f"it goes on after its end, from byte {reader.at:,}")
    return found


class _Reader:
    """Reads objects one after the other.

    Attributes:
        at: the next byte.

    Args:
        content: bytes to read.
        limits: on the number of objects.
    """

    def __init__(self, content: _Bytes, limits: Limits) -> None:
        self._content, self._limits, self.at = content, limits, 0
        self._left = limits.objects

    def read(self, depth: int = 0) -> Any:
        """Read the next object with all that is in it."""
        self._spend(1)
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        first = self._take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return int(first) - (0x100 if first >= 0xE0 else 0)
        if first < 0xC0:
            return self._short(int(first), depth)
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        return self._long(int(first), depth)

    def _short(self, first: int, depth: int) -> Any:
        """Read what states its length in its first byte."""
        if first >= 0xA0:
            return self._text(first & 0x1F)
        return self._list(first & 0x0F, depth) if first >= 0x90 else self._map(first & 0x0F, depth)

    def _long(self, first: int, depth: int) -> Any:
        """Read what states its length in numbers of their own."""
        if first in _TEXT:
            return self._text(self._number(_LENGTHS[_TEXT.index(first)]))
        if first in _LISTS:
            return self._list(self._number(_LENGTHS[1 + _LISTS.index(first)]), depth)
        if first in _MAPS:
            return self._map(self._number(_LENGTHS[1 + _MAPS.index(first)]), depth)
        if first in _BINARY:
            return self._take(self._number(_LENGTHS[_BINARY.index(first)]))
        if first in _EXTENSION:
            size = self._number(_LENGTHS[_EXTENSION.index(first)])
            return self._extension(size)
        if 0xD4 <= first <= 0xD8:
            return self._extension(1 << (first - 0xD4))
        raise ValueError(f"byte {self.at - 1:,} begins no object")

    def _extension(self, size: int) -> PackedArray | None:
        kind = self._number(_NUMBERS[0xD0])
        content = self._take(size)
        if kind not in (_ARRAY, _SCALAR):
            return None
        inner = _Reader(content, self._limits)
        found = inner.read()
        if not isinstance(found, list) or len(found) != 3:
            raise ValueError("an array in it is none")
        shape, dtype, data = found
        is_shape = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        # Flax reads the name of the type as bytes, and old versions wrote it so.
        dtype = bytes(dtype).decode("ascii") if isinstance(dtype, np.ndarray) else dtype
        if not is_shape or not isinstance(dtype, str) or not isinstance(data, np.ndarray):
            raise ValueError("an array in it is none")
        return PackedArray(tuple(shape), dtype, data)

    def _map(self, number: int, depth: int) -> dict[str, Any]:
        self._spend(number)
        return {str(key): value for key, value in self._pairs(number, depth)}

    def _pairs(self, number: int, depth: int) -> Iterator[tuple[Any, Any]]:
        for _ in range(number):
            key = self.read(depth + 1)
            if not isinstance(key, str | int):
                raise ValueError("a name in it is neither text nor number")
            yield key, self.read(depth + 1)

    def _list(self, number: int, depth: int) -> list[Any]:
        return [self.read(depth + 1) for _ in range(number)]

    def _text(self, size: int) -> str:
        self._spend(size // 64)
        return bytes(self._take(size)).decode("utf-8", "backslashreplace")

    def _number(self, form: Struct) -> Any:
        return form.unpack(bytes(self._take(form.size)))[0]

    def _take(self, size: int) -> _Bytes:
        part = self._content[self.at : self.at + size]
        if len(part) != size:
            raise EOFError(f"it ends after {len(self._content):,} bytes")
        self.at += size
        return part

    def _spend(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise ValueError("it has too many parts; raise the bound with --max-expanded")
