"""Checkpoint files as named tensors that are not loaded yet: a reader per format, one way in."""

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.opening import (
    SUFFIXES,
    find_checkpoints,
    open_checkpoint,
)

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "CheckpointError",
    "Entry",
    "Problem",
    "find_checkpoints",
    "open_checkpoint",
]
