"""Read GGUF files: floats are mapped, quantised blocks are dequantised by the gguf library.

The header is read here, not by the library, which trusts every length that it states.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from struct import Struct, calcsize, unpack_from
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry
from jaynes_callbacks.files.formats.archive import map_file
from jaynes_callbacks.files.limits import Limits

__all__ = ["open_gguf"]

_Values = npt.NDArray[np.uint8]
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "F64": torch.float64, "BF16": torch.bfloat16}
_INTEGERS = ("I8", "I16", "I32", "I64")
#: Values that are dequantised at once.
_SLICE = 1 << 20
#: Magic number, version, numbers of tensors and of metadata.
_HEAD = Struct("<4sIQQ")
_VERSIONS = (2, 3)
#: Formats of metadata of one size, by their types' numbers, and the numbers of the other two types.
_SCALARS = dict(enumerate(["B", "b", "H", "h", "I", "i", "f", "?"])) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
#: Deepest nesting of arrays of arrays.
_DEEPEST = 4
_ALIGNMENT, _ALIGNMENT_KEY = 32, "general.alignment"


@dataclass(frozen=True)
class _Stored:
    """A tensor as the header describes it.

    Attributes:
        name: its name.
        shape: its shape, the slowest dimension first.
        kind: its type in gguf's library.
        data: its bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: Any
    data: _Values


def open_gguf(path: Path, limits: Limits) -> Checkpoint:
    """List the tensors of a GGUF file, under GGUF's own names (``blk.0.attn_q.weight``).

    Raises:
        CheckpointError: if it is truncated or no such file.
    """
    try:
        stored = _Header(map_file(path), limits).tensors()
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no whole GGUF file ({error}); it may be truncated: copy or download it "
            "again"
        ) from error
    return Checkpoint(path, tuple(map(_entry, stored)))


class _Header:
    """Reads the header of a file from its beginning.

    Args:
        content: bytes of the file.
        limits: on the number of metadata and tensors.

    Raises:
        ValueError: if the file is none of GGUF.
        EOFError: if it ends within the header.
    """

    def __init__(self, content: _Values, limits: Limits) -> None:
        self._content, self._at = content, 0
        self._left = limits.objects
        self._alignment = _ALIGNMENT
        magic, version, self._tensors, metadata = _HEAD.unpack(self._take(_HEAD.size).data)
        if magic != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if version not in _VERSIONS:
            raise ValueError(
                f"its version is {version}, expected one of {_VERSIONS}, little-endian"
            )
        for _ in range(metadata):
            self._read_metadata()

    def tensors(self) -> list[_Stored]:
        """Read the descriptions of all tensors, each of which must lie within the file.

        Raises:
            ValueError, EOFError: if one does not.
        """
        described = [self._description() for _ in range(self._tensors)]
        start = -(-self._at // self._alignment) * self._alignment
        return [self._stored(start, *each) for each in described]

    def _read_metadata(self) -> None:
        key = self._string()
        kind = self._number("I")
        at = self._at
        self._skip(kind)
        if key == _ALIGNMENT_KEY:
            if kind != 4:
                raise ValueError(f"{key} is no number of 32 bits")
            (self._alignment,) = unpack_from("<I", self._content.data, at)
            if self._alignment < 1 or self._alignment & (self._alignment - 1):
                raise ValueError(f"{key} is {self._alignment}, expected a power of two")

    def _skip(self, kind: int, depth: int = 0) -> None:
        """Go over one value of metadata."""
        self._count()
        if kind in _SCALARS:
            self._take(calcsize(f"<{_SCALARS[kind]}"))
        elif kind == _STRING:
            self._take(self._number("Q"))
        elif kind == _ARRAY and depth < _DEEPEST:
            inner, length = self._number("I"), self._number("Q")
            if inner in _SCALARS:
                self._take(length * calcsize(f"<{_SCALARS[inner]}"))
                return
            for _ in range(length):
                self._skip(inner, depth + 1)
        else:
            raise ValueError(f"its metadata are of an unknown type {kind}")

    def _description(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, shape, type and offset."""
        self._count()
        name, dimensions = self._string(), self._number("I")
        if dimensions > 8:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        # GGUF states the fastest dimension first.
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _stored(
        self, start: int, name: str, shape: tuple[int, ...], number: int, offset: int
    ) -> _Stored:
        kind = gguf.GGMLQuantizationType(number)
        block, bytes_of_block = gguf.GGML_QUANT_SIZES[kind]
        if prod(shape) % block or (shape and shape[-1] % block):
            raise ValueError(f"tensor {name} of shape {shape} has no whole blocks of {block}")
        size = prod(shape) // block * bytes_of_block
        begin = start + offset
        if begin + size > len(self._content):
            raise EOFError(f"tensor {name} needs {size:,} bytes, which the file has not")
        return _Stored(name, shape, kind, self._content[begin : begin + size])

    def _take(self, size: int) -> _Values:
        part = self._content[self._at : self._at + size]
        if len(part) != size:
            raise EOFError("it ends within its header")
        self._at += size
        return part

    def _number(self, form: str) -> Any:
        (value,) = unpack_from(f"<{form}", self._take(calcsize(f"<{form}")).data)
        return value

    def _string(self) -> str:
        return bytes(self._take(self._number("Q"))).decode("utf-8")

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its header has too many parts; raise the bound with --max-expanded")


def _entry(tensor: _Stored) -> Entry:
    kind = tensor.kind.name
    is_float = kind in _FLOATS
    load: Callable[[], Tensor] = partial(_dequantise, tensor)
    if is_float:
        load = partial(_mapped, tensor, _FLOATS[kind])
    return Entry(
        tensor.name,
        tensor.shape,
        kind,
        len(tensor.data) if is_float else 4 * prod(tensor.shape),
        load,
        mapped=is_float,
        reason=_reason_not_countable(tensor),
        stored=len(tensor.data),
    )


def _reason_not_countable(tensor: _Stored) -> str | None:
    kind = tensor.kind.name
    if kind in _FLOATS:
        return None
    if kind in _INTEGERS:
        return f"of dtype {kind}, not real floating-point"
    try:
        gguf.quants.dequantize(_rows(tensor)[:1], tensor.kind)
    except NotImplementedError:
        return f"quantised as {kind}, which the installed gguf cannot dequantise"
    return None


def _mapped(tensor: _Stored, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(tensor.data).view(dtype).view(tensor.shape)


def _dequantise(tensor: _Stored) -> Tensor:
    values = torch.empty(tensor.shape, dtype=torch.float32)
    flat = values.view(-1, tensor.shape[-1])
    rows = _rows(tensor)
    step = max(1, _SLICE // tensor.shape[-1])
    for start in range(0, len(rows), step):
        part = gguf.quants.dequantize(rows[start : start + step], tensor.kind)
        flat[start : start + step] = torch.from_numpy(part)
    return values


def _rows(tensor: _Stored) -> Any:
    """Return the blocks of each row of values."""
    return np.asarray(tensor.data).reshape(-1, _bytes_of_row(tensor))


def _bytes_of_row(tensor: _Stored) -> int:
    block, bytes_of_block = gguf.GGML_QUANT_SIZES[tensor.kind]
    return int((tensor.shape[-1] if tensor.shape else 1) // block * bytes_of_block)
