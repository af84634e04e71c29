"""Read GGUF files: floats are mapped, quantised blocks are dequantised by the gguf library."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry

__all__ = ["open_gguf"]

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "F64": torch.float64, "BF16": torch.bfloat16}
_INTEGERS = ("I8", "I16", "I32", "I64")
#: Values that are dequantised at once.
_SLICE = 1 << 20


def open_gguf(path: Path) -> Checkpoint:
    """List the tensors of a GGUF file, under GGUF's own names (``blk.0.attn_q.weight``).

    Raises:
        CheckpointError: if it is truncated or no such file.
    """
    try:
        # Copy on write ("c"), because torch has no read-only tensors.
        reader = gguf.GGUFReader(path, "c")
    except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is no whole GGUF file ({error}); it may be truncated: copy or download it "
            "again"
        ) from error
    return Checkpoint(path, tuple(_entry(tensor) for tensor in reader.tensors))


def _entry(tensor: Any) -> Entry:
    kind = tensor.tensor_type.name
    # GGUF states the fastest dimension first.
    shape = tuple(int(size) for size in reversed(tensor.shape))
    load: Callable[[], Tensor] = partial(_dequantise, tensor, shape)
    if kind in _FLOATS:
        load = partial(_mapped, tensor.data, shape, _FLOATS[kind])
    return Entry(
        tensor.name,
        shape,
        kind,
        int(tensor.n_bytes),
        load,
        mapped=kind in _FLOATS,
        reason=_reason_not_countable(tensor, kind),
    )


def _reason_not_countable(tensor: Any, kind: str) -> str | None:
    if kind in _FLOATS:
        return None
    if kind in _INTEGERS:
        return f"of dtype {kind}, not real floating-point"
    try:
        gguf.quants.dequantize(_rows(tensor)[:1], tensor.tensor_type)
    except NotImplementedError:
        return f"quantised as {kind}, which the installed gguf cannot dequantise"
    return None


def _mapped(data: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.asarray(data).reshape(-1).view(np.uint8)).view(dtype).view(shape)


def _dequantise(tensor: Any, shape: tuple[int, ...]) -> Tensor:
    values = torch.empty(shape, dtype=torch.float32)
    flat = values.view(-1, shape[-1])
    rows = _rows(tensor)
    step = max(1, _SLICE // shape[-1])
    for start in range(0, len(rows), step):
        part = gguf.quants.dequantize(rows[start : start + step], tensor.tensor_type)
        flat[start : start + step] = torch.from_numpy(part)
    return values


def _rows(tensor: Any) -> Any:
    data = np.asarray(tensor.data)
    return data.reshape(-1, data.shape[-1])
