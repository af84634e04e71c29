"""Read tables of a flatbuffer by the numbers that their schema gives to fields.

Every place is checked against the file's end before anything there is read.  The library
``flatbuffers`` with classes generated from a schema checks none; hence this reader of its own.
Format: https://flatbuffers.dev/internals
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from jaynes_callbacks.files.limits import Limits

__all__ = ["Flatbuffer", "Table"]

_OFFSET, _BACK, _FIELD = Struct("<I"), Struct("<i"), Struct("<H")
#: Bytes that a table takes in memory, at least.
_TABLE = 64


class Flatbuffer:
    """The bytes of a flatbuffer, and how much more may be made of them.

    Tables, texts and vectors may be named any number of times in a small file; what is made of them
    is bounded in all.

    Args:
        content: all bytes, of which the first four say where the outermost table is.
        limits: on what is made of them.
    """

    def __init__(self, content: npt.NDArray[np.uint8], limits: Limits) -> None:
        self.content = content
        self._data, self._left = content.data, limits.expanded

    def root(self) -> "Table":
        """Return the outermost table.

        Raises:
            EOFError: if the content ends before it.
        """
        return Table(self, self.number(_OFFSET, 0))

    def number(self, form: Struct, at: int) -> Any:
        """Read one number.

        Raises:
            EOFError: if it lies beyond the content.
        """
        self.check(at, form.size)
        return form.unpack_from(self._data, at)[0]

    def check(self, at: int, size: int) -> None:
        """Check that `size` bytes at a place lie within the content.

        Raises:
            EOFError: if they do not.
        """
        if at < 0 or at + size > len(self.content):
            raise EOFError("it ends before what it refers to")

    def spend(self, nbytes: int) -> None:
        """Count bytes of memory that are about to be made.

        Raises:
            ValueError: if there are too many.
        """
        self._left -= nbytes
        if self._left < 0:
            raise ValueError("it has too many parts; raise the bound with --max-expanded")


class Table:
    """One table: its fields by number, a default where the table leaves one out.

    Args:
        buffer: that holds it.
        at: where it begins.

    Raises:
        EOFError: if it lies beyond the buffer.
    """

    def __init__(self, buffer: Flatbuffer, at: int) -> None:
        buffer.spend(_TABLE)
        self._buffer, self._at = buffer, at
        self._fields = at - buffer.number(_BACK, at)
        self._size = buffer.number(_FIELD, self._fields)

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Read a number.

        Args:
            field: its number in the schema.
            form: its type, as in `struct`.
            default: its value where the table leaves it out.
        """
        at = self._place(field)
        return default if at is None else int(self._buffer.number(Struct(f"<{form}"), at))

    def table(self, field: int) -> "Table | None":
        """Read a table in this table; None where it is left out."""
        at = self._place(field)
        return None if at is None else Table(self._buffer, self._referred(at))

    def tables(self, field: int) -> Iterator["Table"]:
        """Read a vector of tables, one after the other."""
        start, length = self._vector(field, _OFFSET.size)
        for at in range(start, start + _OFFSET.size * length, _OFFSET.size):
            yield Table(self._buffer, self._referred(at))

    def text(self, field: int) -> str:
        """Read a text; bytes that are no UTF-8 are written as escapes."""
        start, length = self._vector(field, 1)
        self._buffer.spend(length)
        return bytes(self._buffer.content[start : start + length]).decode(
            "utf-8", "backslashreplace"
        )

    def vector(self, field: int, dtype: str) -> npt.NDArray[Any]:
        """Return a vector of numbers as a view of the buffer, empty where it is left out."""
        itemsize = np.dtype(dtype).itemsize
        start, length = self._vector(field, itemsize)
        return self._buffer.content[start : start + length * itemsize].view(dtype)

    def numbers(self, field: int, dtype: str) -> tuple[int, ...]:
        """Read a vector of integers."""
        found = self.vector(field, dtype)
        self._buffer.spend(32 * len(found))
        return tuple(map(int, found))

    def _place(self, field: int) -> int | None:
        """Find a field; None where the table leaves it out."""
        entry = 4 + 2 * field
        if entry + _FIELD.size > self._size:
            return None
        offset = self._buffer.number(_FIELD, self._fields + entry)
        return self._at + offset if offset else None

    def _referred(self, at: int) -> int:
        return at + int(self._buffer.number(_OFFSET, at))

    def _vector(self, field: int, itemsize: int) -> tuple[int, int]:
        """Find a vector: its first byte and its number of elements."""
        place = self._place(field)
        if place is None:
            return 0, 0
        at = self._referred(place)
        length = int(self._buffer.number(_OFFSET, at))
        self._buffer.check(at + _OFFSET.size, length * itemsize)
        return at + _OFFSET.size, length
