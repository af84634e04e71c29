"""Read ONNX models: their initialisers; those in a file of external data are mapped."""

from functools import partial
from math import prod
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry

__all__ = ["open_onnx"]

_FLOATS = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx.TensorProto.FLOAT8E5M2: torch.float8_e5m2,
}


def open_onnx(path: Path) -> Checkpoint:
    """List the initialisers of a model.

    Those in the model's own file are read into memory.  Exporters transpose many weights: the
    clusters of `gap_se` are then a layer's inputs instead of its outputs.

    Raises:
        CheckpointError: if it is truncated or no model.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is no whole ONNX model ({type(error).__name__}); it may be truncated: copy or "
            "export it again"
        ) from error
    return Checkpoint(path, tuple(_entry(path, each) for each in model.graph.initializer))


def _entry(path: Path, tensor: Any) -> Entry:
    known = tensor.data_type in _FLOATS
    dtype = _FLOATS.get(tensor.data_type, torch.float32)
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    shape = tuple(tensor.dims)
    external = uses_external_data(tensor)
    load = (
        partial(_mapped, path, tensor, dtype) if external else partial(_from_memory, tensor, dtype)
    )
    return Entry(
        tensor.name,
        shape,
        name,
        prod(shape) * dtype.itemsize,
        load,
        mapped=external,
        reason=None if known else f"of dtype {name}, not real floating-point",
    )


def _from_memory(tensor: Any, dtype: torch.dtype) -> Tensor:
    array = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor))
    # numpy has no type for the short floats; reinterpret their bytes.
    return torch.from_numpy(array.reshape(-1).view(np.uint8).copy()).view(dtype).view(array.shape)


def _mapped(path: Path, tensor: Any, dtype: torch.dtype) -> Tensor:
    place = ExternalDataInfo(tensor)
    if PurePath(place.location).is_absolute() or ".." in PurePath(place.location).parts:
        raise CheckpointError(f"{path} names {place.location!r}, which is not beside it")
    file, shape = path.parent / place.location, tuple(tensor.dims)
    try:
        size = (prod(shape) * dtype.itemsize,)
        content = np.memmap(file, np.uint8, "c", place.offset or 0, size)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}, which holds weights of {path.name}, cannot be read ({error}); copy it again"
        ) from error
    return torch.from_numpy(content).view(dtype).view(shape)
