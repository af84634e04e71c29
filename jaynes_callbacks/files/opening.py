"""From a path to the checkpoints in it: which reader a file needs, and what a directory holds."""

from collections.abc import Callable
from importlib import import_module
from os import PathLike
from pathlib import Path

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError

__all__ = ["SUFFIXES", "find_checkpoints", "open_checkpoint"]

_HOME = "jaynes_callbacks.files.formats"
_TORCH = f"{_HOME}.torch_files:open_torch"
#: Which reader opens what; each is imported when it is first needed.
_READERS = {
    ".safetensors": f"{_HOME}.safetensors_files:open_safetensors",
    ".safetensors.index.json": f"{_HOME}.hf_index:open_index",
    ".bin.index.json": f"{_HOME}.hf_index:open_index",
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".bin": _TORCH,
    ".ckpt": _TORCH,
    ".npz": f"{_HOME}.npz_files:open_npz",
    ".onnx": f"{_HOME}.onnx_files:open_onnx",
    ".gguf": f"{_HOME}.gguf_files:open_gguf",
}
#: Ends of the names of files that can be read.
SUFFIXES = tuple(_READERS)
_DISTRIBUTED = f"{_HOME}.distributed_files:open_distributed"
_METADATA = ".metadata"


def open_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """Open one checkpoint: a file, an index of shards, or a directory of one model.

    Args:
        path: of the file or directory.

    Returns:
        Its tensors by name, none of them loaded.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: if it is none that can be read.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(
            f"there is no {place}; expected a checkpoint or a directory of some"
        )
    if (place / _METADATA).is_file():
        return _reader(_DISTRIBUTED)(place)
    if place.is_dir():
        found = find_checkpoints(place)
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise CheckpointError(f"{place} holds {len(found)} checkpoints ({names}); name one")
        return open_checkpoint(found[0])
    suffix = _suffix(place)
    if suffix is None:
        raise CheckpointError(
            f"{place} is no checkpoint that can be read: its name ends in none of "
            f"{', '.join(SUFFIXES)}"
        )
    return _reader(_READERS[suffix])(place)


def find_checkpoints(path: str | PathLike[str]) -> list[Path]:
    """The checkpoints at a path: itself, or those of a directory.

    A directory of one model in several files is one checkpoint: its index of shards, or the
    directory itself where PyTorch's distributed checkpoint wrote it.  Where a model lies there both
    as ``model*.safetensors`` and as ``pytorch_model*.bin``, the former is taken.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: for a directory without a checkpoint.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(
            f"there is no {place}; expected a checkpoint or a directory of some"
        )
    if not place.is_dir() or (place / _METADATA).is_file():
        return [place]
    files = sorted(file for file in place.iterdir() if file.is_file() and _suffix(file))
    indices = [file for file in files if file.name.endswith(".index.json")]
    shards = {shard for index in indices for shard in _shards_of(index)}
    found = [file for file in files if file.name not in shards]
    if any(file.name.startswith("model") and ".safetensors" in file.name for file in found):
        found = [file for file in found if not file.name.startswith("pytorch_model")]
    found += sorted(each.parent for each in place.glob(f"*/{_METADATA}"))
    if not found:
        raise CheckpointError(
            f"{place} holds no checkpoint: no file in it ends in {', '.join(SUFFIXES)}, and it has "
            f"no {_METADATA} of a distributed checkpoint"
        )
    return found


def _suffix(file: Path) -> str | None:
    fitting = [suffix for suffix in SUFFIXES if file.name.endswith(suffix)]
    return max(fitting, key=len, default=None)


def _shards_of(index: Path) -> set[str]:
    from jaynes_callbacks.files.formats.hf_index import shards_of

    try:
        return set(shards_of(index).values())
    except CheckpointError:
        return set()


def _reader(home: str) -> Callable[[Path], Checkpoint]:
    module, name = home.split(":")
    try:
        reader: Callable[[Path], Checkpoint] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"reading this format needs {error.name}, which is not installed; "
            f"pip install 'jaynes-callbacks[{error.name}]'"
        ) from error
    return reader
