"""Files as ``flax.serialization.msgpack_serialize`` packs them, written with msgpack."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["chunked", "write_flax"]


def _packed(array: Any, dtype: str | None = None) -> bytes:
    import msgpack

    packed: bytes = msgpack.packb(
        (array.shape, dtype or array.dtype.name, array.tobytes()), use_bin_type=True
    )
    return packed


def _default(value: Any) -> Any:
    import msgpack

    if isinstance(value, np.ndarray):
        # numpy has no short floats of its own: they are given as pairs of bytes.
        is_brain = value.dtype == np.dtype("V2")
        return msgpack.ExtType(1, _packed(value, "bfloat16" if is_brain else None))
    if isinstance(value, np.generic):
        return msgpack.ExtType(3, _packed(np.asarray(value)))
    return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))


def chunked(array: Any, size: int) -> dict[str, Any]:
    """Split an array as Flax splits those of more than a GiB."""
    flat = array.reshape(-1)
    parts = [flat[start : start + size] for start in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(n): size for n, size in enumerate(array.shape)},
        "chunks": {str(n): part for n, part in enumerate(parts)},
    }


def write_flax(path: Path, tree: Any) -> Path:
    """Pack a tree of maps, lists, numbers and arrays."""
    import msgpack

    path.write_bytes(msgpack.packb(tree, default=_default, strict_types=True))
    return path
