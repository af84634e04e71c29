"""Find the arrays of an HDF5 file, and where in the file their values are.

The library h5py reads names, shapes and places; the values are mapped, or decompressed here within
bounds.  Only what lies in the file itself is read: no link to another file is followed, and no
filter of a plugin is loaded.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from jaynes_callbacks.files.formats.archive import as_file
from jaynes_callbacks.files.formats.hdf5_heaps import check_heaps
from jaynes_callbacks.files.limits import Limits

__all__ = ["Array", "Group", "Hdf5File", "text_of"]

_Bytes = npt.NDArray[np.uint8]
_Values = npt.NDArray[Any]
#: Filters that every HDF5 library has, by their numbers; all others may be plugins.
_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3
_CHECKSUM_SIZE = 4
_DEEPEST = 64
#: Bytes of an array that is not searched for heaps of texts.
_LARGE = 1 << 20
_UNWRITTEN = "values that were never written, not all of them"


@dataclass(frozen=True)
class _Chunk:
    """A block of a chunked array.

    Attributes:
        place: of its first value in the array.
        start: offset of its first byte in the file.
        size: bytes that it takes there.
        left_out: bits of the filters that were not applied to it.
    """

    place: tuple[int, ...]
    start: int
    size: int
    left_out: int


@dataclass(frozen=True)
class Array:
    """An array of the file.

    Attributes:
        shape: its shape.
        dtype: of its values as numpy names it.
        attributes: what else the file says of it.
        load: returns the values, given what names file and array in messages.
        stored: bytes that its values take in the file.
        is_plain: whether they stand in the file as they are, so that `load` returns a view of it.
        reason: why its values cannot be read; None if they can.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, str]
    load: Callable[[str], _Values]
    stored: int
    is_plain: bool = False
    reason: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Chunks:
    """An array in blocks, each of which may be compressed.

    Attributes:
        content: bytes of the file.
        shape: of the array.
        dtype: of its values.
        block: shape of a block.
        chunks: the blocks.
        filters: numbers of those that were applied to each block, in this order.
        limits: on what is decompressed.
    """

    content: _Bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    block: tuple[int, ...]
    chunks: tuple[_Chunk, ...]
    filters: tuple[int, ...]
    limits: Limits

    def load(self, what: str) -> _Values:
        """Decompress all blocks.

        Args:
            what: names file and array, for messages.

        Raises:
            ValueError, EOFError, zlib.error: if the file does not hold them.
            CheckpointError: if a block takes too much memory.
        """
        values = np.empty(self.shape, self.dtype)
        for chunk in self.chunks:
            block = self._decoded(chunk, what)
            inside = [
                min(size, whole - at)
                for size, whole, at in zip(self.block, self.shape, chunk.place, strict=True)
            ]
            target = tuple(slice(at, at + n) for at, n in zip(chunk.place, inside, strict=True))
            values[target] = block[tuple(slice(n) for n in inside)]
        return values

    def _decoded(self, chunk: _Chunk, what: str) -> _Values:
        """Undo the filters of a block, the last one first."""
        size = prod(self.block) * self.dtype.itemsize
        self.limits.check_expansion(f"a block of {what}", size, chunk.size)
        data = bytes(self.content[chunk.start : chunk.start + chunk.size])
        for number, kind in reversed(list(enumerate(self.filters))):
            if chunk.left_out >> number & 1:
                continue
            if kind == _DEFLATE:
                data = zlib.decompressobj().decompress(data, size + _CHECKSUM_SIZE)
            elif kind == _CHECKSUM:
                data = data[:-_CHECKSUM_SIZE]
            else:
                # Shuffled: first bytes of all values, then their second bytes, and so on.
                data = np.frombuffer(data, np.uint8).reshape(self.dtype.itemsize, -1).T.tobytes()
        if len(data) != size:
            raise EOFError(f"a block has {len(data):,} bytes, not {size:,}")
        return np.frombuffer(data, self.dtype).reshape(self.block)


@dataclass(frozen=True)
class Group:
    """A group of the file.

    Attributes:
        attributes: what the file says of it.
        groups: in it, by name.
        arrays: in it, by name.
        left_out: names in it that are links to elsewhere.
    """

    attributes: Mapping[str, str]
    groups: "dict[str, Group]" = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


class Hdf5File:
    """Reads all groups of a file at once.

    Args:
        content: bytes of the file.
        limits: on the number of its parts.

    Raises:
        ValueError: if it has too many parts, or nested too deeply.
        OSError: if it is no such file.
    """

    def __init__(self, content: _Bytes, limits: Limits) -> None:
        self._content, self._limits = content, limits
        self._left = limits.objects
        self._seen: set[int] = set()
        self._described: list[tuple[Any, dict[str, str]]] = []
        self._values: list[tuple[int, int]] = []

    def read(self) -> Group:
        """Return the outermost group.

        Raises:
            Exception: h5py raises almost any on damaged files.
        """
        with h5py.File(as_file(self._content), "r") as file:
            if file.userblock_size:
                raise ValueError("it begins with a block of another program")
            found = self._group(file, 0)
            check_heaps(self._content, self._values, self._limits)
            for item, attributes in self._described:
                self._read_attributes(item, attributes)
            return found

    def _group(self, group: Any, depth: int) -> Group:
        self._spend(1)
        if depth > _DEEPEST:
            raise ValueError("its groups are nested too deeply")
        self._seen.add(_address(group))
        found = Group(self._attributes_of(group))
        for key in group:
            name = text_of(key)
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                found.left_out.append(name)
                continue
            each = group[key]
            if isinstance(each, h5py.Dataset):
                found.arrays[name] = self._array(each)
            elif isinstance(each, h5py.Group) and _address(each) not in self._seen:
                found.groups[name] = self._group(each, depth + 1)
        return found

    def _array(self, data: Any) -> Array:
        self._spend(1)
        properties = data.id.get_create_plist()
        layout, shape = properties.get_layout(), tuple(map(int, data.shape or ()))
        found = Array(shape, data.dtype, self._attributes_of(data), _no_values, 0)
        if data.dtype.hasobject or layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            return replace(found, reason="values that are not in the file as they are")
        if layout == h5py.h5d.COMPACT:
            small = np.array(data[()])
            return replace(found, load=partial(_given, small), stored=found.nbytes)
        if layout == h5py.h5d.CHUNKED:
            return self._chunked(data, properties, found)
        start = data.id.get_offset() if found.nbytes else 0
        if start is None:
            return replace(found, reason=_UNWRITTEN)
        end = start + found.nbytes
        if end > len(self._content):
            raise EOFError(f"it ends before the values of {text_of(data.name)}")
        # Only large arrays are passed over: a damaged place may lie on what describes others.
        if found.nbytes > _LARGE:
            self._values.append((start, end))
        values = self._content[start:end].view(found.dtype).reshape(shape)
        return replace(found, load=partial(_given, values), stored=found.nbytes, is_plain=True)

    def _chunked(self, data: Any, properties: Any, found: Array) -> Array:
        filters = tuple(properties.get_filter(n)[0] for n in range(properties.get_nfilters()))
        if unknown := set(filters) - {_DEFLATE, _SHUFFLE, _CHECKSUM}:
            return replace(found, reason=f"compressed by HDF5's filter {min(unknown)}")
        block, chunks = tuple(map(int, data.chunks)), tuple(self._chunks(data))
        sizes = zip(found.shape, block, strict=True)
        if len(chunks) != prod(-(-size // step) for size, step in sizes):
            return replace(found, reason=_UNWRITTEN)
        if any(each.start + each.size > len(self._content) for each in chunks):
            raise EOFError(f"it ends before the values of {text_of(data.name)}")
        parts = _Chunks(
            self._content, found.shape, found.dtype, block, chunks, filters, self._limits
        )
        return replace(found, load=parts.load, stored=sum(each.size for each in chunks))

    def _chunks(self, data: Any) -> Iterator[_Chunk]:
        number = data.id.get_num_chunks()
        self._spend(number)
        for index in range(number):
            each = data.id.get_chunk_info(index)
            yield _Chunk(each.chunk_offset, each.byte_offset, each.size, each.filter_mask)

    def _attributes_of(self, item: Any) -> dict[str, str]:
        """Return a map of attributes that is filled when the heaps of texts have been checked."""
        attributes: dict[str, str] = {}
        self._described.append((item, attributes))
        return attributes

    def _read_attributes(self, item: Any, found: dict[str, str]) -> None:
        """Read the attributes that are texts; others say nothing of weights."""
        for key in item.attrs:
            kind = item.attrs.get_id(key)
            if kind.shape == () and kind.dtype.kind in "OS":
                name, text = text_of(key), text_of(item.attrs[key])
                self._spend(1 + len(text) // 64)
                found[name] = text

    def _spend(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise ValueError("it has too many parts; raise the bound with --max-expanded")


def _given(values: _Values, what: str) -> _Values:
    return values


def _no_values(what: str) -> _Values:
    raise ValueError("values that cannot be read were asked for")


def text_of(value: Any) -> str:
    """Return a text of the file; what is no UTF-8 is written as escapes."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)
