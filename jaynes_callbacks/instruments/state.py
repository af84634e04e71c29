"""Records as builtins and CPU tensors, which is all that a checkpoint may hold."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from jaynes_callbacks.instruments.record import Record

__all__ = ["pack", "unpack"]


def pack(record: Record) -> dict[str, Any]:
    """The record's fields, its arrays as tensors; `torch.load(weights_only=True)` takes them.

    >>> unpack(pack(Record(name="fc.weight", n=3, counts=np.array([1, 2])))).counts
    array([1, 2])
    """
    return {name: _packed(value) for name, value in vars(record).items()}


def unpack(row: dict[str, Any]) -> Record:
    """The record that was packed; fields that a newer version has begun to know are nan."""
    arrays = {name: value.numpy() for name, value in row.items() if isinstance(value, Tensor)}
    return Record(**{**row, **arrays})


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return dict(value) if hasattr(value, "items") else value
