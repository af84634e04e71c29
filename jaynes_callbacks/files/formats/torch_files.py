"""Files of `torch.save`, Lightning's checkpoints among them: mapped, and nothing in them is run."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry
from jaynes_callbacks.files.formats.model_part import model_part
from jaynes_callbacks.instruments.tally import reason_not_to_count

__all__ = ["open_torch"]

_LIGHTNING = "pytorch-lightning_version"
_ZIP = b"PK"
_Place = tuple[object, ...]
_Key = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


def open_torch(path: Path) -> Checkpoint:
    """The tensors of a file of `torch.save`: a state dict, nested, or a Lightning checkpoint.

    A file of PyTorch before 1.6 cannot be mapped and is read whole.

    Raises:
        CheckpointError: if it is truncated, is no such file, or needs code to be unpickled.
    """
    content, mapped = _loaded(path)
    if isinstance(content, Tensor):
        content = {"tensor": content}
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not tensors by name; save a model's "
            "state_dict() and measure that"
        )
    entries = tuple(_entries(_of_model(content), mapped=mapped))
    return Checkpoint(path, entries, (), _number(content, "global_step"), _number(content, "epoch"))


def _loaded(path: Path) -> tuple[Any, bool]:
    """What the file holds, and whether it is mapped."""
    mapped = is_zipfile(path)
    try:
        _check_whole(path, mapped=mapped)
        with warnings.catch_warnings():
            # On the protocol of a pickle that torch did not write; what matters is raised.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), mapped
    except pickle.UnpicklingError as error:
        raise CheckpointError(_of_unpickling(path, error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no whole file of torch.save ({_first_line(error)}); it may be truncated or "
            "of another format: copy or download it again"
        ) from error


def _check_whole(path: Path, *, mapped: bool) -> None:
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        raise EOFError("it is empty")
    if start == _ZIP and not mapped:
        raise EOFError("its end is missing")


def _of_unpickling(path: Path, error: Exception) -> str:
    """The sentence for what torch refuses to unpickle: code, or no pickle at all."""
    found = re.search(r"(?:GLOBAL|type|class|Unsupported operand)\s+([\w.]+)", str(error))
    if "GLOBAL" not in str(error) and "class" not in str(error):
        return (
            f"{path} is no file of torch.save ({_first_line(error)}); expected a state dict or a "
            "Lightning checkpoint"
        )
    what = found.group(1) if found else "an object of a class"
    return (
        f"{path} holds {what}, which only running its code could unpickle, and no file is let run "
        "code here; if you trust it, load it with weights_only=False and save its state_dict()"
    )


def _first_line(error: Exception) -> str:
    """Of what torch says; of a key or a number that it stumbled over, the kind of error."""
    text = str(error).strip().partition("WeightsUnpickler error: ")
    said = (text[2] or text[0]).strip().splitlines() or [""]
    return said[0].rstrip(".") if " " in said[0] else "it does not begin as a pickle does"


def _of_model(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    found = list(_tensors(content))
    places = {number: place for number, (place, _) in enumerate(found)}
    for name, number in model_part(places).items():
        yield name, found[number][1]


def _tensors(content: Mapping[Any, Any], *above: object) -> Iterator[tuple[_Place, Tensor]]:
    """Every tensor in nested mappings and lists, and the keys under which it is."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield (*above, key), value
        elif isinstance(value, Mapping):
            yield from _tensors(value, *above, key)
        elif isinstance(value, list | tuple):
            yield from _tensors(dict(enumerate(value)), *above, key)


def _entries(named: Iterator[tuple[str, Tensor]], *, mapped: bool) -> Iterator[Entry]:
    """One entry for all names of the same values."""
    names: dict[_Key, list[str]] = {}
    tensors: dict[_Key, Tensor] = {}
    for name, tensor in named:
        key = _identity(name, tensor)
        names.setdefault(key, []).append(name)
        tensors.setdefault(key, tensor.detach())
    for key, (name, *aliases) in names.items():
        tensor = tensors[key]
        yield Entry(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.numel() * tensor.element_size(),
            partial(_itself, tensor),
            mapped,
            tuple(aliases),
            reason_not_to_count(tensor),
        )


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _identity(name: str, tensor: Tensor) -> Any:
    if tensor.layout is not torch.strided or not tensor.numel() or tensor.is_meta:
        return name
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _number(content: Mapping[Any, Any], key: str) -> int:
    value = content.get(key, 0) if _LIGHTNING in content else 0
    return value if isinstance(value, int) else 0
