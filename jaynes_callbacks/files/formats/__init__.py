"""Readers of checkpoint formats: one module each, imported when a file of its format is opened.

A reader takes a path and `Limits`, and returns a `Checkpoint`.  To add a format, write its module
and name it in `_BY_SUFFIX`; if it needs a package of its own, name the extra that installs it.

Parsers raise whatever they like on damaged files.  `Format.read` is the one place where any error
of a reader, and of loading a tensor later, becomes a `CheckpointError` that names file and tensor.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from jaynes_callbacks._extras import MissingExtraError, require_extra
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem, one_sentence
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.records.printable import printable

__all__ = [
    "DISTRIBUTED_INDEX",
    "SAFETENSORS",
    "SUFFIXES",
    "TORCH",
    "Format",
    "format_of",
]

Reader = Callable[[Path, Limits], Checkpoint]

#: The file that makes a directory a checkpoint of `torch.distributed.checkpoint`.
DISTRIBUTED_INDEX = ".metadata"


class Format(NamedTuple):
    """A file format and where its reader is.

    Attributes:
        module: a module of this package.
        function: the reader in it.
        extra: the extra of ``pyproject.toml`` that installs what the reader needs, if it needs
            more than the package itself.
    """

    module: str
    function: str
    extra: str | None = None

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
        entries = tuple(_guarded(path, entry, limits) for entry in checkpoint.entries)
        problems = tuple(Problem(at, printable(reason)) for at, reason in checkpoint.problems)
        return replace(checkpoint, entries=entries, problems=problems)

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


TORCH = Format("torch_files", "open_torch")
SAFETENSORS = Format("safetensors_files", "open_safetensors", "safetensors")
_DISTRIBUTED = Format("distributed_files", "open_distributed")
_INDEX = Format("hf_index", "open_index")
_BY_SUFFIX = {
    ".safetensors": SAFETENSORS,
    ".safetensors.index.json": _INDEX,
    ".bin.index.json": _INDEX,
    ".pt": TORCH,
    ".pth": TORCH,
    ".bin": TORCH,
    ".ckpt": TORCH,
    ".npz": Format("npz_files", "open_npz"),
    ".onnx": Format("onnx_files", "open_onnx", "onnx"),
    ".gguf": Format("gguf_files", "open_gguf", "gguf"),
    ".tflite": Format("tflite_files", "open_tflite"),
    ".task": Format("tflite_files", "open_task"),
    ".msgpack": Format("flax_files", "open_flax"),
    ".h5": Format("keras_files", "open_h5", "keras"),
    ".hdf5": Format("keras_files", "open_h5", "keras"),
    ".keras": Format("keras_files", "open_keras", "keras"),
}
#: Ends of the names of files that can be read.
SUFFIXES = tuple(_BY_SUFFIX)


def _guarded(path: Path, entry: Entry, limits: Limits) -> Entry:
    return replace(entry, load=partial(_load, f"{path}: tensor {entry.name}", entry, limits))


def _load(what: str, entry: Entry, limits: Limits) -> Tensor:
    with one_sentence(what):
        if entry.stored is not None:
            limits.check_expansion(what, entry.nbytes, entry.stored)
        return entry.load()


def format_of(path: Path) -> Format | None:
    """Return the format of a file, by the end of its name, or of a directory, by its index.

    Returns None for other files, and for directories that may hold checkpoints but are none.
    """
    if path.is_dir():
        return _DISTRIBUTED if (path / DISTRIBUTED_INDEX).is_file() else None
    matching = [suffix for suffix in SUFFIXES if path.name.endswith(suffix)]
    return _BY_SUFFIX[max(matching, key=len)] if matching else None
