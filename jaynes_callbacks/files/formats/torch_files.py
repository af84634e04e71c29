"""Read files of `torch.save`, such as Lightning's checkpoints: mapped, and no code is run."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, tensor_entries
from jaynes_callbacks.files.formats.model_part import model_part

__all__ = ["open_torch"]

_LIGHTNING = "pytorch-lightning_version"
_ZIP = b"PK"
_Place = tuple[object, ...]


def open_torch(path: Path) -> Checkpoint:
    """List the tensors of a file of `torch.save`: a state dict, nested, or a Lightning checkpoint.

    A file written by PyTorch before 1.6 cannot be mapped and is read whole.

    Raises:
        CheckpointError: if it is truncated, is no such file, or needs code to be unpickled.
    """
    content, mapped = _load(path)
    if isinstance(content, Tensor):
        content = {"tensor": content}
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not tensors by name; save a model's "
            "state_dict() and measure that"
        )
    entries = tensor_entries(_model_tensors(content), mapped=mapped)
    return Checkpoint(path, entries, (), _number(content, "global_step"), _number(content, "epoch"))


def _load(path: Path) -> tuple[Any, bool]:
    """Return the content of the file, and whether its tensors are mapped."""
    mapped = is_zipfile(path)
    try:
        _check_whole(path, mapped=mapped)
        with warnings.catch_warnings():
            # torch warns about the protocol of pickles that it did not write; errors are raised.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), mapped
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unpickling_sentence(path, error)) from error
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


def _unpickling_sentence(path: Path, error: Exception) -> str:
    """Say why torch does not unpickle the file: it needs code, or it is no pickle."""
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
    """Return the first line of torch's message, or a sentence where it is only a key or number."""
    text = str(error).strip().partition("WeightsUnpickler error: ")
    said = (text[2] or text[0]).strip().splitlines() or [""]
    return said[0].rstrip(".") if " " in said[0] else "it does not begin as a pickle does"


def _model_tensors(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    found = list(_tensors(content))
    places = {number: place for number, (place, _) in enumerate(found)}
    for name, number in model_part(places).items():
        yield name, found[number][1]


def _tensors(content: Mapping[Any, Any], *above: object) -> Iterator[tuple[_Place, Tensor]]:
    """Yield every tensor in nested mappings and lists with the keys under which it is."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield (*above, key), value
        elif isinstance(value, Mapping):
            yield from _tensors(value, *above, key)
        elif isinstance(value, list | tuple):
            yield from _tensors(dict(enumerate(value)), *above, key)


def _number(content: Mapping[Any, Any], key: str) -> int:
    """Return an integer of a Lightning checkpoint; 0 where it has none."""
    value = content.get(key, 0) if _LIGHTNING in content else 0
    return value if isinstance(value, int) else 0
