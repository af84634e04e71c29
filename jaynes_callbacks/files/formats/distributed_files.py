"""Read directories of `torch.distributed.checkpoint`: a pickled index, and the ranks' files.

Only the classes that such an index consists of are unpickled, so that no file runs code.  A tensor
in one chunk is mapped; one that is spread over several chunks is assembled in memory when it is
loaded.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry
from jaynes_callbacks.files.formats.model_part import model_part
from jaynes_callbacks.files.formats.npz_files import member_start
from jaynes_callbacks.files.pages import release

__all__ = ["open_distributed"]

_METADATA = "torch.distributed.checkpoint.metadata"
#: Everything an index may consist of, besides torch's data types.
_ALLOWED = {
    *((_METADATA, name) for name in ("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata")),
    *((_METADATA, name) for name in ("MetadataIndex", "StorageMeta", "TensorProperties")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
}
_PATHS = {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"}


def open_distributed(path: Path) -> Checkpoint:
    """List the tensors of a directory that `torch.distributed.checkpoint.save` wrote.

    Raises:
        CheckpointError: if its index is broken, or names anything that no index needs.
    """
    index = _read_index(path / ".metadata")
    stored = {
        name: item
        for name, item in index.state_dict_metadata.items()
        if isinstance(item, TensorStorageMetadata)
    }
    places = {name: tuple((index.planner_data or {}).get(name, (name,))) for name in stored}
    entries = [
        _entry(path, name, key, stored[key], index.storage_data)
        for name, key in model_part(places).items()
    ]
    return Checkpoint(path, tuple(entries))


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module.startswith("pathlib") and name in _PATHS:
            return PurePath
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no index needs")


def _read_index(file: Path) -> Metadata:
    try:
        with file.open("rb") as stream:
            index = _IndexUnpickler(stream).load()
        if not isinstance(index, Metadata) or not isinstance(index.storage_data, Mapping):
            raise TypeError(f"it holds a {type(index).__name__}")
    except Exception as error:
        # Any error may come of unpickling arbitrary bytes; all mean that the file is no index.
        raise CheckpointError(
            f"{file} is no readable index of a distributed checkpoint ({error}); copy the whole "
            "directory again, or convert it with torch.distributed.checkpoint.format_utils"
        ) from error
    return index


class _Chunk(NamedTuple):
    """A part of a tensor.

    Attributes:
        offsets: where it begins in the tensor, in each dimension.
        sizes: its shape.
        file: holds its bytes.
        start: offset of the bytes in the file.
        length: number of bytes.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int


def _entry(
    path: Path, name: str, key: str, stored: TensorStorageMetadata, storage: Mapping[Any, Any]
) -> Entry:
    dtype, shape = stored.properties.dtype, tuple(stored.size)
    chunks = tuple(_chunks(path, key, stored, storage))
    whole = len(chunks) == 1 and chunks[0].sizes == shape
    load = partial(_map_chunk, chunks[0]) if whole else partial(_assemble, shape, dtype, chunks)
    return Entry(
        name,
        shape,
        str(dtype).removeprefix("torch."),
        stored.size.numel() * dtype.itemsize,
        load,
        mapped=whole,
        reason=None if dtype.is_floating_point else f"of dtype {dtype}, not real floating-point",
    )


def _chunks(
    path: Path, key: str, stored: TensorStorageMetadata, storage: Mapping[Any, Any]
) -> Iterator[_Chunk]:
    for chunk in stored.chunks:
        place = storage.get(MetadataIndex(key, chunk.offsets))
        if place is None:
            raise CheckpointError(f"{path / '.metadata'} does not say where {key} is")
        if PurePath(place.relative_path).name != place.relative_path:
            raise CheckpointError(
                f"{path / '.metadata'} names {place.relative_path!r}, which is not beside it"
            )
        yield _Chunk(
            tuple(chunk.offsets),
            tuple(chunk.sizes),
            path / place.relative_path,
            place.offset,
            place.length,
        )


def _map_chunk(chunk: _Chunk) -> Tensor:
    """Return a chunk as a view of its file, within which it is a file of `torch.save`."""
    try:
        content = np.memmap(chunk.file, np.uint8, "c", chunk.start, (chunk.length,))
        region = cast(IO[bytes], _Region(content.data))
        # On the meta device torch reads shape and strides, and no values.
        form: Tensor = torch.load(region, map_location="meta", weights_only=True)
        with zipfile.ZipFile(region) as archive:
            (record,) = [info for info in archive.infolist() if "/data/" in info.filename]
        start = member_start(region, record)
        values = torch.from_numpy(content[start : start + record.file_size]).view(form.dtype)
        return values.as_strided(form.shape, form.stride(), form.storage_offset())
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{chunk.file} cannot be read as a part of a distributed checkpoint "
            f"({type(error).__name__}); it may be missing or truncated: copy it again"
        ) from error


class _Region(io.RawIOBase):
    """A file over bytes in memory, without the copy that `io.BytesIO` makes."""

    def __init__(self, content: memoryview) -> None:
        super().__init__()
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._content)}[whence]
        if origin + offset < 0:
            raise OSError("a place before the beginning was asked for")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        part = self._content[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _assemble(shape: tuple[int, ...], dtype: torch.dtype, chunks: tuple[_Chunk, ...]) -> Tensor:
    """Copy the parts that several ranks wrote into one tensor."""
    whole = torch.empty(shape, dtype=dtype)
    if sum(prod(chunk.sizes) for chunk in chunks) != whole.numel():
        raise CheckpointError(f"{chunks[0].file.parent} lacks a part of a tensor of shape {shape}")
    for chunk in chunks:
        place = [slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True)]
        part = _map_chunk(chunk)
        whole[tuple(place)] = part
        release(part)
    return whole
