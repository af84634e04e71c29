"""Archives of numpy arrays (``.npz``): stored ones are mapped, compressed ones are read."""

import struct
import zipfile
from functools import partial
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry

__all__ = ["member_start", "open_npz"]

_LOCAL_HEADER = struct.Struct("<26xHH")


def open_npz(path: Path) -> Checkpoint:
    """The arrays of an archive of `numpy.savez`; arrays of objects, which are pickles, are refused.

    Raises:
        CheckpointError: if it is truncated or no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [_entry(path, archive, info) for info in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no whole archive of numpy.savez ({error}); it may be truncated: copy it "
            "again"
        ) from error
    return Checkpoint(path, tuple(entries))


def _entry(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    with archive.open(info) as member:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(member)
        header = member.tell()
    stored = info.compress_type == zipfile.ZIP_STORED and dtype.isnative and not fortran
    with path.open("rb") as file:
        start = member_start(file, info) + header
    load = partial(_mapped, path, start, shape, dtype)
    if not stored:
        load = partial(_read, path, info.filename)
    return Entry(
        info.filename.removesuffix(".npy"),
        tuple(shape),
        dtype.name,
        prod(shape) * dtype.itemsize,
        load,
        mapped=stored,
        reason=_reason(dtype),
    )


def _reason(dtype: np.dtype) -> str:
    if dtype.hasobject:
        return "an array of Python objects, which is a pickle, and none is run here"
    known = dtype.kind == "f" and dtype.itemsize in (2, 4, 8)
    return "" if known else f"of dtype {dtype.name}, not real floating-point"


def member_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its own header, whose length it states."""
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)


def _mapped(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    # Writable only for itself: torch has no tensors that may not be written.
    array = np.memmap(path, dtype=dtype, mode="c", offset=start, shape=shape)
    return torch.from_numpy(array)


def _read(path: Path, member: str) -> Tensor:
    with np.load(path, allow_pickle=False) as archive:
        array = archive[member.removesuffix(".npy")]
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
