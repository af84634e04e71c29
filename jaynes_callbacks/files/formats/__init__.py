"""Readers of checkpoint formats: one module each, imported when a file of its format is opened.

A reader takes a path and returns a `Checkpoint`.  To add a format, write its module and name it in
`_BY_SUFFIX`; if it needs a package of its own, name the extra that installs it.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from jaynes_callbacks._extras import MissingExtraError, require_extra
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError

__all__ = ["DISTRIBUTED_INDEX", "SAFETENSORS", "SUFFIXES", "TORCH", "Format", "format_of"]

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

    def load_reader(self) -> Callable[[Path], Checkpoint]:
        """Import the reader.

        Raises:
            CheckpointError: naming the extra to install.
        """
        place = f"{__name__}.{self.module}"
        if self.extra is None:
            reader: Callable[[Path], Checkpoint] = getattr(import_module(place), self.function)
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
}
#: Ends of the names of files that can be read.
SUFFIXES = tuple(_BY_SUFFIX)


def format_of(path: Path) -> Format | None:
    """Return the format of a file, by the end of its name, or of a directory, by its index.

    Returns None for other files, and for directories that may hold checkpoints but are none.
    """
    if path.is_dir():
        return _DISTRIBUTED if (path / DISTRIBUTED_INDEX).is_file() else None
    matching = [suffix for suffix in SUFFIXES if path.name.endswith(suffix)]
    return _BY_SUFFIX[max(matching, key=len)] if matching else None
