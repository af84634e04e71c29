"""Frames as a checkpoint may hold them: CPU tensors and builtins, for ``weights_only=True``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Array, R, Schema

__all__ = ["pack_frame", "unpack_frame"]

Packed = Mapping[str, Any]

_SCHEMA_VERSION = "schema version"


def pack_frame(frame: Frame[Any]) -> dict[str, Any]:
    """Return a frame's columns by name: numbers as tensors, texts and shapes as lists.

    The schema's version stands beside them, under a name that no column has.
    """
    columns = {name: _packed(values) for name, values in frame.columns.items()}
    return {**columns, _SCHEMA_VERSION: frame.schema.version}


def unpack_frame(packed: "Packed | Sequence[Packed]", schema: Schema[R]) -> Frame[R]:
    """Return the frame that was packed.

    Columns that a newer version knows take their defaults, those that it knows no more are dropped;
    units of an older version become today's.

    Args:
        packed: by `pack_frame`; or, from a checkpoint of version 0.1, one mapping of fields a row.
        schema: of the frame.
    """
    if not isinstance(packed, Mapping):
        frame = Frame.from_rows(schema, [_row(each, schema) for each in packed])
        return Frame(schema, schema.upgrade(frame.columns, 1))
    known = schema.with_names(packed).by_name
    columns = {name: _unpacked(values) for name, values in packed.items() if name in known}
    return Frame(schema, schema.upgrade(columns, packed.get(_SCHEMA_VERSION, 1)))


def _row(fields: Packed, schema: Schema[R]) -> R:
    arrays: dict[str, Any] = {
        name: value.numpy() if isinstance(value, Tensor) else value
        for name, value in fields.items()
    }
    known = schema.plain | set(schema.groups)
    return schema.row(**{name: value for name, value in arrays.items() if name in known})


def _packed(values: Array) -> Any:
    if isinstance(values, np.ma.MaskedArray):
        return {
            "values": torch.from_numpy(np.ma.getdata(values).copy()),
            "mask": torch.from_numpy(np.ma.getmaskarray(values).copy()),
        }
    if values.dtype != object:
        return torch.from_numpy(np.ascontiguousarray(values).copy())
    return [
        torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for value in values
    ]


def _unpacked(values: Any) -> Array:
    if isinstance(values, Tensor):
        found: Array = values.numpy()
        return found
    if isinstance(values, Mapping):
        return np.ma.MaskedArray(values["values"].numpy(), values["mask"].numpy())
    packed = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        packed[place] = value.numpy() if isinstance(value, Tensor) else value
    return packed
