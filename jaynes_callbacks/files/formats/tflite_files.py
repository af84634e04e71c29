"""Read models of TensorFlow Lite: ``.tflite`` files, and those in ``.task`` archives.

A model lists the buffers of its constants, and which operator uses them at which input; that tells
weights from shapes, paddings and biases.  Floats are mapped, integers are multiplied by their
scales, sparse weights are expanded.  No operator is run.
"""

import re
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.formats.archive import map_file, members_of, read_member
from jaynes_callbacks.files.formats.flatbuffer import Flatbuffer, Table
from jaynes_callbacks.files.formats.layouts import Layout
from jaynes_callbacks.files.formats.sparse_values import Level, Sparsity
from jaynes_callbacks.files.formats.tflite_operators import (
    CUSTOM,
    PASSING,
    Operator,
    Use,
    use_of,
)
from jaynes_callbacks.files.limits import Limits

__all__ = ["open_task", "open_tflite"]

_Bytes = npt.NDArray[np.uint8]
_Found = tuple[tuple[Entry, ...], tuple[Problem, ...]]

_IDENTIFIER, _IDENTIFIER_AT = b"TFL3", 4
#: Names of types by their number in ``schema.fbs``.
_TYPES = dict(
    enumerate(
        "FLOAT32 FLOAT16 INT32 UINT8 INT64 STRING BOOL INT16 COMPLEX64 INT8 FLOAT64 COMPLEX128 "
        "UINT64 RESOURCE VARIANT UINT32 UINT16 INT4 BFLOAT16 INT2".split()
    )
)
_FLOATS = {
    "FLOAT32": torch.float32,
    "FLOAT16": torch.float16,
    "FLOAT64": torch.float64,
    "BFLOAT16": torch.bfloat16,
}
_INTEGERS = {"INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "INT32": "<i4"}
#: Two values in a byte, the lower half first.
_INT4 = "INT4"
_DEEPEST = 8
#: Types of the vectors of a sparse level, by the number of their table.
_VECTORS = {1: "<i4", 2: "<u2", 3: "<u1"}
#: Parts of a name that another layer gave when it was merged into this one.
_MERGED = re.compile(r"norm|bias_?add|relu|activation", re.IGNORECASE)
#: Values that are multiplied by their scales at once.
_SLICE = 1 << 20


@dataclass(frozen=True)
class _Scales:
    """Scales of integers: value = (integer - zero point) times scale.

    Attributes:
        factors: the scales, one or one for each place along `axis`.
        zeros: the zero points, likewise.
        axis: the dimension along which they change.
    """

    factors: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.int64]
    axis: int


@dataclass(frozen=True)
class _Constant:
    """A tensor that the model stores.

    Attributes:
        name: in the model.
        shape: as it is stored.
        kind: name of its type.
        data: its bytes.
        scales: of integers, if it has any.
        sparsity: where its values belong, if it is sparse.
        reason: why it cannot be read, if so.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    data: _Bytes
    scales: _Scales | None = None
    sparsity: Sparsity | None = None
    reason: str | None = None


def open_tflite(path: Path, limits: Limits) -> Checkpoint:
    """List the constants of a model; those that are no weight have a reason.

    Weights are brought to PyTorch's order: outputs, inputs, then the kernel's places.

    Raises:
        CheckpointError: if it is truncated or no such file.
    """
    try:
        found = _read_model(path, map_file(path), limits, mapped=True)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no whole model of TensorFlow Lite ({error}); it may be truncated: copy or "
            "download it again"
        ) from error
    return Checkpoint(path, *found)


def open_task(path: Path, limits: Limits) -> Checkpoint:
    """List the constants of all models in an archive, each under its member's name.

    Raises:
        CheckpointError: if it is truncated, or holds no model of TensorFlow Lite.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    try:
        content = map_file(path)
        members = [
            each
            for each in members_of(content).values()
            if each.name.endswith(".tflite") or _has_identifier(content[each.start :])
        ]
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no whole archive of models ({error}); it may be truncated: copy or "
            "download it again"
        ) from error
    if not members:
        raise CheckpointError(f"{path} holds no model of TensorFlow Lite")
    for member in members:
        try:
            data = np.frombuffer(read_member(content, member, limits), np.uint8)
            found, its_problems = _read_model(path, data, limits, mapped=member.is_plain)
        # A member may be compressed, and decompressing raises errors of several libraries.
        except Exception as error:
            reason = f"{path}: model {member.name} cannot be read ({error})"
            problems.append(Problem(path, reason))
            continue
        prefix = member.name.removesuffix(".tflite")
        entries += [replace(each, name=f"{prefix}/{each.name}") for each in found]
        problems += its_problems
    return Checkpoint(path, tuple(entries), tuple(problems))


def _has_identifier(content: _Bytes) -> bool:
    return bytes(content[_IDENTIFIER_AT : _IDENTIFIER_AT + len(_IDENTIFIER)]) == _IDENTIFIER


# Reading a model ----------------------------------------------------------------------------------


def _read_model(path: Path, content: _Bytes, limits: Limits, *, mapped: bool) -> _Found:
    """List the constants of all graphs of a model.

    Raises:
        ValueError, EOFError: if it is none, or truncated.
    """
    if not _has_identifier(content):
        raise ValueError("it does not begin as one does")
    root = Flatbuffer(content, limits).root()
    codes = [_operator(each) for each in root.tables(1)]
    buffers = [_buffer(content, each) for each in root.tables(4)]
    entries: dict[str, Entry] = {}
    seen: set[object] = set()
    problems: list[Problem] = []
    for graph in root.tables(2):
        tensors = list(graph.tables(0))
        stored = {
            index: buffers[number]
            for index, tensor in enumerate(tensors)
            if 0 < (number := tensor.number(2, "I")) < len(buffers) and len(buffers[number])
        }
        uses = _uses(graph, codes, stored, tensors)
        # Weights first, so that others give way where names are equal.
        for index in sorted(stored, key=lambda each: isinstance(uses.get(each, ""), str)):
            name = tensors[index].text(3)
            try:
                constant = _constant(tensors[index], stored[index])
                use = uses.get(index, "a constant that no operator uses")
                # Graphs of one model share buffers.
                identity = (constant.data.__array_interface__["data"], constant.shape, use)
                if identity in seen:
                    continue
                seen.add(identity)
                entry = _entry(path, constant, use, limits, mapped=mapped)
            except (ValueError, EOFError) as error:
                problems.append(
                    Problem(path, f"{path}: tensor {name} cannot be read ({error.args[0]})")
                )
                continue
            short = _telling(name)
            unique = short if short not in entries else f"{short}#{len(entries)}"
            entries[unique] = replace(
                entry, name=unique, aliases=(name,) if name not in ("", unique) else ()
            )
    return tuple(entries.values()), tuple(problems)


def _operator(table: Table) -> Operator:
    # The first field ended at 127; the other one came later.
    code = max(table.number(0, "b"), table.number(3, "i"))
    return table.text(1) if code == CUSTOM else code


def _buffer(content: _Bytes, table: Table) -> _Bytes:
    """Return the bytes of a buffer, which lie in the table or, of large models, behind them all."""
    start, size = table.number(1, "Q"), table.number(2, "Q")
    if start <= 1:
        return table.vector(0, "<u1")
    if start + size > len(content):
        raise EOFError(f"it ends after {len(content):,} bytes")
    return content[start : start + size]


def _uses(
    graph: Table, codes: list[Operator], stored: dict[int, _Bytes], tensors: list[Table]
) -> dict[int, Use]:
    """Find how each constant of a graph is used; as a weight, if any operator does so."""
    origin = {index: index for index in stored}
    uses: dict[int, Use] = {}
    for operator in graph.tables(3):
        number = operator.number(0, "I")
        code = codes[number] if number < len(codes) else -1
        inputs, outputs = operator.numbers(1, "<i4"), operator.numbers(2, "<i4")
        if code in PASSING and inputs and outputs:
            if inputs[0] in origin:
                origin[outputs[0]] = origin[inputs[0]]
            continue
        for position, index in enumerate(inputs):
            constant = origin.get(index)
            if constant is not None and isinstance(uses.get(constant, ""), str):
                shape = tensors[constant].numbers(0, "<i4")
                uses[constant] = use_of(code, position, shape, operator.table(4))
    return uses


def _constant(tensor: Table, data: _Bytes) -> _Constant:
    """Read the description of a tensor.

    Raises:
        ValueError, EOFError: if it makes no sense, or does not fit its bytes.
    """
    shape = tensor.numbers(0, "<i4")
    if len(shape) > _DEEPEST or any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    number = tensor.number(1, "b")
    kind = _TYPES.get(number, f"type {number}")
    scales, reason = _scales(tensor.table(4), shape)
    sparse = tensor.table(6)
    sparsity = None if sparse is None else _sparsity(sparse, shape)
    constant = _Constant(tensor.text(3), shape, kind, data, scales, sparsity, reason)
    if sparsity is None and (expected := _bytes_of(constant)) not in (None, len(data)):
        raise ValueError(f"its shape {shape} needs {expected:,} bytes, not {len(data):,}")
    return constant


def _bytes_of(constant: _Constant) -> int | None:
    """Return how many bytes a dense constant takes; None of types that are not read."""
    number = prod(constant.shape)
    if constant.kind in _FLOATS or constant.kind in _INTEGERS:
        return number * _itemsize(constant)
    return (number + 1) // 2 if constant.kind == _INT4 else None


def _itemsize(constant: _Constant) -> int:
    """Return how many bytes a value takes in the file, of four bits one."""
    if constant.kind in _FLOATS:
        return _FLOATS[constant.kind].itemsize
    return np.dtype(_INTEGERS.get(constant.kind, "<i1")).itemsize


def _scales(table: Table | None, shape: tuple[int, ...]) -> tuple[_Scales | None, str | None]:
    """Read the scales of integers, or why they cannot be used."""
    if table is None:
        return None, None
    if table.number(4, "B"):
        return None, "quantised in blocks or in a way of its own, which is not read"
    factors, zeros = table.vector(2, "<f4"), table.vector(3, "<i8")
    if not len(factors):
        return None, None
    axis = table.number(6, "i")
    places = shape[axis] if 0 <= axis < len(shape) else 1
    if len(factors) not in (1, places) or len(zeros) not in (0, 1, len(factors)):
        raise ValueError(f"its shape {shape} does not fit its {len(factors)} scales")
    return _Scales(factors, zeros if len(zeros) else np.zeros(1, np.int64), axis), None


def _sparsity(table: Table, shape: tuple[int, ...]) -> Sparsity:
    order, blocked = table.numbers(0, "<i4"), table.numbers(1, "<i4")
    return Sparsity(shape, order, blocked, [_level(each) for each in table.tables(2)])


def _level(table: Table) -> Level:
    parts = []
    for kind, field in ((2, 3), (4, 5)):
        vector, form = table.table(field), _VECTORS.get(table.number(kind, "B"))
        if vector is None or form is None:
            parts.append(np.zeros(0, np.int64))
        else:
            parts.append(vector.vector(0, form))
    segments, indices = parts
    return Level(None if table.number(0, "b") else table.number(1, "i"), segments, indices)


def _telling(name: str) -> str:
    """Return the part of a name that is the layer's own.

    A converter that merges layers joins their names by semicolons.

    >>> _telling("net/batch_normalization_3/FusedBatchNormV3;net/conv2d_4/Conv2D")
    'net/conv2d_4/Conv2D'
    """
    parts = [part for part in name.split(";") if part]
    return next((part for part in parts if not _MERGED.search(part)), next(iter(parts), name))


# Reading values -----------------------------------------------------------------------------------


def _entry(path: Path, constant: _Constant, use: Use, limits: Limits, *, mapped: bool) -> Entry:
    """Describe a constant; its name is that of the model."""
    layout = Layout.as_stored(len(constant.shape)) if isinstance(use, str) else use
    is_float = constant.kind in _FLOATS and constant.scales is None
    dtype = _FLOATS[constant.kind] if is_float else torch.float32
    is_view = is_float and constant.sparsity is None and layout.keeps_memory(constant.shape)
    return Entry(
        constant.name,
        layout.shape_of(constant.shape),
        constant.kind,
        prod(constant.shape) * dtype.itemsize,
        partial(_load, path, constant, layout, limits),
        mapped=mapped and is_view,
        reason=_reason(constant, use),
        stored=len(constant.data),
    )


def _reason(constant: _Constant, use: Use) -> str | None:
    """Tell why a constant is no weight whose magnitudes can be counted; None if it is one."""
    is_scaled = constant.scales is not None and constant.kind in (*_INTEGERS, _INT4)
    if constant.reason is None and constant.kind not in _FLOATS and not is_scaled:
        return f"of dtype {constant.kind}, not real floating-point"
    return constant.reason or (use if isinstance(use, str) else None)


def _load(path: Path, constant: _Constant, layout: Layout, limits: Limits) -> Tensor:
    if constant.sparsity is not None:
        needed = constant.sparsity.needed(_itemsize(constant))
        what = f"{path}: tensor {constant.name}"
        limits.check_expansion(what, needed, len(constant.data))
    if constant.kind in _FLOATS:
        return layout.of(_floats(constant))
    stored = _integers(constant)
    if constant.sparsity is not None:
        stored = constant.sparsity.expand(stored)
    return layout.of(_scaled(stored.reshape(constant.shape), constant.scales))


def _floats(constant: _Constant) -> Tensor:
    dtype = _FLOATS[constant.kind]
    if constant.sparsity is None:
        return torch.from_numpy(constant.data).view(dtype).view(constant.shape)
    # numpy has no type for short floats; integers of the same size keep their bits.
    bits = constant.sparsity.expand(constant.data.view(f"<u{dtype.itemsize}"))
    return torch.from_numpy(bits).view(dtype)


def _integers(constant: _Constant) -> npt.NDArray[np.integer]:
    if constant.kind != _INT4:
        return constant.data.view(_INTEGERS[constant.kind])
    # Shift the lower half's sign to where that of a byte is, and back.
    halves = np.stack([constant.data << 4, constant.data & 0xF0], axis=-1).view("<i1") >> 4
    return halves.reshape(-1)[: prod(constant.shape)]


def _scaled(stored: npt.NDArray[np.integer], scales: _Scales | None) -> Tensor:
    """Multiply integers by their scales, in parts."""
    if scales is None:
        raise CheckpointError("integers without scales were asked for")
    values = np.empty(stored.shape, np.float32)
    spread = [1] * stored.ndim
    spread[scales.axis] = -1
    factors = scales.factors.reshape(spread if len(scales.factors) > 1 else [1] * stored.ndim)
    zeros = scales.zeros.reshape(spread if len(scales.zeros) > 1 else [1] * stored.ndim)
    np.subtract(stored, zeros, out=values, casting="unsafe", dtype=np.float32)
    np.multiply(values, factors, out=values)
    return torch.from_numpy(values)
