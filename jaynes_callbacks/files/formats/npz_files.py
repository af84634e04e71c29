"""Read archives of numpy arrays (``.npz``): stored arrays are mapped, compressed ones are read."""

import io
import zipfile
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.archive import (
    Bytes,
    Member,
    as_file,
    map_file,
    members_of,
    read_member,
)
from jaynes_callbacks.files.limits import Limits

__all__ = ["open_npz"]

#: Most bytes of the text before an array's values.
_HEADER = 1 << 16


def open_npz(path: Path, limits: Limits) -> Checkpoint:
    """List the arrays of an archive of `numpy.savez`.

    Arrays of Python objects are pickles: they are listed with a reason and never loaded.

    Raises:
        CheckpointError: if it is truncated or no such archive.
    """
    try:
        content = map_file(path)
        members = members_of(content)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no whole archive of numpy.savez ({error}); it may be truncated: copy it "
            "again"
        ) from error
    entries, problems = [], []
    for member in members.values():
        try:
            entries.append(_entry(content, member, limits))
        # The header is a Python literal, whose parser raises almost anything.
        except Exception as error:
            reason = f"{path}: array {member.name} cannot be read ({error})"
            problems.append(Problem(path, reason))
    return Checkpoint(path, tuple(entries), tuple(problems))


def _entry(content: Bytes, member: Member, limits: Limits) -> Entry:
    shape, fortran, dtype, header = _header(content, member)
    nbytes = prod(shape) * dtype.itemsize
    if not dtype.hasobject and header + nbytes != member.size:
        raise ValueError(f"its shape {shape} needs {nbytes:,} bytes, not {member.size - header:,}")
    is_mapped = member.is_plain and dtype.isnative and not fortran
    return Entry(
        member.name.removesuffix(".npy"),
        shape,
        dtype.name,
        nbytes,
        partial(_load, content, member, limits),
        mapped=is_mapped,
        reason=_reason_not_countable(dtype),
        stored=member.stored,
    )


def _header(content: Bytes, member: Member) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Read shape, order, data type and the length of an array's header."""
    with zipfile.ZipFile(as_file(content)) as archive, archive.open(member.info) as file:
        start = io.BytesIO(file.read(_HEADER))
    version = npy.read_magic(start)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(start)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return tuple(map(int, shape)), fortran, dtype, start.tell()


def _reason_not_countable(dtype: np.dtype) -> str | None:
    if dtype.hasobject:
        return "an array of Python objects, which is a pickle, and none is run here"
    known = dtype.kind == "f" and dtype.itemsize in (2, 4, 8)
    return None if known else f"of dtype {dtype.name}, not real floating-point"


def _load(content: Bytes, member: Member, limits: Limits) -> Tensor:
    shape, fortran, dtype, header = _header(content, member)
    values = np.frombuffer(read_member(content, member, limits)[header:], dtype)
    array = values.reshape(shape, order="F" if fortran else "C")
    native = array.astype(dtype.newbyteorder("="), order="C", copy=False)
    return torch.from_numpy(native)
