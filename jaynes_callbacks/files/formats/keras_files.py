"""Read weights of Keras: ``.keras`` archives and HDF5 files of Keras 2 and 3.

Weights are named by the paths of their layers, as Keras names variables, and brought to PyTorch's
order: outputs, inputs, then the kernel's places.  The model itself is never built.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, one_sentence
from jaynes_callbacks.files.formats.archive import map_file, members_of, read_member
from jaynes_callbacks.files.formats.hdf5_arrays import Array, Group, Hdf5File
from jaynes_callbacks.files.formats.keras_layouts import (
    Layer,
    layer_of,
    layers_of,
    layout_of,
    variables_of,
)
from jaynes_callbacks.files.formats.layouts import Layout
from jaynes_callbacks.files.limits import Limits

__all__ = ["open_h5", "open_keras"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
#: The group in which Keras 2 keeps the weights of a whole model, beside the optimizer's.
_MODEL = "model_weights"
#: The group in which Keras 3 keeps a layer's variables by number.
_VARIABLES = "vars"
#: Beginning of the names of groups beside the model's.
_NOT_WEIGHTS = "optimizer"
_FLOATS = {2: torch.float16, 4: torch.float32, 8: torch.float64}

_Layers = dict[str, Layer]
_Found = Iterator[tuple[Sequence[str], Layer, str, Array]]


def open_h5(path: Path, limits: Limits) -> Checkpoint:
    """List the weights of an HDF5 file that Keras saved: a model or its weights alone.

    Raises:
        CheckpointError: if it is truncated or no such file.
    """
    content = map_file(path)
    group = _read(path, content, limits)
    layers = _layers(group.attributes.get("model_config", ""))
    return _checkpoint(path, group, layers, mapped=True)


def open_keras(path: Path, limits: Limits) -> Checkpoint:
    """List the weights of a ``.keras`` archive.

    Raises:
        CheckpointError: if it is truncated or no such archive.
    """
    with one_sentence(f"{path}, an archive of Keras,"):
        content = map_file(path)
        members = members_of(content)
        if _WEIGHTS not in members:
            raise ValueError(f"it has no {_WEIGHTS}")
        weights = members[_WEIGHTS]
        data = np.frombuffer(read_member(content, weights, limits), np.uint8)
        config = members.get(_CONFIG)
        text = b""
        if config is not None and config.size <= limits.text:
            text = bytes(read_member(content, config, limits))
    group = _read(path, data, limits)
    layers = _layers(text.decode("utf-8", "replace"))
    return _checkpoint(path, group, layers, mapped=weights.is_plain)


def _read(path: Path, content: npt.NDArray[np.uint8], limits: Limits) -> Group:
    with one_sentence(f"{path}, a file of HDF5,"):
        return Hdf5File(content, limits).read()


def _layers(text: str) -> _Layers:
    """Read a model's configuration; of a broken one no layers."""
    try:
        return layers_of(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _checkpoint(path: Path, group: Group, layers: _Layers, *, mapped: bool) -> Checkpoint:
    found = list(_named(group.groups.get(_MODEL, group), (), layers))
    if layers:
        order = {name: number for number, name in enumerate(layers)}
        found.sort(key=lambda each: [order.get(name, len(order)) for name in each[0]])
    entries: dict[str, Entry] = {}
    for names, layer, variable, array in found:
        name = "/".join((*names, variable))
        unique = name if name not in entries else f"{name}#{len(entries)}"
        layout = layout_of(layer, names[-1:], variable, len(array.shape))
        entry = _entry(path, unique, array, layout or Layout.as_stored(len(array.shape)))
        is_bias = layout is None and entry.reason is None
        entries[unique] = replace(
            entry, mapped=entry.mapped and mapped, reason="a bias" if is_bias else entry.reason
        )
    linked = _links(group)
    notes = (f"not {linked}: links to other files or places, which are not followed",)
    return Checkpoint(path, tuple(entries.values()), notes=notes if linked else ())


def _links(group: Group) -> int:
    return len(group.left_out) + sum(map(_links, group.groups.values()))


def _named(group: Group, names: tuple[str, ...], layers: _Layers) -> _Found:
    """Yield all variables with the names of their layers, outermost first.

    In files of Keras 3 a group has its layer's variables by number in a group of their own, which
    also says how the layer is called; groups without one are lists and attributes of layers.
    """
    for name, array in group.arrays.items():
        yield names, layer_of(names[::-1][:1], layers), name.removesuffix(":0"), array
    for name, inner in group.groups.items():
        if not names and name.startswith(_NOT_WEIGHTS):
            continue
        numbered = inner.groups.get(_VARIABLES)
        if name == _VARIABLES:
            continue
        if numbered is None:
            # Keras 2 names a layer's group twice.
            is_nameless = _is_numbered(inner) or names == (name,)
            yield from _named(inner, names if is_nameless else (*names, name), layers)
            continue
        called = numbered.attributes.get("name", name)
        layer = layer_of((called, name), layers)
        known = dict(enumerate(variables_of(layer)))
        for number in sorted(numbered.arrays, key=lambda each: (len(each), each)):
            variable = known.get(int(number), number) if number.isdecimal() else number
            yield (*names, called), layer, variable, numbered.arrays[number]
        yield from _named(inner, (*names, called), layers)


def _is_numbered(group: Group) -> bool:
    """Tell whether layers of Keras 3 are in the group."""
    return _VARIABLES in group.groups or any(map(_is_numbered, group.groups.values()))


def _entry(path: Path, name: str, array: Array, layout: Layout) -> Entry:
    dtype = _dtype(array)
    what = array.dtype.name
    reason = None if dtype is not None else f"of dtype {what}, not real floating-point"
    is_view = array.is_plain and array.dtype.isnative and layout.keeps_memory(array.shape)
    return Entry(
        name,
        layout.shape_of(array.shape),
        what,
        array.nbytes,
        partial(_load, f"{path}: tensor {name}", array, layout),
        mapped=is_view,
        reason=array.reason or reason,
        stored=array.stored,
    )


def _dtype(array: Array) -> torch.dtype | None:
    """Return PyTorch's type of an array; None if it is no float."""
    if array.dtype.itemsize == 2 and array.attributes.get("dtype") == "bfloat16":
        return torch.bfloat16
    return _FLOATS.get(array.dtype.itemsize) if array.dtype.kind == "f" else None


def _load(what: str, array: Array, layout: Layout) -> Tensor:
    dtype = _dtype(array)
    if array.reason is not None or dtype is None:
        raise CheckpointError("values that are not real floating-point were asked for")
    values = array.load(what)
    if dtype is torch.bfloat16:
        return layout.of(torch.from_numpy(values.view(np.int16)).view(dtype))
    native = values.astype(array.dtype.newbyteorder("="), copy=False)
    return layout.of(torch.from_numpy(native))
