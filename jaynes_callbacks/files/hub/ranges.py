"""Read safetensors files on the hub tensor by tensor: of what is not measured no byte is moved.

A file is a number of 8 bytes, the length of a header; the header, JSON that gives each tensor's
type, shape and place; and the tensors' bytes.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from jaynes_callbacks.files.entry import CheckpointError, Entry, aliases_noted
from jaynes_callbacks.files.formats.scales import with_scales
from jaynes_callbacks.files.hub.client import Hub, Revision
from jaynes_callbacks.files.limits import Limits

__all__ = ["entries_of"]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def entries_of(hub: Hub, file: str, at: Revision, limits: Limits) -> tuple[Entry, ...]:
    """List the tensors of a safetensors file; the values of each are fetched when it is loaded.

    Raises:
        CheckpointError: if it is no such file, or cannot be had.
    """
    what = f"hf://{hub.repository}/{file}"
    try:
        header, start = _header(hub, file, at, limits)
        found = list(_entries(hub, file, at, header, start))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{what} is no whole safetensors file ({error}); it may be damaged on the hub"
        ) from error
    config = partial(_config, hub, at, limits)
    return tuple(with_scales(found, config))


def _header(hub: Hub, file: str, at: Revision, limits: Limits) -> tuple[Mapping[str, Any], int]:
    """Return the header and the place of the first tensor's bytes."""
    whole = at.files[file]
    if whole < 8:
        raise ValueError(f"it has {whole} bytes")
    length = int.from_bytes(hub.read(file, at, 0, 8), "little")
    if length > min(whole - 8, 2 * limits.text):
        raise ValueError(f"its header is said to have {length:,} bytes")
    header = json.loads(bytes(hub.read(file, at, 8, length)))
    return header, 8 + length


def _entries(
    hub: Hub, file: str, at: Revision, header: Mapping[str, Any], start: int
) -> Iterator[Entry]:
    names = {name for name in header if name != "__metadata__"}
    aliases = aliases_noted(header.get("__metadata__") or {}, names)
    for name in sorted(names, key=lambda name: int(header[name]["data_offsets"][0])):
        own = header[name]
        shape = tuple(int(size) for size in own["shape"])
        first, last = (start + int(offset) for offset in own["data_offsets"])
        # Values of another type are never loaded, for the reason given.
        known, dtype = own["dtype"] in _DTYPES, _DTYPES.get(own["dtype"], torch.uint8)
        if not start <= first <= last <= at.files[file] or min(shape, default=0) < 0:
            raise ValueError(f"tensor {name} lies beyond its end")
        if known and prod(shape) * dtype.itemsize != last - first:
            raise ValueError(f"tensor {name} of shape {list(shape)} has {last - first:,} bytes")
        yield Entry(
            name,
            shape,
            str(own["dtype"]),
            last - first,
            partial(_load, hub, file, at, first, last - first, dtype, shape),
            mapped=False,
            aliases=aliases.get(name, ()),
            reason=_reason(str(own["dtype"]), known, dtype),
            remote=True,
        )


def _reason(said: str, known: bool, dtype: torch.dtype) -> str | None:
    if not known:
        return f"of the type {said}, which PyTorch does not know"
    return None if dtype.is_floating_point else f"of dtype {str(dtype).removeprefix('torch.')}"


def _load(
    hub: Hub,
    file: str,
    at: Revision,
    start: int,
    size: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
) -> Tensor:
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(hub.read(file, at, start, size), dtype=dtype).view(shape)


def _config(hub: Hub, at: Revision, limits: Limits) -> str:
    """Return the text of the model's ``config.json``.

    Raises:
        OSError: if there is none.
    """
    size = at.files.get("config.json", 0)
    if not 0 < size <= limits.text:
        raise FileNotFoundError("config.json")
    return hub.read("config.json", at, 0, size).decode()
