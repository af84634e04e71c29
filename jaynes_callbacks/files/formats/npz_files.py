"""Read archives of numpy arrays (``.npz``): stored arrays are mapped, compressed ones are read."""

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
    """List the arrays of an archive of `numpy.savez`.

    Arrays of Python objects are pickles: they are listed with a reason and never loaded.

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
        reason=_reason_not_countable(dtype),
    )


def _reason_not_countable(dtype: np.dtype) -> str | None:
    if dtype.hasobject:
        return "an array of Python objects, which is a pickle, and none is run here"
    known = dtype.kind == "f" and dtype.itemsize in (2, 4, 8)
    return None if known else f"of dtype {dtype.name}, not real floating-point"


def member_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return the offset of a stored member's bytes, which follow the member's own header."""
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)


def _mapped(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    # Copy on write ("c"), because torch has no read-only tensors.
    array = np.memmap(path, dtype=dtype, mode="c", offset=start, shape=shape)
    return torch.from_numpy(array)


def _read(path: Path, member: str) -> Tensor:
    with np.load(path, allow_pickle=False) as archive:
        array = archive[member.removesuffix(".npy")]
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
