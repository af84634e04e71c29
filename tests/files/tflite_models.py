"""Small models of TensorFlow Lite, written with the classes generated from its schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Part", "Step", "encode_sparse", "write_tflite"]

Array = npt.NDArray[Any]
_KINDS = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int8": 9, "float64": 10}


@dataclass(frozen=True)
class Part:
    """A tensor of a model.

    Attributes:
        name: its name.
        values: its values; None of one that is computed.
        shape: if it is not that of `values`.
        scales: of integers.
        zeros: zero points.
        axis: along which scales change.
        kind: number of its type, if numpy does not know it.
        sparse: order of dimensions, blocked dimensions and levels, as `encode_sparse` returns.
    """

    name: str
    values: Array | None = None
    shape: tuple[int, ...] | None = None
    scales: Sequence[float] = ()
    zeros: Sequence[int] = ()
    axis: int = 0
    kind: int | None = None
    sparse: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Step:
    """An operator: its number or name, inputs and outputs by their place in the list of parts."""

    operator: int | str
    inputs: Sequence[int]
    outputs: Sequence[int]
    flags: Sequence[bool] = ()


def write_tflite(path: Path, parts: Sequence[Part], steps: Sequence[Step]) -> Path:
    """Write a model of one graph."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    buffers, tensors = [_buffer(builder, None)], []
    for part in parts:
        tensors.append(_tensor(builder, part, 0 if part.values is None else len(buffers)))
        buffers += [] if part.values is None else [_buffer(builder, part.values)]
    names = list(dict.fromkeys(step.operator for step in steps))
    codes = [_code(builder, each) for each in names]
    operators = [_operator(builder, step, names.index(step.operator)) for step in steps]
    graph = _table(
        builder,
        "SubGraph",
        Tensors=_offsets(builder, tensors),
        Operators=_offsets(builder, operators),
    )
    model = _table(
        builder,
        "Model",
        Version=3,
        OperatorCodes=_offsets(builder, codes),
        Subgraphs=_offsets(builder, [graph]),
        Buffers=_offsets(builder, buffers),
    )
    builder.Finish(model, b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _table(builder: Any, name: str, **fields: Any) -> int:
    """Write a table of the schema; fields that are None are left out."""
    import tflite

    getattr(tflite, f"{name}Start")(builder)
    for field, value in fields.items():
        if value is not None:
            getattr(tflite, f"{name}Add{field}")(builder, value)
    return int(getattr(tflite, f"{name}End")(builder))


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for each in reversed(offsets):
        builder.PrependUOffsetTRelative(each)
    return int(builder.EndVector())


def _numbers(builder: Any, values: Any, dtype: str) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, dtype)))


def _tensor(builder: Any, part: Part, buffer: int) -> int:
    shape = part.shape if part.shape is not None else np.shape(part.values)
    kind = part.kind
    if kind is None:
        kind = 0 if part.values is None else _KINDS[part.values.dtype.name]
    scales = None
    if len(part.scales):
        scales = _table(
            builder,
            "QuantizationParameters",
            Scale=_numbers(builder, part.scales, "float32"),
            ZeroPoint=_numbers(builder, part.zeros, "int64"),
            QuantizedDimension=part.axis,
        )
    return _table(
        builder,
        "Tensor",
        Shape=_numbers(builder, shape, "int32"),
        Type=kind,
        Name=builder.CreateString(part.name),
        Buffer=buffer,
        Quantization=scales,
        Sparsity=None if part.sparse is None else _sparsity(builder, *part.sparse),
    )


def _sparsity(builder: Any, order: Any, blocked: Any, levels: Sequence[Any]) -> int:
    return _table(
        builder,
        "SparsityParameters",
        TraversalOrder=_numbers(builder, order, "int32"),
        BlockMap=_numbers(builder, blocked, "int32") if blocked else None,
        DimMetadata=_offsets(builder, [_level(builder, *level) for level in levels]),
    )


def _level(builder: Any, is_sparse: bool, *content: Any) -> int:
    if not is_sparse:
        return _table(builder, "DimensionMetadata", DenseSize=content[0])
    segments, indices = content
    return _table(
        builder,
        "DimensionMetadata",
        Format=1,
        ArraySegmentsType=1,
        ArraySegments=_table(builder, "Int32Vector", Values=_numbers(builder, segments, "int32")),
        ArrayIndicesType=3,
        ArrayIndices=_table(builder, "Uint8Vector", Values=_numbers(builder, indices, "uint8")),
    )


def _buffer(builder: Any, values: Array | None) -> int:
    bits = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
    data = None if bits is None else int(builder.CreateNumpyVector(bits))
    return _table(builder, "Buffer", Data=data)


def _code(builder: Any, operator: int | str) -> int:
    number = 32 if isinstance(operator, str) else operator
    return _table(
        builder,
        "OperatorCode",
        DeprecatedBuiltinCode=min(number, 127),
        BuiltinCode=number,
        CustomCode=builder.CreateString(operator) if isinstance(operator, str) else None,
    )


def _operator(builder: Any, step: Step, code: int) -> int:
    options = None
    if step.flags:
        left, right = step.flags
        options = _table(builder, "BatchMatMulOptions", AdjX=left, AdjY=right)
    return _table(
        builder,
        "Operator",
        OpcodeIndex=code,
        Inputs=_numbers(builder, step.inputs, "int32"),
        Outputs=_numbers(builder, step.outputs, "int32"),
        BuiltinOptionsType=101 if step.flags else None,
        BuiltinOptions=options,
    )


def encode_sparse(
    dense: Array, order: Sequence[int], blocks: dict[int, int], is_sparse: Sequence[bool]
) -> tuple[Array, tuple[Any, ...]]:
    """Leave zeros out of a tensor, place by place.

    Args:
        dense: the tensor.
        order: of its dimensions and then those of the blocks, from outside.
        blocks: size of the blocks of each dimension that has some.
        is_sparse: for each level, whether only places that have a value below are kept.

    Returns:
        The values that are kept; and order, blocked dimensions and levels.
    """
    blocked = sorted(blocks)
    shape: list[int] = []
    outer, inner = [], []
    for axis, size in enumerate(dense.shape):
        outer.append(len(shape))
        shape.append(size // blocks.get(axis, 1))
        if axis in blocks:
            inner.append(len(shape))
            shape.append(blocks[axis])
    nested = dense.reshape(shape).transpose([(outer + inner)[each] for each in order])
    segments = [[0] for _ in order]
    indices: list[list[int]] = [[] for _ in order]
    kept: list[Any] = []

    def walk(level: int, below: Array) -> None:
        if level == len(order):
            kept.append(below)
            return
        for number, each in enumerate(below):
            if each.any() or not is_sparse[level]:
                indices[level].append(number)
                walk(level + 1, each)
        segments[level].append(len(indices[level]))

    walk(0, nested)
    levels = [
        (True, segments[n], indices[n]) if is_sparse[n] else (False, size)
        for n, size in enumerate(nested.shape)
    ]
    return np.array(kept, dense.dtype), (tuple(order), tuple(blocked), levels)
