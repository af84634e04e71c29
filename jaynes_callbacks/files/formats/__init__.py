"""Readers of checkpoint formats: one module each, imported when a file of its format is opened.

A reader takes a path and `Limits`, and returns a `Checkpoint`.  To add a format, write its module
and name it in `_BY_SUFFIX`; if it needs a package of its own, name the extra that installs it.
Other packages add readers without a line here: see `third_party`.

Parsers raise whatever they like on damaged files.  `Format.read` is the one place where any error
of a reader, and of loading a tensor later, becomes a `CheckpointError` that names file and tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

from torch import Tensor

from jaynes_callbacks._extras import MissingExtraError, require_extra
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem, one_sentence
from jaynes_callbacks.files.formats.third_party import Reader, found_readers, import_reader
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.records.printable import printable

__all__ = [
    "DISTRIBUTED_INDEX",
    "SAFETENSORS",
    "SUFFIXES",
    "TORCH",
    "Format",
    "format_of",
    "guarded",
    "known_suffixes",
]

#: The file that makes a directory a checkpoint of `torch.distributed.checkpoint`.
DISTRIBUTED_INDEX = ".metadata"


class Format(ABC):
    """A file format."""

    @abstractmethod
    def load_reader(self) -> Reader:
        """Import the reader.

        Raises:
            CheckpointError: if it cannot be imported; says what to do.
        """

    def read(self, path: Path, limits: Limits) -> Checkpoint:
        """Open a file with the reader of this format.

        Args:
            path: of the file or directory.
            limits: on what is expanded in memory, now or when a tensor is loaded.

        Raises:
            CheckpointError: whatever the reader raises.
        """
        reader = self.load_reader()
        with one_sentence(str(path)):
            checkpoint = reader(path, limits)
            if not isinstance(checkpoint, Checkpoint):
                raise TypeError(f"its reader returned a {type(checkpoint).__name__}")
        entries = tuple(guarded(str(path), entry, limits) for entry in checkpoint.entries)
        problems = tuple(Problem(at, printable(reason)) for at, reason in checkpoint.problems)
        return replace(checkpoint, entries=entries, problems=problems)


@dataclass(frozen=True)
class _OwnFormat(Format):
    """A file format of this package and where its reader is.

    Attributes:
        module: a module of this package.
        function: the reader in it.
        extra: the extra of ``pyproject.toml`` that installs what the reader needs, if it needs
            more than the package itself.
    """

    module: str
    function: str
    extra: str | None = None

    def load_reader(self) -> Reader:
        """Import the reader.

        Raises:
            CheckpointError: naming the extra to install.
        """
        place = f"{__name__}.{self.module}"
        if self.extra is None:
            reader: Reader = getattr(import_module(place), self.function)
            return reader
        try:
            with require_extra(self.extra, "reading this format"):
                reader = getattr(import_module(place), self.function)
        except MissingExtraError as error:
            raise CheckpointError(str(error)) from error
        return reader


@dataclass(frozen=True)
class _InstalledFormat(Format):
    """A file format that another package reads.

    Attributes:
        entry_point: names its reader.
    """

    entry_point: EntryPoint

    def load_reader(self) -> Reader:
        """Import the reader.

        Raises:
            CheckpointError: naming the package.
        """
        return import_reader(self.entry_point)


TORCH = _OwnFormat("torch_files", "open_torch")
SAFETENSORS = _OwnFormat("safetensors_files", "open_safetensors", "safetensors")
_DISTRIBUTED = _OwnFormat("distributed_files", "open_distributed")
_INDEX = _OwnFormat("hf_index", "open_index")
_BY_SUFFIX: dict[str, Format] = {
    ".safetensors": SAFETENSORS,
    ".safetensors.index.json": _INDEX,
    ".bin.index.json": _INDEX,
    ".pt": TORCH,
    ".pth": TORCH,
    ".bin": TORCH,
    ".ckpt": TORCH,
    ".npz": _OwnFormat("npz_files", "open_npz"),
    ".onnx": _OwnFormat("onnx_files", "open_onnx", "onnx"),
    ".gguf": _OwnFormat("gguf_files", "open_gguf", "gguf"),
    ".tflite": _OwnFormat("tflite_files", "open_tflite"),
    ".task": _OwnFormat("tflite_files", "open_task"),
    ".msgpack": _OwnFormat("flax_files", "open_flax"),
    ".h5": _OwnFormat("keras_files", "open_h5", "keras"),
    ".hdf5": _OwnFormat("keras_files", "open_h5", "keras"),
    ".keras": _OwnFormat("keras_files", "open_keras", "keras"),
}
#: Ends of the names of files that this package reads.
SUFFIXES = tuple(_BY_SUFFIX)


def guarded(what: str, entry: Entry, limits: Limits) -> Entry:
    """Let whatever fails when a tensor is loaded become a sentence that names it, and its file."""
    return replace(entry, load=partial(_load, f"{what}: tensor {entry.name}", entry, limits))


def _load(what: str, entry: Entry, limits: Limits) -> Tensor:
    with one_sentence(what):
        if entry.stored is not None:
            limits.check_expansion(what, entry.nbytes, entry.stored)
        return entry.load()


def known_suffixes() -> tuple[str, ...]:
    """Return the ends of the names of files that can be read, by other packages too."""
    return (*SUFFIXES, *(each for each in found_readers() if each not in SUFFIXES))


def format_of(path: Path) -> Format | None:
    """Return the format of a file, by the end of its name, or of a directory, by its index.

    What this package reads is left to no other one.  Returns None for other files, and for
    directories that may hold checkpoints but are none.
    """
    if path.is_dir():
        return _DISTRIBUTED if (path / DISTRIBUTED_INDEX).is_file() else None
    if (suffix := _longest_end(path, _BY_SUFFIX)) is not None:
        return _BY_SUFFIX[suffix]
    others = found_readers()
    suffix = _longest_end(path, others)
    return None if suffix is None else _InstalledFormat(others[suffix])


def _longest_end(path: Path, suffixes: Iterable[str]) -> str | None:
    return max((each for each in suffixes if path.name.endswith(each)), key=len, default=None)
