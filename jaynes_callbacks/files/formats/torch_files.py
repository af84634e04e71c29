"""Read files of `torch.save`, Lightning and TorchScript: mapped, and no code is run.

The pickle in such a file is read by `inert_pickle`, which imports and calls nothing.  Objects of
other classes beside the weights (settings, optimizers, numbers of numpy) are skipped, and named.
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any, Protocol
from zipfile import BadZipFile

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import reason_not_countable
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.archive import Bytes, Member, map_file, members_of, read_member
from jaynes_callbacks.files.formats.inert_pickle import (
    Global,
    Object,
    PickleError,
    Unpickled,
    unpickle,
)
from jaynes_callbacks.files.formats.model_part import model_part
from jaynes_callbacks.files.formats.pickled_tensors import (
    MAKERS,
    Broken,
    Leaf,
    NoValues,
    Storage,
    StoredTensor,
    named_tensors,
    storage_of,
)
from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.probes.selection import shorten

__all__ = ["TorchArchive", "open_torch"]

_LIGHTNING = "pytorch-lightning_version"
_ZIP = b"PK"
#: Where a tar archive says what it is; PyTorch wrote such files before 0.1.12.
_TAR, _TAR_AT = b"ustar", 257
#: Numbers with which files of `torch.save` before PyTorch 1.6 begin.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ELEMENTS = Struct("<q")


class _File(Protocol):
    """A file whose pickles are read, and whose tensors can be loaded."""

    contents: list[Unpickled]

    def stored_bytes(self, tensor: StoredTensor) -> int: ...

    def is_view(self, tensor: StoredTensor) -> bool: ...

    def load(self, tensor: StoredTensor) -> Tensor: ...


def open_torch(path: Path, limits: Limits) -> Checkpoint:
    """List the tensors of a file of `torch.save` or `torch.jit.save`, or of a Lightning checkpoint.

    Raises:
        CheckpointError: if it is truncated or no such file.
    """
    try:
        content = map_file(path)
        start = bytes(content[:2])
        if bytes(content[_TAR_AT : _TAR_AT + len(_TAR)]) == _TAR:
            raise CheckpointError(
                f"{path} is a tar archive, as PyTorch wrote before 0.1.12; load it with torch.load "
                "and weights_only=False, if you trust it, and save its state_dict() again"
            )
        file: _File = (TorchArchive if start == _ZIP else _LegacyFile)(content, limits)
        return _checkpoint(path, file, limits)
    except PickleError as error:
        raise CheckpointError(
            f"{path} is no file of torch.save ({error}); expected a state dict, a Lightning "
            "checkpoint or a TorchScript module"
        ) from error
    except (OSError, EOFError, BadZipFile) as error:
        said = "its end is missing" if isinstance(error, BadZipFile) else error
        raise CheckpointError(
            f"{path} is no whole file of torch.save ({said}); it may be truncated or of another "
            "format: copy or download it again"
        ) from error


class TorchArchive:
    """A zip archive of `torch.save` or `torch.jit.save`.

    Attributes:
        contents: the pickles in it; the second, if there is one, holds TorchScript's constants.

    Args:
        content: bytes of the archive.
        limits: on what is decompressed and unpickled.

    Raises:
        BadZipFile: if it is no archive, or truncated.
        PickleError: if there is no pickle in it, or a damaged one.
    """

    def __init__(self, content: Bytes, limits: Limits) -> None:
        self._content, self._limits = content, limits
        self._members = members_of(content)
        pickles = [name for name in self._members if name.endswith("data.pkl")]
        if not pickles:
            raise PickleError("the archive has no data.pkl")
        prefix = min(pickles, key=len).removesuffix("data.pkl")
        self._prefix = prefix
        order = self._members.get(f"{prefix}byteorder")
        self._is_swapped = order is not None and bytes(self._read(order)) == b"big"
        self.contents = [self._unpickle("data")]
        has_constants = f"{prefix}constants.pkl" in self._members
        if has_constants and any(n.startswith(f"{prefix}code/") for n in self._members):
            self.contents.append(self._unpickle("constants"))

    def stored_bytes(self, tensor: StoredTensor) -> int:
        """Return how many bytes of the file the tensor is made of."""
        member = self._member(tensor.storage)
        return tensor.span * tensor.dtype.itemsize if member.is_plain else member.stored

    def is_view(self, tensor: StoredTensor) -> bool:
        """Tell whether `load` returns a view of the archive."""
        return self._member(tensor.storage).is_plain and not self._is_swapped

    def load(self, tensor: StoredTensor) -> Tensor:
        """Return a tensor's values.

        Raises:
            KeyError, ValueError, EOFError: if the archive does not hold them.
        """
        content = read_member(self._content, self._member(tensor.storage), self._limits)
        values = torch.frombuffer(content, dtype=torch.uint8) if len(content) else torch.empty(0)
        if self._is_swapped:
            values = values.view(-1, tensor.dtype.itemsize).flip(1).reshape(-1)
        return tensor.view_of(values)

    def _member(self, storage: Storage) -> Member:
        name = f"{self._prefix}{storage.key}"
        if name not in self._members:
            raise KeyError(f"the archive has no {name}")
        return self._members[name]

    def _unpickle(self, part: str) -> Unpickled:
        """Read one pickle; a storage's key becomes the name of its member."""

        def storage(key: tuple[Any, ...]) -> Any:
            found = storage_of(key)
            if isinstance(found, Storage):
                return replace(found, key=f"{part}/{found.key}")
            return found

        data = self._read(self._members[f"{self._prefix}{part}.pkl"])
        return unpickle(data, limits=self._limits, makers=MAKERS, persistent=storage)

    def _read(self, member: Member) -> memoryview:
        return read_member(self._content, member, self._limits)


class _LegacyFile:
    """A file of `torch.save` before PyTorch 1.6: five pickles, then the storages' bytes.

    Attributes:
        contents: the pickle of what was saved.

    Args:
        content: bytes of the file.
        limits: on what is unpickled.

    Raises:
        PickleError: if it is no such file.
    """

    def __init__(self, content: Bytes, limits: Limits) -> None:
        self._content = content
        self._dtypes: dict[str, torch.dtype] = {}
        at, parts = 0, list[Unpickled]()
        for _ in range(5):
            parts.append(
                unpickle(
                    content.data,
                    start=at,
                    limits=limits,
                    makers=MAKERS,
                    persistent=self._storage,
                )
            )
            at = parts[-1].end
            if len(parts) == 1 and parts[0].value != _MAGIC:
                raise PickleError(f"it is a plain pickle of {_kind(parts[0].value)}")
        _, protocol, _, saved, keys = parts
        if protocol.value != _PROTOCOL or not isinstance(keys.value, list):
            raise PickleError("it lacks the list of its storages")
        self.contents = [saved]
        self._places = self._find_storages(keys.value, at)

    def stored_bytes(self, tensor: StoredTensor) -> int:
        """Return how many bytes of the file the tensor is made of."""
        return min(tensor.span * tensor.dtype.itemsize, len(self._content))

    def is_view(self, tensor: StoredTensor) -> bool:
        """Tell whether `load` returns a view of the file: always."""
        return True

    def load(self, tensor: StoredTensor) -> Tensor:
        """Return a tensor's values, as a view of the file.

        Raises:
            KeyError, ValueError: if the file does not hold them.
        """
        if tensor.storage.key not in self._places:
            raise KeyError("the file does not hold its storage")
        return tensor.view_of(torch.from_numpy(self._content[self._places[tensor.storage.key]]))

    def _storage(self, key: tuple[Any, ...]) -> Any:
        found = storage_of(key)
        if isinstance(found, Storage):
            self._dtypes.setdefault(found.key, found.dtype)
        return found

    def _find_storages(self, keys: list[Any], at: int) -> dict[str, slice]:
        """Find the bytes of each storage: a number of elements, then these, one after the other."""
        places: dict[str, slice] = {}
        for key in map(str, keys):
            if key not in self._dtypes:
                break
            (size,) = _ELEMENTS.unpack(bytes(self._content[at : at + _ELEMENTS.size]))
            begin = at + _ELEMENTS.size
            at = begin + size * self._dtypes[key].itemsize
            if size < 0 or at > len(self._content):
                raise EOFError("the values of its tensors are missing")
            places[key] = slice(begin, at)
        return places


def _checkpoint(path: Path, file: _File, limits: Limits) -> Checkpoint:
    """Name the tensors of a file, the model's alone where it has a part for the model."""
    content = file.contents[0].value
    found = [named_tensors(each.value, limits) for each in file.contents]
    leaves = found[0].leaves
    if len(found) > 1:
        leaves += [(("constants", *place), leaf) for place, leaf in found[1].leaves]
    if not leaves and not isinstance(content, dict | list | tuple) and not found[0].modules:
        raise CheckpointError(
            f"{path} holds {_kind(content)}, not tensors by name; save a model's state_dict() and "
            "measure that"
        )
    names: dict[object, list[str]] = {}
    parts: dict[object, Leaf] = {}
    for name, number in model_part({n: place for n, (place, _) in enumerate(leaves)}).items():
        leaf = leaves[number][1]
        shares = isinstance(leaf, StoredTensor) and bool(leaf.span)
        identity: object = leaf if shares else name
        names.setdefault(identity, []).append(name)
        parts.setdefault(identity, leaf)
    entries, problems = [], []
    for same, (first, *aliases) in names.items():
        try:
            entries.append(_entry(first, tuple(aliases), parts[same], file))
        except (KeyError, ValueError) as error:
            problems.append(
                Problem(path, f"{path}: tensor {first} cannot be read ({error.args[0]})")
            )
    step, epoch = (_number(content, key) for key in ("global_step", "epoch"))
    skipped = sum((each.classes for each in file.contents), Counter[str]())
    for each in found:
        skipped -= each.modules
    too_deep = sum(each.too_deep for each in found)
    notes = _notes(skipped, too_deep)
    return Checkpoint(path, tuple(entries), tuple(problems), step, epoch, notes)


def _entry(name: str, aliases: tuple[str, ...], leaf: Leaf, file: _File) -> Entry:
    if isinstance(leaf, Broken):
        raise ValueError(leaf.reason)
    if isinstance(leaf, NoValues):
        return Entry(name, leaf.shape, "", 0, _no_values, aliases=aliases, reason=leaf.reason)
    return Entry(
        name,
        leaf.shape,
        str(leaf.dtype).removeprefix("torch."),
        leaf.nbytes,
        partial(file.load, leaf),
        mapped=file.is_view(leaf) and not leaf.is_negated,
        aliases=aliases,
        reason=reason_not_countable(torch.empty(0, dtype=leaf.dtype)),
        stored=file.stored_bytes(leaf),
    )


def _no_values() -> Tensor:
    raise CheckpointError("a tensor without values was asked for")


def _notes(skipped: Counter[str], too_deep: int) -> tuple[str, ...]:
    """Say in one line each what was not read."""
    notes = []
    if skipped:
        names = [name for name, _ in skipped.most_common()]
        notes.append(
            f"not {skipped.total()}: objects that only code of their own could make "
            f"({shorten(names)}); none is run here"
        )
    if too_deep:
        notes.append(f"not {too_deep}: values nested too deeply to be searched for tensors")
    return tuple(notes)


def _kind(value: Any) -> str:
    """Name what a pickle holds, for a message."""
    return str(value) if isinstance(value, Global | Object) else f"a {type(value).__name__}"


def _number(content: Any, key: str) -> int:
    """Return an integer of a Lightning checkpoint; 0 where it has none."""
    if not isinstance(content, dict) or _LIGHTNING not in content:
        return 0
    value = content.get(key, 0)
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else 0
