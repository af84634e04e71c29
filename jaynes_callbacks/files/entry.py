"""What every reader of files hands out: named tensors that are not loaded yet."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

__all__ = ["Checkpoint", "CheckpointError", "Entry", "Problem"]


class CheckpointError(Exception):
    """A file that cannot be read as a checkpoint: one sentence on what, why and what to do."""


class Problem(NamedTuple):
    """A part of a checkpoint that could not be read, and the sentence that says why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: as the file has it.
        shape: its shape.
        dtype: its type in the file, as PyTorch or the format names it.
        nbytes: what it takes in the file.
        load: the values; of a mapped entry a view of the file, whose pages are read when they are
            looked at.
        mapped: whether `load` maps the file instead of reading all of it.
        aliases: other names of the same values.
        reason: why there are no magnitudes to count, known without loading; empty if there are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    load: Callable[[], Tensor]
    mapped: bool = True
    aliases: tuple[str, ...] = ()
    reason: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        number = 1
        for extent in self.shape:
            number *= extent
        return number


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one model's file or directory.

    Attributes:
        path: what was opened.
        entries: its tensors, in the file's order; tied ones once.
        problems: files of it that could not be read.
        step: optimizer steps at which it was saved, where the file says so.
        epoch: epochs, likewise.
    """

    path: Path
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    step: int = 0
    epoch: int = 0
