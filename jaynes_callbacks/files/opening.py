"""Find the checkpoints at a path and open them with the reader of their format."""

from os import PathLike, fspath
from pathlib import Path
from types import ModuleType

from jaynes_callbacks._extras import MissingExtraError, require_extra
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, one_sentence
from jaynes_callbacks.files.formats import DISTRIBUTED_INDEX, format_of, known_suffixes
from jaynes_callbacks.files.hub.place import (
    SCHEME,
    HubPlace,
    is_hub_address,
    looks_like_repository,
)
from jaynes_callbacks.files.limits import Limits

__all__ = ["find_checkpoints", "hub_opening", "open_checkpoint"]

#: File names that an error message lists.
_SHOWN = 5
_DEFAULT = Limits()


def open_checkpoint(path: str | PathLike[str] | HubPlace, limits: Limits = _DEFAULT) -> Checkpoint:
    """Open one checkpoint: a file, an index of shards, a directory of one model, or one on the hub.

    Args:
        path: of the file or directory; or ``hf://org/name[@revision][/file]``.
        limits: on what is expanded in memory.

    Returns:
        Its tensors by name, none of them loaded.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: if it is no checkpoint that can be read.
    """
    if isinstance(path, HubPlace) or is_hub_address(fspath(path)):
        opened: Checkpoint = hub_opening().open_on_hub(_hub_place(path), limits)
        return opened
    place = _existing(path)
    if found := format_of(place):
        return found.read(place, limits)
    if not place.is_dir():
        raise CheckpointError(
            f"{place} is no checkpoint that can be read: its name ends in none of "
            f"{', '.join(known_suffixes())}"
        )
    checkpoints = find_checkpoints(place, limits)
    if len(checkpoints) > 1:
        names = ", ".join(each.name for each in checkpoints[:_SHOWN])
        raise CheckpointError(f"{place} holds {len(checkpoints)} checkpoints ({names}); name one")
    return open_checkpoint(checkpoints[0], limits)


def find_checkpoints(path: str | PathLike[str], limits: Limits = _DEFAULT) -> list[Path | HubPlace]:
    """List the checkpoints at a path: the path itself, or those in a directory; one on the hub.

    A directory of one model in several files is one checkpoint: its index of shards, or the
    directory itself where PyTorch's distributed checkpoint wrote it.  Where a model lies there both
    as ``model*.safetensors`` and as ``pytorch_model*.bin``, the former is taken.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: for a directory without a checkpoint.
    """
    if is_hub_address(fspath(path)):
        return [_hub_place(path)]
    place = _existing(path)
    if not place.is_dir() or format_of(place):
        return [place]
    with one_sentence(str(place)):
        return [*_checkpoints_in(place, limits)]


def _hub_place(path: str | PathLike[str] | HubPlace) -> HubPlace:
    """Read an address on the hub.

    Raises:
        CheckpointError: if it is none.
    """
    if isinstance(path, HubPlace):
        return path
    try:
        return HubPlace.parse(fspath(path))
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def hub_opening() -> ModuleType:
    """Import what opens models on the hub.

    Raises:
        CheckpointError: naming the extra to install.
    """
    try:
        with require_extra("hub", "reading from the hub"):
            from jaynes_callbacks.files.hub import opening
    except MissingExtraError as error:
        raise CheckpointError(str(error)) from error
    return opening


def _checkpoints_in(place: Path, limits: Limits) -> list[Path]:
    files = sorted(file for file in place.iterdir() if file.is_file() and format_of(file))
    indices = [file for file in files if file.name.endswith(".index.json")]
    shards = {shard for index in indices for shard in _shards_of(index, limits)}
    found = [file for file in files if file.name not in shards]
    if any(file.name.startswith("model") and ".safetensors" in file.name for file in found):
        found = [file for file in found if not file.name.startswith("pytorch_model")]
    found += sorted(each.parent for each in place.glob(f"*/{DISTRIBUTED_INDEX}"))
    if not found:
        ends = ", ".join(known_suffixes())
        raise CheckpointError(
            f"{place} holds no checkpoint: no file in it ends in {ends}, and "
            f"it has no {DISTRIBUTED_INDEX} of a distributed checkpoint; folders below it are not "
            f"searched: name them, as in {place}/*/checkpoints"
        )
    return found


def _existing(path: str | PathLike[str]) -> Path:
    """Return a path at which there is a regular file or a directory.

    Raises:
        FileNotFoundError: if there is nothing.
        CheckpointError: if there is something else.
    """
    if not str(path):
        raise FileNotFoundError("the path is empty; expected a checkpoint or a directory of some")
    place = Path(path)
    with one_sentence(str(place)):
        exists, is_readable = place.exists(), place.is_file() or place.is_dir()
    if not exists:
        meant = f"; did you mean {SCHEME}{place}?" if looks_like_repository(str(path)) else ""
        raise FileNotFoundError(
            f"there is no {place}; expected a checkpoint or a directory of some{meant}"
        )
    if not is_readable:
        raise CheckpointError(
            f"{place} is a pipe or a device; a checkpoint is read in any order, so it must be a "
            "regular file: save it to one"
        )
    return place


def _shards_of(index: Path, limits: Limits) -> set[str]:
    """Return the names of an index's shards; of a broken index none."""
    from jaynes_callbacks.files.formats.hf_index import read_index

    try:
        return set(read_index(index, limits).values())
    except CheckpointError:
        return set()
