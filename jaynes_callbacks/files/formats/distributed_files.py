"""Read directories of `torch.distributed.checkpoint`: a pickled index, and the ranks' files.

The index is read by `inert_pickle`, so that no file runs code.  A tensor in one chunk is mapped;
one that is spread over several chunks is assembled in memory when it is loaded.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from zipfile import BadZipFile

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import reason_not_countable
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.archive import map_file
from jaynes_callbacks.files.formats.inert_pickle import Object, unpickle
from jaynes_callbacks.files.formats.model_part import model_part
from jaynes_callbacks.files.formats.pickled_tensors import MAKERS, StoredTensor, dtype_of
from jaynes_callbacks.files.formats.torch_files import TorchArchive
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.files.pages import release

__all__ = ["open_distributed"]

_METADATA = "torch.distributed.checkpoint.metadata"
_Sizes = tuple[int, ...]


class _Chunk(NamedTuple):
    """A part of a tensor.

    Attributes:
        offsets: where it begins in the tensor, in each dimension.
        sizes: its shape.
        file: holds its bytes.
        start: offset of the bytes in the file.
        length: number of bytes.
    """

    offsets: _Sizes
    sizes: _Sizes
    file: Path
    start: int
    length: int


class _Index(NamedTuple):
    """The index of a directory.

    Attributes:
        tensors: the description of each stored tensor, by name.
        storage: where each chunk is, by the tensor's name and the chunk's offsets.
        keys: the keys under which each tensor was in the saved dictionary, by name.
    """

    tensors: Mapping[str, Mapping[str, Any]]
    storage: Mapping[tuple[str, _Sizes], Mapping[str, Any]]
    keys: Mapping[str, tuple[object, ...]]


def open_distributed(path: Path, limits: Limits) -> Checkpoint:
    """List the tensors of a directory that `torch.distributed.checkpoint.save` wrote.

    Raises:
        CheckpointError: if its index is broken, or is none.
    """
    file = path / ".metadata"
    try:
        index = _read_index(file, limits)
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{file} is no readable index of a distributed checkpoint ({error}); copy the whole "
            "directory again, or convert it with torch.distributed.checkpoint.format_utils"
        ) from error
    entries, problems = [], []
    places = {name: index.keys.get(name, (name,)) for name in index.tensors}
    for name, key in model_part(places).items():
        try:
            entries.append(_entry(path, name, key, index, limits))
        except ValueError as error:
            problems.append(Problem(file, f"{file}: tensor {name} is not described: {error}"))
    return Checkpoint(path, tuple(entries), tuple(problems))


# The index ----------------------------------------------------------------------------------------


def _read_index(file: Path, limits: Limits) -> _Index:
    """Read the fields of the pickled dataclass `Metadata` that are needed.

    Raises:
        OSError, EOFError, ValueError: if the file is no such index.
    """
    value = unpickle(map_file(file).data, limits=limits, makers=MAKERS).value
    fields = _fields(value, "Metadata")
    described, storage = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(described, dict) or not isinstance(storage, dict):
        raise ValueError("it does not say where its tensors are")
    tensors = {
        str(name): _fields(item, "TensorStorageMetadata")
        for name, item in described.items()
        if isinstance(item, Object) and str(item) == f"{_METADATA}.TensorStorageMetadata"
    }
    keys = fields.get("planner_data")
    return _Index(
        tensors,
        dict(_place(key, place) for key, place in storage.items()),
        {
            name: key
            for name, key in (keys if isinstance(keys, dict) else {}).items()
            if isinstance(key, tuple) and key
        },
    )


def _fields(value: Any, class_: str) -> Mapping[str, Any]:
    """Return the fields of a pickled dataclass of the index.

    Raises:
        ValueError: if the value is something else.
    """
    is_object = isinstance(value, Object)
    if not is_object or not str(value).endswith(f".{class_}") or not isinstance(value.state, dict):
        held = str(value) if is_object else f"a {type(value).__name__}"
        raise ValueError(f"it holds {held}, expected {class_}")
    return value.state


def _place(key: Any, place: Any) -> tuple[tuple[str, _Sizes], Mapping[str, Any]]:
    fields = _fields(key, "MetadataIndex")
    offset = fields.get("offset")
    return (str(fields.get("fqn")), _sizes(() if offset is None else offset)), _fields(
        place, "_StorageInfo"
    )


def _sizes(value: Any) -> _Sizes:
    if not isinstance(value, tuple) or not all(isinstance(n, int) and n >= 0 for n in value):
        raise ValueError("its sizes are no whole numbers")
    return value


# Tensors ------------------------------------------------------------------------------------------


def _entry(path: Path, name: str, key: str, index: _Index, limits: Limits) -> Entry:
    stored = index.tensors[key]
    properties = stored.get("properties")
    state = properties.state if isinstance(properties, Object) else None
    dtype = dtype_of(state[0]) if isinstance(state, tuple) and state else None
    chunks = stored.get("chunks")
    if dtype is None or not isinstance(chunks, list):
        raise ValueError("its data type or its parts are missing")
    shape = _sizes(stored.get("size"))
    found = tuple(_chunk(path, key, chunk, shape, index) for chunk in chunks)
    is_whole = len(found) == 1 and found[0].sizes == shape
    load = partial(_map_chunk, found[0], dtype, limits) if is_whole else None
    return Entry(
        name,
        shape,
        str(dtype).removeprefix("torch."),
        prod(shape) * dtype.itemsize,
        load or partial(_assemble, path, shape, dtype, found, limits),
        mapped=is_whole,
        reason=reason_not_countable(torch.empty(0, dtype=dtype)),
        # The same bytes count once, however often they are named.
        stored=sum({(each.file, each.start): each.length for each in found}.values()),
    )


def _chunk(path: Path, key: str, described: Any, shape: _Sizes, index: _Index) -> _Chunk:
    fields = _fields(described, "ChunkStorageMetadata")
    offsets, sizes = _sizes(fields.get("offsets")), _sizes(fields.get("sizes"))
    if (key, offsets) not in index.storage:
        raise ValueError("the index does not say where it is")
    place = index.storage[key, offsets]
    file, start, length = (place.get(each) for each in ("relative_path", "offset", "length"))
    if not isinstance(file, str) or PurePath(file).name != file:
        raise ValueError(f"it is in {file!r}, which is not beside it")
    if not isinstance(start, int) or not isinstance(length, int) or min(start, length) < 0:
        raise ValueError("its place in the file is no whole number")
    lies_within = len(offsets) == len(sizes) == len(shape) and all(
        at + size <= whole for at, size, whole in zip(offsets, sizes, shape, strict=True)
    )
    if not lies_within:
        raise ValueError("a part of it lies outside of it")
    return _Chunk(offsets, sizes, path / file, start, length)


def _map_chunk(chunk: _Chunk, dtype: torch.dtype, limits: Limits) -> Tensor:
    """Return a chunk as a view of its file, within which it is a file of `torch.save`."""
    try:
        archive = TorchArchive(map_file(chunk.file, chunk.start, chunk.length), limits)
        stored = archive.contents[0].value
        if not isinstance(stored, StoredTensor) or stored.dtype != dtype:
            raise ValueError("it is no tensor of the type in the index")
        if stored.shape != chunk.sizes:
            raise ValueError("its shape is not that in the index")
        limits.check_expansion(str(chunk.file), stored.nbytes, archive.stored_bytes(stored))
        return archive.load(stored)
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise CheckpointError(
            f"{chunk.file} cannot be read as a part of a distributed checkpoint "
            f"({type(error).__name__}: {error}); it may be missing or truncated: copy it again"
        ) from error


def _assemble(
    path: Path, shape: _Sizes, dtype: torch.dtype, chunks: tuple[_Chunk, ...], limits: Limits
) -> Tensor:
    """Copy the parts that several ranks wrote into one tensor."""
    is_complete = sum(prod(chunk.sizes) for chunk in chunks) == prod(shape)
    if not is_complete or len({chunk.offsets for chunk in chunks}) < len(chunks):
        raise CheckpointError(f"{path} lacks a part of a tensor of shape {shape}")
    whole = torch.empty(shape, dtype=dtype)
    for chunk in chunks:
        place = [slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True)]
        part = _map_chunk(chunk, dtype, limits)
        whole[tuple(place)] = part
        release(part)
    return whole
