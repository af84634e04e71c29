"""Small models of TensorFlow Lite, written with the classes generated from its schema."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Part", "Step", "encode_sparse", "write_tflite"]

Array = npt.NDArray[Any]
_KINDS = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9, "float64": 10}


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
    import tflite

    builder = flatbuffers.Builder(1024)

    def vector(start: Any, offsets: Sequence[int]) -> int:
        start(builder, len(offsets))
        for each in reversed(offsets):
            builder.PrependUOffsetTRelative(each)
        return int(builder.EndVector())

    def numbers(values: Any, dtype: str) -> int:
        return int(builder.CreateNumpyVector(np.asarray(values, dtype)))

    def level(spec: Any) -> int:
        is_sparse, *content = spec
        if not is_sparse:
            tflite.DimensionMetadataStart(builder)
            tflite.DimensionMetadataAddDenseSize(builder, content[0])
            return int(tflite.DimensionMetadataEnd(builder))
        made = []
        for values, (kind, form, name) in zip(content, content_kinds, strict=True):
            data = numbers(values, form)
            getattr(tflite, f"{name}VectorStart")(builder)
            getattr(tflite, f"{name}VectorAddValues")(builder, data)
            made.append((kind, getattr(tflite, f"{name}VectorEnd")(builder)))
        (segment_kind, segments), (index_kind, indices) = made
        tflite.DimensionMetadataStart(builder)
        tflite.DimensionMetadataAddFormat(builder, 1)
        tflite.DimensionMetadataAddArraySegmentsType(builder, segment_kind)
        tflite.DimensionMetadataAddArraySegments(builder, segments)
        tflite.DimensionMetadataAddArrayIndicesType(builder, index_kind)
        tflite.DimensionMetadataAddArrayIndices(builder, indices)
        return int(tflite.DimensionMetadataEnd(builder))

    content_kinds = [(1, "int32", "Int32"), (3, "uint8", "Uint8")]
    tensors, buffers = [], [_buffer(builder, None)]
    for part in parts:
        shape = part.shape if part.shape is not None else np.shape(part.values)
        name, shape_at = builder.CreateString(part.name), numbers(shape, "int32")
        scaled = sparsity = None
        if len(part.scales):
            factors, zeros = numbers(part.scales, "float32"), numbers(part.zeros, "int64")
            tflite.QuantizationParametersStart(builder)
            tflite.QuantizationParametersAddScale(builder, factors)
            tflite.QuantizationParametersAddZeroPoint(builder, zeros)
            tflite.QuantizationParametersAddQuantizedDimension(builder, part.axis)
            scaled = tflite.QuantizationParametersEnd(builder)
        if part.sparse is not None:
            order, blocked, levels = part.sparse
            made = vector(
                tflite.SparsityParametersStartDimMetadataVector, [level(each) for each in levels]
            )
            order_at, blocked_at = numbers(order, "int32"), numbers(blocked, "int32")
            tflite.SparsityParametersStart(builder)
            tflite.SparsityParametersAddTraversalOrder(builder, order_at)
            if blocked:
                tflite.SparsityParametersAddBlockMap(builder, blocked_at)
            tflite.SparsityParametersAddDimMetadata(builder, made)
            sparsity = tflite.SparsityParametersEnd(builder)
        kind = part.kind
        if kind is None:
            kind = 0 if part.values is None else _KINDS[part.values.dtype.name]
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, shape_at)
        tflite.TensorAddType(builder, kind)
        tflite.TensorAddName(builder, name)
        tflite.TensorAddBuffer(builder, 0 if part.values is None else len(buffers))
        if scaled is not None:
            tflite.TensorAddQuantization(builder, scaled)
        if sparsity is not None:
            tflite.TensorAddSparsity(builder, sparsity)
        tensors.append(tflite.TensorEnd(builder))
        if part.values is not None:
            buffers.append(_buffer(builder, part.values))
    names = list(dict.fromkeys(step.operator for step in steps))
    codes = [_code(builder, each) for each in names]
    operators = []
    for step in steps:
        inputs, outputs = numbers(step.inputs, "int32"), numbers(step.outputs, "int32")
        options = None
        if step.flags:
            tflite.BatchMatMulOptionsStart(builder)
            tflite.BatchMatMulOptionsAddAdjX(builder, step.flags[0])
            tflite.BatchMatMulOptionsAddAdjY(builder, step.flags[1])
            options = tflite.BatchMatMulOptionsEnd(builder)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, names.index(step.operator))
        tflite.OperatorAddInputs(builder, inputs)
        tflite.OperatorAddOutputs(builder, outputs)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(builder, 101)
            tflite.OperatorAddBuiltinOptions(builder, options)
        operators.append(tflite.OperatorEnd(builder))
    tensors_at = vector(tflite.SubGraphStartTensorsVector, tensors)
    operators_at = vector(tflite.SubGraphStartOperatorsVector, operators)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors_at)
    tflite.SubGraphAddOperators(builder, operators_at)
    graph = tflite.SubGraphEnd(builder)
    graphs = vector(tflite.ModelStartSubgraphsVector, [graph])
    codes_at = vector(tflite.ModelStartOperatorCodesVector, codes)
    buffers_at = vector(tflite.ModelStartBuffersVector, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes_at)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers_at)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _buffer(builder: Any, values: Array | None) -> int:
    import tflite

    data = None
    if values is not None:
        data = builder.CreateNumpyVector(np.frombuffer(values.tobytes(), np.uint8))
    tflite.BufferStart(builder)
    if data is not None:
        tflite.BufferAddData(builder, data)
    return int(tflite.BufferEnd(builder))


def _code(builder: Any, operator: int | str) -> int:
    import tflite

    name = builder.CreateString(operator) if isinstance(operator, str) else None
    number = 32 if isinstance(operator, str) else operator
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(number, 127))
    tflite.OperatorCodeAddBuiltinCode(builder, number)
    if name is not None:
        tflite.OperatorCodeAddCustomCode(builder, name)
    return int(tflite.OperatorCodeEnd(builder))


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
    sizes = [size // blocks.get(axis, 1) for axis, size in enumerate(dense.shape)]
    sizes += [blocks[axis] for axis in blocked]
    segments = [[0] for _ in order]
    indices: list[list[int]] = [[] for _ in order]
    kept: list[Any] = []

    def value(at: dict[int, int]) -> Any:
        place = [at[axis] for axis in range(dense.ndim)]
        for number, axis in enumerate(blocked, dense.ndim):
            place[axis] = place[axis] * blocks[axis] + at[number]
        return dense[tuple(place)]

    def any_below(level: int, at: dict[int, int]) -> bool:
        if level == len(order):
            return bool(value(at) != 0)
        return any(
            any_below(level + 1, {**at, order[level]: n}) for n in range(sizes[order[level]])
        )

    def walk(level: int, at: dict[int, int]) -> None:
        if level == len(order):
            kept.append(value(at))
            return
        for number in range(sizes[order[level]]):
            inner = {**at, order[level]: number}
            if is_sparse[level] and not any_below(level + 1, inner):
                continue
            indices[level].append(number)
            walk(level + 1, inner)
        segments[level].append(len(indices[level]))

    walk(0, {})
    levels = [
        (True, segments[n], indices[n]) if is_sparse[n] else (False, sizes[dimension])
        for n, dimension in enumerate(order)
    ]
    return np.array(kept, dense.dtype), (tuple(order), tuple(blocked), levels)
