"""Open a model on the hub as a checkpoint, without keeping anything of it.

Of safetensors files tensors are read one by one.  A file of any other format is downloaded whole
into a temporary folder, which `Checkpoint.close` removes.
"""

import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem, one_sentence
from jaynes_callbacks.files.formats import format_of, guarded, known_suffixes
from jaynes_callbacks.files.formats.hf_index import shards_of
from jaynes_callbacks.files.hub.choosing import model_file
from jaynes_callbacks.files.hub.client import Hub, Revision
from jaynes_callbacks.files.hub.place import HubPlace
from jaynes_callbacks.files.hub.ranges import entries_of
from jaynes_callbacks.files.limits import Limits

__all__ = ["download_of", "open_on_hub"]

_SAFETENSORS, _INDEX = ".safetensors", ".index.json"


def open_on_hub(place: HubPlace, limits: Limits, *, hub: Hub | None = None) -> Checkpoint:
    """List the tensors of a model on the hub.

    The revision is resolved to a commit first, and all is read of that: a branch may move on.

    Args:
        place: on the hub.
        limits: on what is expanded in memory.
        hub: of the same repository, if it is at hand.

    Raises:
        CheckpointError: if it cannot be had, or is no model that can be read.
    """
    hub = hub or Hub(place.repository)
    at = hub.revision(place.revision)
    file = _file(place, at)
    if not file.endswith((_SAFETENSORS, _SAFETENSORS + _INDEX)):
        return _downloaded(hub, place, file, at, limits)
    entries, problems = _by_ranges(hub, place, file, at, limits)
    read = tuple(guarded(str(place), entry, limits) for entry in entries)
    return Checkpoint(place, read, tuple(problems), commit=at.commit)


def download_of(place: HubPlace) -> dict[str, int]:
    """Return the files that would be downloaded whole to measure a place, with their bytes.

    Raises:
        CheckpointError: if the hub cannot be asked.
    """
    at = Hub(place.repository).revision(place.revision)
    file = _file(place, at)
    if file.endswith((_SAFETENSORS, _SAFETENSORS + _INDEX)):
        return {}
    if file.endswith(_INDEX):
        return {name: size for name, size in at.files.items() if _is_beside(name, file)}
    return {file: at.files[file]}


def _file(place: HubPlace, at: Revision) -> str:
    if place.file is None:
        return model_file(at.files, str(place))
    if place.file in at.files:
        if format_of(Path(place.file)) is None:
            raise CheckpointError(
                f"{place} is no checkpoint that can be read: its name ends in none of "
                f"{', '.join(known_suffixes())}"
            )
        return place.file
    below = [name for name in at.files if name.startswith(place.file.rstrip("/") + "/")]
    if not below:
        raise CheckpointError(f"{place} does not exist: the repository has no such file")
    return model_file(below, f"{place}")


def _by_ranges(
    hub: Hub, place: HubPlace, file: str, at: Revision, limits: Limits
) -> tuple[list[Entry], list[Problem]]:
    """Return the tensors of a safetensors file, or of all shards of an index."""
    if not file.endswith(_INDEX):
        return list(entries_of(hub, file, at, limits)), []
    what = f"{place}: {file}"
    if at.files[file] > limits.text:
        raise CheckpointError(f"{what} has {at.files[file]:,} bytes, too many for an index")
    text = hub.read(file, at, 0, at.files[file]).decode(errors="replace")
    entries: list[Entry] = []
    problems: list[Problem] = []
    for shard in dict.fromkeys(shards_of(text, what, limits).values()):
        path = str(PurePosixPath(file).with_name(shard))
        try:
            if path not in at.files:
                raise CheckpointError(f"{what} names {shard}, which the repository does not have")
            entries += entries_of(hub, path, at, limits)
        except CheckpointError as error:
            problems.append(Problem(place, str(error)))
    return entries, problems


def _downloaded(hub: Hub, place: HubPlace, file: str, at: Revision, limits: Limits) -> Checkpoint:
    """Download one file, or the shards of an index, and open it."""
    from jaynes_callbacks.files.opening import open_checkpoint

    folder = tempfile.TemporaryDirectory(prefix="jaynes-hub-", ignore_cleanup_errors=True)
    try:
        with one_sentence(str(place)):
            path = hub.download(file, at, Path(folder.name))
            if file.endswith(_INDEX):
                text = path.read_text(errors="replace")
                for shard in dict.fromkeys(shards_of(text, str(place), limits).values()):
                    hub.download(str(PurePosixPath(file).with_name(shard)), at, Path(folder.name))
            elif "config.json" in at.files:
                hub.download("config.json", at, Path(folder.name))
        found = open_checkpoint(path, limits)
    except BaseException:
        folder.cleanup()
        raise
    return replace(found, path=place, commit=at.commit, close=folder.cleanup)


def _is_beside(name: str, index: str) -> bool:
    """Tell whether a file is a shard of an index, by its name."""
    stem = PurePosixPath(index).name.removesuffix(_INDEX)
    base, dot, suffix = stem.rpartition(".")
    own = PurePosixPath(name)
    return (
        own.parent == PurePosixPath(index).parent
        and own.name.startswith(base)
        and own.name.endswith(dot + suffix)
    )
