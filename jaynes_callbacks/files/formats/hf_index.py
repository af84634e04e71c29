"""Models saved in several files: an index says which file holds which tensor.

A shard that is missing or broken becomes a `Problem`; the others are read all the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem, one_sentence
from jaynes_callbacks.files.formats import SAFETENSORS, TORCH
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.records.regular import read_text

__all__ = ["open_index", "read_index", "shards_of"]


def open_index(index: Path, limits: Limits) -> Checkpoint:
    """List the tensors of all shards that an ``*.index.json`` names.

    Raises:
        CheckpointError: if the file is no index of shards, or what their reader needs is not
            installed.
    """
    shard_of = read_index(index, limits)
    entries: list[Entry] = []
    problems: list[Problem] = []
    notes: dict[str, None] = {}
    for shard in dict.fromkeys(shard_of.values()):
        file = index.parent / shard
        form = SAFETENSORS if shard.endswith(".safetensors") else TORCH
        # What the reader needs is missed for all shards alike.
        form.load_reader()
        try:
            with one_sentence(str(file)):
                is_there = file.is_file()
            if not is_there:
                raise CheckpointError(f"{file} is missing; download it again")
            shard_content = form.read(file, limits)
        except CheckpointError as error:
            problems.append(Problem(file, str(error)))
            continue
        found = shard_content.entries
        problems += shard_content.problems
        notes |= dict.fromkeys(shard_content.notes)
        expected = {tensor for tensor, its_shard in shard_of.items() if its_shard == shard}
        entries += [entry for entry in found if {entry.name, *entry.aliases} & expected]
        missing = expected - {name for entry in found for name in (entry.name, *entry.aliases)}
        if missing:
            reason = f"it lacks {_some(missing)}, which {index.name} says it holds"
            problems.append(Problem(file, f"{file}: {reason}"))
    return Checkpoint(index, tuple(entries), tuple(problems), notes=tuple(notes))


def read_index(index: Path, limits: Limits) -> Mapping[str, str]:
    """Read which file of the index's directory holds which tensor.

    Returns:
        File names by the names of tensors.

    Raises:
        CheckpointError: if the file is no index of shards, or names a file elsewhere.
    """
    try:
        text = read_text(index, limits.text)
    except (ValueError, OSError) as error:
        raise _no_index(str(index), error) from error
    return shards_of(text, str(index), limits)


def shards_of(text: str, what: str, limits: Limits) -> Mapping[str, str]:
    """Read which file holds which tensor from the text of an index; see `read_index`.

    Args:
        text: of the index.
        what: names the index, for messages.
        limits: on the lists in it.
    """
    try:
        # A list or dictionary takes some 60 bytes, and two in the text.
        if text.count("[") + text.count("{") > limits.objects:
            raise ValueError(f"it has more than {limits.objects:,} lists")
        weight_map = json.loads(text)["weight_map"]
        shard_of = {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_index(what, error) from error
    for shard in shard_of.values():
        if Path(shard).name != shard:
            raise CheckpointError(f"{what} names the shard {shard!r}, which is not beside it")
    return shard_of


def _no_index(what: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{what} is no index of shards ({type(error).__name__}: {error}); expected JSON with a "
        "weight_map from tensors to files, as Hugging Face saves it"
    )


def _some(names: set[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first
