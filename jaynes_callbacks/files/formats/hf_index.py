"""A model in several files: an index says which file holds which tensor.

A shard that is missing or broken does not take the others with it: it becomes a `Problem`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.safetensors_files import open_safetensors
from jaynes_callbacks.files.formats.torch_files import open_torch

__all__ = ["open_index", "shards_of"]


def open_index(index: Path) -> Checkpoint:
    """The tensors of all shards that an ``*.index.json`` names.

    Raises:
        CheckpointError: if the index is none.
    """
    place = shards_of(index)
    entries: list[Entry] = []
    problems: list[Problem] = []
    for name in dict.fromkeys(place.values()):
        expected = {tensor for tensor, shard in place.items() if shard == name}
        try:
            found = _open_shard(index.parent / name)
            entries += [entry for entry in found if {entry.name, *entry.aliases} & expected]
        except (CheckpointError, FileNotFoundError) as error:
            problems.append(Problem(index.parent / name, str(error)))
            continue
        missing = expected - {name for entry in found for name in (entry.name, *entry.aliases)}
        if missing:
            reason = f"it lacks {_some(missing)}, which {index.name} says it holds"
            problems.append(Problem(index.parent / name, f"{index.parent / name}: {reason}"))
    return Checkpoint(index, tuple(entries), tuple(problems))


def shards_of(index: Path) -> Mapping[str, str]:
    """Which file of the index's directory holds which tensor.

    Raises:
        CheckpointError: if it is no index of shards.
    """
    try:
        place = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(tensor): str(shard) for tensor, shard in place.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"{index} is no index of shards ({type(error).__name__}: {error}); expected JSON with "
            "a weight_map from tensors to files, as Hugging Face saves it"
        ) from error
    for shard in shards.values():
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names the shard {shard!r}, which is not beside it")
    return shards


def _open_shard(file: Path) -> tuple[Entry, ...]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; download it again")
    reader = open_safetensors if file.name.endswith(".safetensors") else open_torch
    return reader(file).entries


def _some(names: set[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first
