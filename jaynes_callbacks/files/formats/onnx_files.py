"""Read ONNX models: initialisers and constants; those in a file of external data are mapped."""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.archive import map_file
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.records.regular import require_regular

__all__ = ["open_onnx"]

_FLOATS = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx.TensorProto.FLOAT8E5M2: torch.float8_e5m2,
}
#: Where a tensor's values are if they are not raw bytes.
_FIELDS = {onnx.TensorProto.FLOAT: "float_data", onnx.TensorProto.DOUBLE: "double_data"}
_SHORT_FIELD = "int32_data"


def open_onnx(path: Path, limits: Limits) -> Checkpoint:
    """List the initialisers and constants of a model, those of subgraphs and functions too.

    A branch of an ``If`` or a loop's body is a subgraph.  Values in the model's own file are read
    into memory.  Exporters transpose many weights: the clusters of `gap_se` are then a layer's
    inputs instead of its outputs.

    Raises:
        CheckpointError: if it is truncated or no model.
    """
    try:
        require_regular(path)
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is no whole ONNX model ({type(error).__name__}); it may be truncated: copy or "
            "export it again"
        ) from error
    entries: dict[str, Entry] = {}
    problems = []
    for name, tensor in _tensors(model):
        unique = name if name not in entries else f"{name}#{len(entries)}"
        try:
            entries[unique] = _entry(path, unique, tensor)
        except ValueError as error:
            reason = f"{path}: tensor {unique} cannot be read ({error})"
            problems.append(Problem(path, reason))
    return Checkpoint(path, tuple(entries.values()), tuple(problems))


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every dense tensor of a model with its name, a node's output if it is a constant."""
    yield from ((_text(each.name), each) for each in model.graph.initializer)
    groups = [model.graph.node, *(function.node for function in model.functions)]
    while groups:
        for node in groups.pop(0):
            for attribute in node.attribute:
                inner = [*attribute.graphs]
                inner += [attribute.g] if attribute.HasField("g") else []
                for graph in inner:
                    yield from ((_text(each.name), each) for each in graph.initializer)
                    groups.append(graph.node)
                constants = [*attribute.tensors]
                constants += [attribute.t] if attribute.HasField("t") else []
                name = _text(next(iter(node.output), node.name) or node.op_type)
                yield from ((name, each) for each in constants)


def _text(value: Any) -> str:
    """Return a text of a model: one that is no UTF-8 is read as bytes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _entry(path: Path, name: str, tensor: Any) -> Entry:
    dtype = _FLOATS.get(tensor.data_type)
    kinds = onnx.TensorProto.DataType
    kind = kinds.Name(tensor.data_type) if tensor.data_type in kinds.values() else "unknown"
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    if dtype is None:
        return Entry(name, shape, kind, 0, _no_values, reason=_reason(kind))
    is_external = uses_external_data(tensor)
    load: Callable[[], Tensor] = partial(_mapped, path, tensor, dtype)
    if not is_external:
        load = partial(_from_memory, tensor, dtype)
        _check_size(tensor, shape, dtype)
    nbytes = prod(shape) * dtype.itemsize
    return Entry(name, shape, kind, nbytes, load, mapped=is_external)


def _reason(kind: str) -> str:
    return f"of dtype {kind}, not real floating-point"


def _no_values() -> Tensor:
    raise CheckpointError("values that are not real floating-point were asked for")


def _check_size(tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Compare the shape with the number of values that the model holds.

    Raises:
        ValueError: if they differ.
    """
    held = len(tensor.raw_data) // dtype.itemsize
    if not tensor.HasField("raw_data"):
        held = len(getattr(tensor, _FIELDS.get(tensor.data_type, _SHORT_FIELD)))
    if held != prod(shape):
        raise ValueError(f"its shape {shape} needs {prod(shape):,} values, the model has {held:,}")


def _from_memory(tensor: Any, dtype: torch.dtype) -> Tensor:
    array = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor))
    # numpy has no type for the short floats; reinterpret their bytes.
    return torch.from_numpy(array.reshape(-1).view(np.uint8).copy()).view(dtype).view(array.shape)


def _mapped(path: Path, tensor: Any, dtype: torch.dtype) -> Tensor:
    place = {_text(each.key): _text(each.value) for each in tensor.external_data}
    location = PurePath(place.get("location", ""))
    if location.is_absolute() or ".." in location.parts or not location.parts:
        raise CheckpointError(f"{path} names {str(location)!r}, which is not beside it")
    file, shape = path.parent / location, tuple(tensor.dims)
    try:
        start = int(place.get("offset", "0"))
        content = map_file(file, start, prod(shape) * dtype.itemsize)
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{file}, which holds weights of {path.name}, cannot be read ({error}); copy it again"
        ) from error
    return torch.from_numpy(content).view(dtype).view(shape)
