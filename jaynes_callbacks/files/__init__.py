"""Tensors in checkpoint files: open a file, list its tensors, count them without loading it whole.

`opening` finds the checkpoint at a path, `formats` holds one reader for each file format, `entry`
what a reader returns, `survey` decides which tensors are measured and measures them.
"""

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats import SUFFIXES
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.files.opening import find_checkpoints, open_checkpoint

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "CheckpointError",
    "Entry",
    "Limits",
    "Problem",
    "find_checkpoints",
    "open_checkpoint",
]
