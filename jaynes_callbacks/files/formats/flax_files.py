"""Read weights of Flax: ``.msgpack`` files of ``flax.serialization`` and of Hugging Face.

Kernels are stored as ``[…, in, out]`` and are brought to PyTorch's order: outputs, inputs, then the
kernel's places.  Everything is mapped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.archive import map_file
from jaynes_callbacks.files.formats.layouts import Layout
from jaynes_callbacks.files.formats.msgpack_tree import PackedArray, unpack
from jaynes_callbacks.files.limits import Limits

__all__ = ["open_flax"]

_FLOATS = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
}
#: Key of a map that holds one array in parts: one of more than a GiB.
_CHUNKED = "__msgpack_chunked_array__"
#: Keys of a training state.
_PARAMETERS, _OPTIMIZER = "params", "opt_state"
_KERNEL, _BIAS, _OUT = "kernel", "bias", "out"
_INTO_HEADS = frozenset(("query", "key", "value"))
_Module = Mapping[str, Any]


@dataclass(frozen=True)
class _Leaf:
    """An array of the tree.

    Attributes:
        parts: the array, or its parts, flattened.
        shape: of the whole.
        layout: in which it is stored.
    """

    parts: tuple[PackedArray, ...]
    shape: tuple[int, ...]
    layout: Layout

    @property
    def dtype(self) -> str:
        """Type of the values; empty where the parts' types differ, or there are none."""
        kinds = {part.dtype for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else ""


def open_flax(path: Path, limits: Limits) -> Checkpoint:
    """List the arrays of a state that Flax packed.

    Of a training state only ``params`` is taken, and its ``step``.

    Raises:
        CheckpointError: if it is truncated or no such file.
    """
    try:
        tree = unpack(map_file(path), limits)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no whole file of Flax ({error}); it may be truncated: copy or download it "
            "again"
        ) from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} holds no weights by name, as Flax packs them")
    is_training = _OPTIMIZER in tree and isinstance(tree.get(_PARAMETERS), dict)
    step = _count(tree.get("step")) if is_training else 0
    entries, problems = [], []
    for place, leaf in _leaves(tree[_PARAMETERS] if is_training else tree, (), {}):
        name = ".".join(place)
        try:
            entries.append(_entry(name, leaf))
        except ValueError as error:
            problems.append(Problem(path, f"{path}: tensor {name} cannot be read ({error})"))
    return Checkpoint(path, tuple(entries), tuple(problems), step=step)


def _count(value: Any) -> int:
    """Return a number of steps; 0 for anything else."""
    return value if type(value) is int and 0 <= value < 1 << 62 else 0


def _leaves(
    module: _Module, place: tuple[str, ...], parent: _Module
) -> Iterator[tuple[tuple[str, ...], _Leaf]]:
    """Yield all arrays of a tree with the names under which they are."""
    for name, value in module.items():
        if isinstance(value, list):
            value = {str(number): each for number, each in enumerate(value)}
        whole = _whole(value)
        if whole is not None:
            parts, shape = whole
            layout = _layout(name, shape, module, place, parent)
            yield (*place, name), _Leaf(parts, shape, layout)
        elif isinstance(value, dict):
            yield from _leaves(value, (*place, name), module)


def _whole(value: Any) -> tuple[tuple[PackedArray, ...], tuple[int, ...]] | None:
    """Return the parts and the shape of an array; None of anything else."""
    if isinstance(value, PackedArray):
        return (value,), value.shape
    if isinstance(value, dict) and _CHUNKED in value:
        parts, sizes = (_in_order(value.get(key)) for key in ("chunks", "shape"))
        known = all(isinstance(part, PackedArray) for part in parts)
        if known and all(type(size) is int and size >= 0 for size in sizes):
            return tuple(parts), tuple(sizes)
    return None


def _in_order(numbered: Any) -> list[Any]:
    """Return the values of a map with the keys 0, 1 and so on."""
    if not isinstance(numbered, dict):
        return [None]
    return [numbered.get(str(number)) for number in range(len(numbered))]


def _layout(
    name: str, shape: tuple[int, ...], module: _Module, place: tuple[str, ...], parent: _Module
) -> Layout:
    """Tell in which order an array is stored, by its name, its bias and its module's siblings."""
    axes = tuple(range(len(shape)))
    if name != _KERNEL or len(shape) < 2:
        return Layout.as_stored(len(shape))
    called = place[-1] if place else ""
    if parent.keys() >= _INTO_HEADS and len(shape) == 3:
        if called in _INTO_HEADS:
            return Layout(axes[1:], axes[:1])
        if called == _OUT:
            return Layout(axes[-1:], axes[:-1])
    bias = module.get(_BIAS)
    outputs = bias.shape if isinstance(bias, PackedArray) else shape[-1:]
    # Hugging Face's GPT-2 has kernels [out, in].
    if len(shape) == 2 and outputs == shape[:1] != shape[-1:]:
        return Layout.as_stored(2)
    return Layout.outputs_last(len(shape))


def _entry(name: str, leaf: _Leaf) -> Entry:
    dtype = _FLOATS.get(leaf.dtype)
    reason = None
    if dtype is None:
        reason = f"of dtype {leaf.dtype or 'unknown'}, not real floating-point"
    if name.rpartition(".")[2] == _BIAS:
        reason = reason or "a bias"
    nbytes = prod(leaf.shape) * (dtype.itemsize if dtype else 0)
    stored = sum(len(part.data) for part in leaf.parts)
    if dtype is not None and nbytes != stored:
        raise ValueError(f"its shape {leaf.shape} needs {nbytes:,} bytes, not {stored:,}")
    is_view = len(leaf.parts) == 1 and leaf.layout.keeps_memory(leaf.shape)
    return Entry(
        name,
        leaf.layout.shape_of(leaf.shape),
        leaf.dtype,
        nbytes,
        partial(_load, leaf),
        mapped=is_view,
        reason=reason,
        stored=stored,
    )


def _load(leaf: _Leaf) -> Tensor:
    dtype = _FLOATS.get(leaf.dtype)
    if dtype is None:
        raise CheckpointError("values that are not real floating-point were asked for")
    parts = [torch.from_numpy(part.data) for part in leaf.parts]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return leaf.layout.of(whole.view(dtype).view(leaf.shape))
