"""Which inputs of TensorFlow Lite's operators are weights, and in which order they are stored.

Numbers of operators and of their fields are those of ``BuiltinOperator`` and the options' tables in
TensorFlow's ``schema.fbs``; orders are those of the operators' reference kernels.
"""

from collections.abc import Callable, Sequence

from jaynes_callbacks.files.formats.flatbuffer import Table
from jaynes_callbacks.files.formats.layouts import Layout

__all__ = ["CUSTOM", "PASSING", "Operator", "Use", "use_of"]

#: Operators whose output has the values of their first input, in another type or no longer sparse.
PASSING = {6: "DEQUANTIZE", 53: "CAST", 124: "DENSIFY"}

#: An operator's number, or the name of one of MediaPipe's own.
Operator = int | str
#: How an operator uses a constant: the layout of a weight, or why it is no weight.
Use = Layout | str
_Order = Callable[[int, Table | None], Use]

#: Operators that are named by a text instead of a number.
CUSTOM = 32
_SHUFFLED = "weights shuffled in blocks of 4 times 16, which are not read"


def _as_stored(dimensions: int, options: Table | None) -> Layout:
    return Layout.as_stored(dimensions)


def _convolution(dimensions: int, options: Table | None) -> Layout:
    """Return the layout of kernels ``[out, height, width, in]``."""
    return Layout((0,), (3,), (1, 2))


def _depthwise(dimensions: int, options: Table | None) -> Layout:
    """Return the layout of kernels ``[1, height, width, out]``."""
    return Layout((3,), (0,), (1, 2))


def _volume(dimensions: int, options: Table | None) -> Layout:
    """Return the layout of kernels ``[depth, height, width, in, out]``."""
    return Layout.outputs_last(5)


def _transposed_volume(dimensions: int, options: Table | None) -> Layout:
    """Return the layout of kernels ``[depth, height, width, out, in]``."""
    return Layout((3,), (4,), (0, 1, 2))


def _fully_connected(dimensions: int, options: Table | None) -> Use:
    is_shuffled = options is not None and options.number(1, "b") != 0
    return _SHUFFLED if is_shuffled else Layout.as_stored(dimensions)


def _left_factor(dimensions: int, options: Table | None) -> Layout:
    """Return the layout of x in x·y: its rows are the rows of the product."""
    return _factor(dimensions, outputs_last=bool(options and options.number(0, "b")))


def _right_factor(dimensions: int, options: Table | None) -> Layout:
    """Return the layout of y in x·y: its columns are the columns of the product."""
    return _factor(dimensions, outputs_last=not (options and options.number(1, "b")))


def _factor(dimensions: int, *, outputs_last: bool) -> Layout:
    """Return the layout of a stack of matrices, each with outputs of its own."""
    rows, columns = dimensions - 2, dimensions - 1
    out, into = (columns, rows) if outputs_last else (rows, columns)
    return Layout((*range(dimensions - 2), out), (into,))


def _gates(*positions: int) -> dict[int, _Order]:
    return dict.fromkeys(positions, _as_stored)


#: Name of each operator that has weights, and the order of the weights by the input's position.
_WEIGHTS: dict[Operator, tuple[str, dict[int, _Order]]] = {
    3: ("CONV_2D", {1: _convolution}),
    4: ("DEPTHWISE_CONV_2D", {1: _depthwise}),
    7: ("EMBEDDING_LOOKUP", {1: _as_stored}),
    9: ("FULLY_CONNECTED", {1: _fully_connected}),
    16: ("LSTM", _gates(*range(1, 9), 16)),
    24: ("RNN", _gates(1, 2)),
    27: ("SVDF", _gates(1, 2)),
    35: ("UNIDIRECTIONAL_SEQUENCE_RNN", _gates(1, 2)),
    36: ("GATHER", {0: _as_stored}),
    44: ("UNIDIRECTIONAL_SEQUENCE_LSTM", _gates(*range(1, 9), 16)),
    46: ("BIDIRECTIONAL_SEQUENCE_RNN", _gates(1, 2, 5, 6, 10, 11)),
    52: (
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        _gates(*range(1, 9), 16, *range(18, 26), 33, *range(40, 48)),
    ),
    67: ("TRANSPOSE_CONV", {1: _convolution}),
    126: ("BATCH_MATMUL", {0: _left_factor, 1: _right_factor}),
    132: ("CONV_3D", {1: _volume}),
    141: ("CONV_3D_TRANSPOSE", {1: _transposed_volume}),
    "Convolution2DTransposeBias": ("Convolution2DTransposeBias", {1: _convolution}),
}
#: Positions of biases, where an operator has one.
_BIASES: dict[Operator, int] = {
    3: 2, 4: 2, 9: 2, 67: 3, 132: 2, 141: 3, "Convolution2DTransposeBias": 2,
}  # fmt: skip
#: Other operators that often have constants.
_OTHERS: dict[Operator, str] = {0: "ADD", 18: "MUL", 41: "SUB", 42: "DIV", 54: "PRELU"}


def use_of(operator: Operator, position: int, shape: Sequence[int], options: Table | None) -> Use:
    """Tell what an operator's constant input is.

    Args:
        operator: its number or name.
        position: of the input among all of the operator.
        shape: of the constant.
        options: the operator's options.

    Returns:
        The layout of a weight; of any other constant the reason why it is none.
    """
    name, orders = _WEIGHTS.get(operator, (_OTHERS.get(operator, f"operator {operator}"), {}))
    if position in orders:
        is_vector = len(shape) < 2
        return Layout.as_stored(len(shape)) if is_vector else orders[position](len(shape), options)
    return f"a bias of {name}" if _BIASES.get(operator) == position else f"a constant of {name}"
