"""Read ``.safetensors`` files: a header of names, types and offsets; the values are mapped."""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, aliases_noted
from jaynes_callbacks.files.formats.scales import with_scales
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.records.regular import read_text, require_regular

__all__ = ["open_safetensors"]

#: Bits of a value of each type; of types that are not listed, 8.
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "U16": 16}


def open_safetensors(path: Path, limits: Limits) -> Checkpoint:
    """List the tensors of one ``.safetensors`` file.

    Raises:
        CheckpointError: if it is truncated or no such file at all.
    """
    try:
        _check_header(path, limits)
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no whole safetensors file ({error}); it may be truncated or still being "
            "written: copy or download it again"
        ) from error
    config = partial(read_text, path.parent / "config.json")
    return Checkpoint(path, tuple(with_scales(list(_entries(file, path)), config)))


def _check_header(path: Path, limits: Limits) -> None:
    """Check the length of the header, which is the file's first number, before it is parsed.

    Raises:
        OSError, ValueError: if it is beyond the file's end or the limit.
    """
    size = require_regular(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise ValueError("its header is not whole")
    if length > 2 * limits.text:
        raise ValueError(
            f"its header has {length:,} bytes, expected at most {2 * limits.text:,}; raise the "
            "bound with --max-expanded"
        )


def _entries(file: Any, path: Path) -> Iterator[Entry]:
    aliases = aliases_noted(file.metadata() or {}, set(file.keys()))
    for name in file.offset_keys():
        header = file.get_slice(name)
        shape, dtype = tuple(header.get_shape()), str(header.get_dtype())
        nbytes = prod(shape) * _BITS.get(dtype, 8) // 8
        load: Callable[[], Tensor] = partial(_load, file, name, path)
        yield Entry(name, shape, dtype, nbytes, load, aliases=aliases.get(name, ()))


def _load(file: Any, name: str, path: Path) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has no readable tensor {name} ({error})") from error
    return tensor
