"""The result of opening a checkpoint: its tensors by name, none of them loaded."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import reason_not_countable
from jaynes_callbacks.records.printable import printable

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Entry",
    "Place",
    "Problem",
    "aliases_noted",
    "one_sentence",
    "tensor_entries",
]


class CheckpointError(Exception):
    """A file cannot be read as a checkpoint; one sentence says which, why and what to do.

    Args:
        sentence: in which names from the file may be anything; control characters become escapes.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


@contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turn any error of the block into one that says in a sentence what cannot be read.

    Args:
        what: names the file, or the file and the tensor.

    Raises:
        CheckpointError: for every error but an interrupt.
    """
    try:
        yield
    except (CheckpointError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # A panic of a parser in Rust is no `Exception`.
    except BaseException as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        kind = type(error).__name__
        raise CheckpointError(
            f"{what} cannot be read ({kind}{': ' * bool(said)}{said}); it may be damaged: copy or "
            "download it again"
        ) from error


class Place(Protocol):
    """Where a checkpoint is, if not in the file system; `str` shows it in full."""

    @property
    def name(self) -> str:
        """The last part, by which people know it."""


class Problem(NamedTuple):
    """A part of a checkpoint that could not be read.

    Attributes:
        file: the part's file.
        reason: one sentence on what is wrong and what to do.
    """

    file: Path | Place
    reason: str


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: its name in the file.
        shape: its shape.
        dtype: its type in the file, as PyTorch or the format names it.
        nbytes: bytes that its values take.
        load: returns the values.  For a mapped entry they are a view of the file, whose pages are
            read when the values are used.
        mapped: whether `load` maps the file instead of reading the tensor into memory.
        aliases: other names of the same values.
        reason: why the tensor has no magnitudes to count, as far as this is known without loading
            it; None if nothing speaks against counting it.
        stored: bytes of the file from which the values are made; None if these are all of `nbytes`.
        remote: whether `load` waits for a server.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    load: Callable[[], Tensor]
    mapped: bool = True
    aliases: tuple[str, ...] = ()
    reason: str | None = None
    stored: int | None = None
    remote: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def _nothing_to_remove() -> None:
    """Keep a local checkpoint as it is."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one model's file or directory.

    Attributes:
        path: the file or directory, or a place that has a name and can be shown as they can.
        entries: its tensors in the file's order; tied ones once.
        problems: files of the checkpoint that could not be read.
        step: optimizer steps at which it was saved, 0 where the file does not say.
        epoch: epochs, likewise.
        notes: what else the file holds that was not read, a sentence each.
        commit: of the repository that holds it; empty for a local file.
        close: removes what was downloaded for it; no tensor can be loaded afterwards.
    """

    path: Path | Place
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    step: int = 0
    epoch: int = 0
    notes: tuple[str, ...] = ()
    commit: str = ""
    close: Callable[[], object] = _nothing_to_remove


def tensor_entries(named: Iterable[tuple[str, Tensor]], *, mapped: bool) -> tuple[Entry, ...]:
    """Make one entry for each distinct tensor; further names of the same values become aliases.

    Args:
        named: tensors with their names.
        mapped: whether they are views of a mapped file.
    """
    names: dict[object, list[str]] = {}
    tensors: dict[object, Tensor] = {}
    for name, tensor in named:
        key = _identity(name, tensor)
        names.setdefault(key, []).append(name)
        tensors.setdefault(key, tensor.detach())
    return tuple(
        _tensor_entry(first, tuple(aliases), tensors[key], mapped)
        for key, (first, *aliases) in names.items()
    )


def _tensor_entry(name: str, aliases: tuple[str, ...], tensor: Tensor, mapped: bool) -> Entry:
    return Entry(
        name,
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        tensor.numel() * tensor.element_size(),
        lambda: tensor,
        mapped,
        aliases,
        reason_not_countable(tensor) or None,
    )


def _identity(name: str, tensor: Tensor) -> Any:
    """Return a key that tensors with the same storage, shape and strides share."""
    if tensor.layout is not torch.strided or not tensor.numel() or tensor.is_meta:
        return name
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def aliases_noted(metadata: Mapping[str, str], names: set[str]) -> dict[str, tuple[str, ...]]:
    """Read which names `safetensors.torch.save_model` left out as equal to another tensor's.

    It notes them in a file's metadata, which hold other texts too.
    """
    aliases: dict[str, tuple[str, ...]] = {}
    for left_out, kept in metadata.items():
        if kept in names and left_out not in names:
            aliases[kept] = (*aliases.get(kept, ()), left_out)
    return aliases
