"""Models of TensorFlow Lite: every way to store a weight, in PyTorch's order."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import CheckpointError, Entry, open_checkpoint
from jaynes_callbacks.files.formats.sparse_values import Level, Sparsity
from tests.files.tflite_models import Array, Part, Step, encode_sparse, write_tflite

pytest.importorskip("flatbuffers")
pytest.importorskip("tflite")

AssertSame = Callable[[Records, Mapping[str, Record]], None]
CONV, DEPTHWISE, DEQUANTIZE, FULL, PRELU, GATHER = 3, 4, 6, 9, 54, 36
LSTM, TRANSPOSED, ADD, MATMUL, CONV_3D, DENSIFY = 16, 67, 0, 126, 132, 124
#: Numbers of types that numpy has not.
INT4, BFLOAT16 = 17, 18


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(7)


def entries_of(path: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in open_checkpoint(path).entries}


def one_weight(
    path: Path, weight: Part, operator: int | str, *, at: int = 1, flags: tuple[bool, ...] = ()
) -> Entry:
    """Write a model of one operator, and return the weight that is read."""
    inputs = [0, 0, 0, 0]
    inputs[at] = 1
    write_tflite(path, [Part("x"), weight, Part("y")], [Step(operator, inputs, [2], flags)])
    (entry,) = open_checkpoint(path).entries
    return entry


ORDERS: list[tuple[int | str, int, tuple[int, ...], str, tuple[bool, ...]]] = [
    (CONV, 1, (6, 2, 3, 5), "ohwi->oihw", ()),
    (DEPTHWISE, 1, (1, 2, 3, 8), "ihwo->oihw", ()),
    (TRANSPOSED, 1, (6, 2, 3, 5), "ohwi->oihw", ()),
    ("Convolution2DTransposeBias", 1, (6, 2, 3, 5), "ohwi->oihw", ()),
    (CONV_3D, 1, (2, 3, 4, 5, 6), "dhwio->oidhw", ()),
    (FULL, 1, (6, 9), "oi->oi", ()),
    (GATHER, 0, (6, 9), "oi->oi", ()),
    (LSTM, 3, (6, 9), "oi->oi", ()),
    (MATMUL, 1, (6, 9), "io->oi", ()),
    (MATMUL, 1, (6, 9), "oi->oi", (False, True)),
    (MATMUL, 0, (6, 9), "oi->oi", (False, False)),
    (MATMUL, 0, (6, 9), "io->oi", (True, False)),
]


@pytest.mark.parametrize(("operator", "at", "shape", "order", "flags"), ORDERS)
def test_rows_are_outputs(
    operator: int | str,
    at: int,
    shape: tuple[int, ...],
    order: str,
    flags: tuple[bool, ...],
    tmp_path: Path,
    noise: np.random.Generator,
) -> None:
    values = noise.normal(size=shape).astype(np.float32)
    entry = one_weight(tmp_path / "a.tflite", Part("w", values), operator, at=at, flags=flags)
    assert entry.reason is None
    expected = np.einsum(order, values)
    assert entry.shape == expected.shape
    assert entry.mapped
    assert np.array_equal(entry.load().numpy(), expected)


def test_a_stack_of_matrices_has_the_outputs_of_each(
    tmp_path: Path, noise: np.random.Generator
) -> None:
    values = noise.normal(size=(3, 4, 5)).astype(np.float32)
    entry = one_weight(tmp_path / "a.tflite", Part("w", values), MATMUL)
    expected = values.transpose(0, 2, 1).reshape(15, 4)
    assert np.array_equal(entry.load().numpy(), expected)
    assert not entry.mapped


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
@pytest.mark.parametrize("axis", [None, 0, 3])
def test_integers_are_multiplied_by_their_scales(
    axis: int | None, dtype: str, tmp_path: Path, noise: np.random.Generator
) -> None:
    shape = (6, 2, 3, 5)
    stored = noise.integers(0, 127, shape).astype(dtype)
    number = 1 if axis is None else shape[axis]
    scales, zeros = noise.random(number) + 0.5, noise.integers(0, 9, number)
    part = Part("w", stored, scales=scales, zeros=zeros, axis=axis or 0)
    entry = one_weight(tmp_path / "a.tflite", part, CONV)
    spread = [1] * 4 if axis is None else [-1 if each == axis else 1 for each in range(4)]
    factors = scales.astype(np.float32).reshape(spread)
    expected = (stored.astype(np.float32) - zeros.reshape(spread)) * factors
    assert np.array_equal(entry.load().numpy(), expected.transpose(0, 3, 1, 2).astype(np.float32))
    assert (entry.dtype, entry.mapped, entry.nbytes) == (dtype.upper(), False, 4 * stored.size)


def test_four_bits(tmp_path: Path) -> None:
    values = np.array([-8, 7, -1, 0, 3], np.int8)
    low, high = values[::2], np.append(values[1::2], 0)
    packed = ((low & 15) | (high << 4)).astype(np.uint8)
    part = Part("w", packed, shape=(1, 5), scales=[0.5], zeros=[0], kind=INT4)
    entry = one_weight(tmp_path / "a.tflite", part, FULL)
    assert entry.load().tolist() == [[-4, 3.5, -0.5, 0, 1.5]]


def test_short_floats_are_mapped(tmp_path: Path, noise: np.random.Generator) -> None:
    values = torch.randn(6, 9).bfloat16()
    part = Part("w", values.view(torch.uint8).numpy(), shape=(6, 9), kind=BFLOAT16)
    entry = one_weight(tmp_path / "a.tflite", part, FULL)
    assert torch.equal(entry.load(), values)


def test_weights_behind_other_operators(tmp_path: Path, noise: np.random.Generator) -> None:
    """Half precision through DEQUANTIZE, sparse through DENSIFY, both."""
    half = noise.normal(size=(6, 2, 2, 5)).astype(np.float16)
    dense = np.where(noise.random((6, 10)) < 0.3, noise.normal(size=(6, 10)), 0).astype("f2")
    kept, sparse = encode_sparse(dense, (0, 1), {}, (False, True))
    parts = [
        Part("x"), Part("half", half), Part("half_32"), Part("y"),
        Part("sparse", kept, shape=dense.shape, sparse=sparse), Part("dense"), Part("dense_32"),
    ]  # fmt: skip
    steps = [
        Step(DEQUANTIZE, [1], [2]), Step(CONV, [0, 2, -1], [3]),
        Step(DENSIFY, [4], [5]), Step(DEQUANTIZE, [5], [6]), Step(FULL, [3, 6], [3]),
    ]  # fmt: skip
    found = entries_of(write_tflite(tmp_path / "a.tflite", parts, steps))
    assert {name: entry.reason for name, entry in found.items()} == {"half": None, "sparse": None}
    assert np.array_equal(found["half"].load().numpy(), half.transpose(0, 3, 1, 2))
    assert np.array_equal(found["sparse"].load().numpy(), dense)
    assert (found["half"].mapped, found["sparse"].mapped) == (True, False)


SPARSE: list[tuple[tuple[int, ...], tuple[int, ...], dict[int, int], tuple[bool, ...]]] = [
    ((6, 8), (0, 1), {}, (False, True)),
    ((6, 8), (1, 0), {}, (False, True)),
    ((6, 8), (0, 1), {}, (True, True)),
    ((6, 8), (0, 1), {}, (False, False)),
    ((6, 8), (0, 1, 2, 3), {0: 2, 1: 4}, (False, True, False, False)),
    ((6, 8), (0, 1, 2), {1: 4}, (False, True, False)),
    ((6, 8), (1, 0, 3, 2), {0: 3, 1: 2}, (True, True, False, False)),
    ((4, 1, 1, 12), (0, 1, 2, 3, 4), {3: 4}, (False, False, False, True, False)),
]


@pytest.mark.parametrize(("shape", "order", "blocks", "is_sparse"), SPARSE)
def test_sparse_weights(
    shape: tuple[int, ...],
    order: tuple[int, ...],
    blocks: dict[int, int],
    is_sparse: tuple[bool, ...],
    tmp_path: Path,
    noise: np.random.Generator,
) -> None:
    dense = np.where(noise.random(shape) < 0.2, noise.integers(1, 99, shape), 0).astype(np.int8)
    kept, sparse = encode_sparse(dense, order, blocks, is_sparse)
    part = Part("w", kept, shape=shape, sparse=sparse, scales=[0.5], zeros=[0])
    entry = one_weight(tmp_path / "a.tflite", part, FULL if len(shape) == 2 else CONV)
    expected = dense if len(shape) == 2 else dense.transpose(0, 3, 1, 2)
    assert np.array_equal(entry.load().numpy(), expected / 2)


def _levels(*, size: int = 8, segments: tuple[int, ...] = (0, 1, 2), indices: Array) -> Sparsity:
    rows = Level(2, np.zeros(0), np.zeros(0))
    columns = Level(None, np.array(segments), indices)
    return Sparsity((2, size), (0, 1), (), [rows, columns])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"indices": np.array([1, 8])}, "places outside its shape"),
        ({"indices": np.array([-1, 1])}, "places outside its shape"),
        ({"indices": np.array([1, 2, 3])}, "not as many places as it says"),
        ({"indices": np.array([1, 2]), "segments": (0, 3, 2)}, "not as many places"),
        ({"indices": np.array([1, 2]), "segments": (0, 2)}, "not as many places"),
        ({"indices": np.zeros(40, int), "segments": (0, 20, 40)}, "more places than its shape"),
    ],
)
def test_sparsity_that_does_not_fit(change: dict[str, Array], said: str) -> None:
    assert _levels(indices=np.array([1, 2])).places().tolist() == [1, 10]
    with pytest.raises(ValueError, match=said):
        _levels(**change).places()


def test_constants_that_are_no_weights(tmp_path: Path, noise: np.random.Generator) -> None:
    """Biases, slopes, sums, shapes; a weight that is used as another constant too."""
    square = noise.normal(size=(9, 9)).astype(np.float32)
    parts = [
        Part("x"), Part("dense/MatMul", square), Part("bias", square[:1]), Part("slopes", square),
        Part("sum", square), Part("shape", np.ones((9, 9), np.int32)), Part("unused", square),
        Part("batch_norm/Fused;dense/MatMul", square.copy()), Part("tied", square), Part("y"),
        Part("codes", np.ones((9, 9), np.int8)),
    ]  # fmt: skip
    steps = [
        Step(FULL, [0, 1, 2], [9]), Step(PRELU, [9, 3], [9]), Step(ADD, [9, 4], [9]),
        Step(22, [9, 5], [9]), Step(ADD, [9, 8], [9]), Step(GATHER, [8, 0], [9]),
        Step(FULL, [9, 7], [9]), Step(FULL, [9, 10], [9]),
    ]  # fmt: skip
    path = write_tflite(tmp_path / "a.tflite", parts, steps)
    assert {name: entry.reason for name, entry in entries_of(path).items()} == {
        "dense/MatMul": None,
        "dense/MatMul#1": None,
        "tied": None,
        "codes": "of dtype INT8, not real floating-point",
        "bias": "a bias of FULLY_CONNECTED",
        "slopes": "a constant of PRELU",
        "sum": "a constant of ADD",
        "shape": "of dtype INT32, not real floating-point",
        "unused": "a constant that no operator uses",
    }
    assert entries_of(path)["dense/MatMul#1"].aliases == ("batch_norm/Fused;dense/MatMul",)


def test_rows_equal_those_of_the_weights(
    tmp_path: Path, noise: np.random.Generator, assert_same: AssertSame
) -> None:
    kernel = noise.normal(size=(32, 3, 3, 16)).astype(np.float16)
    parts = [Part("x"), Part("net/conv", kernel), Part("wide"), Part("y")]
    steps = [Step(DEQUANTIZE, [1], [2]), Step(CONV, [0, 2], [3])]
    path = write_tflite(tmp_path / "a.tflite", parts, steps)
    weight = torch.from_numpy(kernel.transpose(0, 3, 1, 2).copy())
    (expected,) = analyse({"net/conv": weight})
    assert_same(analyse(path), {"net/conv": expected})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_of_models(compression: int, tmp_path: Path, noise: np.random.Generator) -> None:
    weight = noise.normal(size=(8, 9)).astype(np.float32)
    model = tmp_path / "one.tflite"
    one_weight(model, Part("w", weight), FULL)
    with zipfile.ZipFile(tmp_path / "a.task", "w", compression) as archive:
        archive.write(model, "detector.tflite")
        archive.write(model, "folder/landmarks.tflite")
        archive.writestr("broken.tflite", model.read_bytes()[:99])
        archive.writestr("labels.txt", "none")
    checkpoint = open_checkpoint(tmp_path / "a.task")
    assert [entry.name for entry in checkpoint.entries] == ["detector/w", "folder/landmarks/w"]
    (problem,) = checkpoint.problems
    assert "model broken.tflite cannot be read (it ends before" in problem.reason
    for entry in checkpoint.entries:
        assert np.array_equal(entry.load().numpy(), weight)
        assert entry.mapped is (compression == zipfile.ZIP_STORED)


def test_refusals(tmp_path: Path, noise: np.random.Generator) -> None:
    path = tmp_path / "a.tflite"
    one_weight(path, Part("w", noise.normal(size=(8, 9)).astype(np.float32)), FULL)
    content = path.read_bytes()
    for broken in (content[:20], content[: len(content) // 2], b"", b"hello", bytes(900)):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="is no whole model of TensorFlow Lite"):
            analyse(path)
    with zipfile.ZipFile(tmp_path / "b.task", "w") as archive:
        archive.writestr("labels.txt", "none")
    with pytest.raises(CheckpointError, match="holds no model of TensorFlow Lite"):
        analyse(tmp_path / "b.task")
    (tmp_path / "b.task").write_bytes(b"PK" + bytes(99))
    with pytest.raises(CheckpointError, match="is no whole archive of models"):
        analyse(tmp_path / "b.task")


@pytest.mark.parametrize("shape", [(8, 8), (1 << 30, 1 << 30), (-8, -9), (1,) * 9])
def test_a_shape_that_does_not_fit_is_told(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.ones((8, 9), np.float32)
    parts = [Part("x"), Part("good", values), Part("bad", values, shape=shape), Part("y")]
    steps = [Step(FULL, [0, 1], [3]), Step(FULL, [0, 2], [3])]
    path = write_tflite(tmp_path / "a.tflite", parts, steps)
    with pytest.warns(UserWarning, match=r"tensor bad cannot be read \(its shape"):
        assert [row.name for row in analyse(path)] == ["good"]


@pytest.mark.parametrize(("shape", "mib"), [((1 << 15, 1 << 14), 2048), ((1 << 13, 1 << 12), 384)])
def test_a_sparse_weight_that_would_fill_the_memory_is_refused(
    shape: tuple[int, int], mib: int, tmp_path: Path
) -> None:
    levels = [(True, [0, 1], [0]), (True, [0, 1], [0])]
    part = Part("w", np.ones(1, np.float32), shape=shape, sparse=((0, 1), (), levels))
    entry = one_weight(tmp_path / "a.tflite", part, FULL)
    with pytest.raises(CheckpointError, match=rf"takes {mib:,} MiB in memory"):
        entry.load()
