"""Weights of Keras 2 and 3, in PyTorch's order under the names of their layers."""

import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import CheckpointError, Entry, open_checkpoint
from tests.files.keras_models import Array, config_of, write_keras, write_keras_2, write_weights
from tests.processes import python

h5py = pytest.importorskip("h5py")

AssertSame = Callable[[Records, Mapping[str, Record]], None]


def entries_of(path: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in open_checkpoint(path).entries}


def noise(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


#: Class, settings, number and name of a variable, its shape, and its order as einsum writes it.
ORDERS: list[tuple[str, dict[str, Any], int, str, tuple[int, ...], str]] = [
    ("Dense", {}, 0, "kernel", (6, 9), "io->oi"),
    ("Conv1D", {}, 0, "kernel", (3, 6, 9), "wio->oiw"),
    ("Conv2D", {}, 0, "kernel", (2, 3, 6, 9), "hwio->oihw"),
    ("Conv3D", {}, 0, "kernel", (2, 3, 4, 6, 9), "dhwio->oidhw"),
    ("Conv2DTranspose", {}, 0, "kernel", (2, 3, 9, 6), "hwoi->oihw"),
    ("DepthwiseConv2D", {}, 0, "kernel", (2, 3, 4, 2), "hwim->imhw"),
    ("SeparableConv2D", {}, 0, "depthwise_kernel", (2, 3, 4, 2), "hwim->imhw"),
    ("SeparableConv2D", {}, 1, "pointwise_kernel", (1, 1, 8, 5), "hwio->oihw"),
    ("Embedding", {}, 0, "embeddings", (9, 6), "vd->vd"),
    ("LSTMCell", {}, 1, "recurrent_kernel", (3, 12), "io->oi"),
    ("EinsumDense", {"equation": "abc,cde->abde"}, 0, "kernel", (6, 2, 4), "cde->dec"),
    ("EinsumDense", {"equation": "abc,cd->abd"}, 0, "kernel", (6, 9), "io->oi"),
    ("EinsumDense", {"equation": "abcd,cde->abe"}, 0, "kernel", (2, 4, 6), "cde->ecd"),
    ("MyOwnDense", {}, 0, "0", (6, 9), "ab->ab"),
]


@pytest.mark.parametrize(("kind", "settings", "number", "name", "shape", "order"), ORDERS)
@pytest.mark.parametrize("version", [2, 3])
def test_rows_are_outputs(
    version: int,
    kind: str,
    settings: dict[str, Any],
    number: int,
    name: str,
    shape: tuple[int, ...],
    order: str,
    tmp_path: Path,
) -> None:
    values, config = noise(*shape), config_of([("stem", kind, settings)])
    if version == 2:
        path = write_keras_2(tmp_path / "a.h5", {f"stem/{name}": values}, config)
    else:
        variables = [np.ones(3)] * number + [values]
        path = write_keras(tmp_path / "a.keras", {"layers/any": ("stem", variables)}, config)
    entry = entries_of(path)[f"stem/{name}"]
    expected = np.einsum(order, values)
    if "m" in order:
        expected = expected.reshape(-1, 1, *shape[:2])
    elif len(shape) == 3 and kind == "EinsumDense":
        rows = 8 if order == "cde->dec" else 6
        expected = expected.reshape(rows, -1)
    assert entry.reason is None
    assert entry.shape == expected.shape
    assert np.array_equal(entry.load().numpy(), expected)


def test_attention(tmp_path: Path) -> None:
    """Its parts are in no configuration: their names say what they are."""
    query, out, bias = noise(6, 2, 4), noise(2, 4, 6), noise(2, 4)
    place = "layers/multi_head_attention"
    path = write_weights(
        tmp_path / "a.weights.h5",
        {
            place: ("attention", []),
            f"{place}/query_dense": ("query", [query, bias]),
            f"{place}/output_dense": ("attention_output", [out]),
        },
    )
    found = entries_of(path)
    assert np.array_equal(found["attention/query/kernel"].load().numpy(), query.reshape(6, 8).T)
    last = found["attention/attention_output/kernel"]
    assert np.array_equal(last.load().numpy(), out.reshape(8, 6).T)
    assert found["attention/query/bias"].reason == "a bias"
    assert len(found) == 3


def test_without_a_configuration_the_class_is_in_the_path(tmp_path: Path) -> None:
    kernel = noise(2, 3, 4, 2)
    layers = {
        "layers/sequential/layers/depthwise_conv2d_7": ("inner_1", [kernel]),
        "layers/sequential": ("block", []),
    }
    (entry,) = open_checkpoint(write_weights(tmp_path / "a.weights.h5", layers)).entries
    assert (entry.name, entry.shape) == ("block/inner_1/kernel", (8, 1, 2, 3))


def test_weights_are_in_the_order_of_the_model(tmp_path: Path) -> None:
    layers = {"layers/dense": ("b", [noise(6, 9)]), "layers/dense_1": ("a", [noise(9, 6)])}
    config = config_of([("b", "Dense", {}), ("a", "Dense", {})])
    path = write_keras(tmp_path / "a.keras", layers, config)
    assert list(entries_of(path)) == ["b/kernel", "a/kernel"]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunks": (5, 7)},
        {"chunks": (5, 7), "compression": "gzip"},
        {"chunks": (5, 7), "fletcher32": True},
        {"chunks": (64, 96), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"dtype": ">f4"},
    ],
)
def test_every_way_to_store_values(
    how: dict[str, Any], tmp_path: Path, assert_same: AssertSame
) -> None:
    values = noise(64, 96)
    path = write_keras_2(tmp_path / "a.h5", {"dense/kernel": values}, **how)
    (entry,) = open_checkpoint(path).entries
    assert entry.mapped is (not how)
    (expected,) = analyse({"dense/kernel": torch.from_numpy(values.T.copy())})
    assert_same(analyse(path), {"dense/kernel": expected})


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives(compression: int, dtype: str, tmp_path: Path) -> None:
    values = noise(64, 96).astype(dtype)
    config = config_of([("fc", "Dense", {})])
    path = write_keras(tmp_path / "a.keras", {"layers/x": ("fc", [values])}, config, compression)
    (entry,) = open_checkpoint(path).entries
    assert entry.mapped is (compression == zipfile.ZIP_STORED)
    assert np.array_equal(entry.load().numpy(), values.T)


def test_short_floats_of_keras_3(tmp_path: Path) -> None:
    values = torch.randn(6, 9).bfloat16()
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        data = group.create_dataset("0", data=values.view(torch.int16).numpy().view("V2"))
        data.attrs["dtype"] = "bfloat16"
    (entry,) = open_checkpoint(tmp_path / "a.weights.h5").entries
    assert torch.equal(entry.load(), values.t())


def test_nothing_outside_the_file_is_read(tmp_path: Path) -> None:
    secret = write_keras_2(tmp_path / "secret.h5", {"dense/kernel": noise(6, 9)})
    (tmp_path / "raw").write_bytes(noise(9, 9).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good/kernel"] = noise(9, 9)
        file["linked"] = h5py.ExternalLink(secret.name, "/model_weights/dense")
        file["soft"] = h5py.SoftLink("/good")
        layout = h5py.VirtualLayout((6, 9), "f4")
        layout[:] = h5py.VirtualSource(secret.name, "/model_weights/dense/dense/kernel:0", (6, 9))
        file.create_virtual_dataset("virtual/kernel", layout)
        file.create_dataset("raw/kernel", (9, 9), "f4", external=[(str(tmp_path / "raw"), 0, 324)])
        file["good/round"] = file["good"]
        file.create_dataset("unwritten/kernel", (9, 9), "f4", chunks=(3, 9))
    checkpoint = open_checkpoint(tmp_path / "a.h5")
    elsewhere = "values that are not in the file as they are"
    assert {entry.name: entry.reason for entry in checkpoint.entries} == {
        "good/kernel": None,
        "virtual/kernel": elsewhere,
        "raw/kernel": elsewhere,
        "unwritten/kernel": "values that were never written, not all of them",
    }
    assert checkpoint.notes == ("not 2: links to other files or places, which are not followed",)


def test_filters_of_plugins_are_not_loaded(tmp_path: Path) -> None:
    path = write_keras_2(tmp_path / "a.h5", {"dense/kernel": noise(9, 9)}, compression="lzf")
    (entry,) = open_checkpoint(path).entries
    assert entry.reason == "compressed by HDF5's filter 32000"


@pytest.mark.parametrize("shape", [(1 << 14, 1 << 13), (9, 9)])
def test_a_block_that_would_fill_the_memory_is_refused(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    how: dict[str, Any] = {"maxshape": (None, None), "compression": "gzip"}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("dense/kernel", shape, "f4", chunks=(1 << 14, 1 << 13), **how)
        data.id.write_direct_chunk((0, 0), b"x" * 99)
    with pytest.raises(CheckpointError, match=r"takes 512 MiB in memory"):
        analyse(tmp_path / "a.h5")


def test_refusals(tmp_path: Path) -> None:
    whole = write_keras_2(tmp_path / "a.h5", {"dense/kernel": noise(64, 96)})
    content = whole.read_bytes()
    for broken in (content[:20], content[: len(content) // 2], b"", b"hello", bytes(900)):
        (tmp_path / "b.h5").write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"b\.h5"):
            analyse(tmp_path / "b.h5")
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(CheckpointError, match=r"it has no model\.weights\.h5"):
        analyse(tmp_path / "b.keras")


REAL = """
import sys
import keras
from keras import layers

image = x = keras.Input((12, 12, 3))
x = layers.Conv2D(8, 3, name="stem")(x)
x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
x = layers.SeparableConv2D(6, 3)(x)
x = layers.Conv2DTranspose(5, 3)(x)
x = layers.Dense(10)(layers.Flatten()(layers.BatchNormalization()(x)))
x = keras.Sequential([keras.Input((10,)), layers.Dense(12), layers.Dense(4)], name="inner")(x)
words = y = keras.Input((7,))
y = layers.Embedding(20, 8)(y)
y = layers.MultiHeadAttention(2, 4)(y, y)
y = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(y)
y = layers.GRU(4)(y)
model = keras.Model([image, words], layers.Add()([x, y]))
model.compile("adam", "mse")
model.fit([numpy.ones((2, 12, 12, 3)), numpy.ones((2, 7))], numpy.ones((2, 4)), verbose=0)
for name in ("a.keras", "a.h5", "a.weights.h5"):
    (model.save_weights if "weights" in name else model.save)(sys.argv[1] + "/" + name)
numpy.savez(sys.argv[1] + "/a.npz", **{
    each.path.replace("/", "+"): each.numpy() for each in model.variables if "kernel" in each.path
})
"""


@pytest.mark.slow
def test_files_that_keras_wrote(tmp_path: Path) -> None:
    if find_spec("keras") is None:
        pytest.skip("keras is not installed")
    code = "import os; os.environ['KERAS_BACKEND'] = 'torch'; import numpy\n" + REAL
    done = python("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    arrays = dict(np.load(tmp_path / "a.npz"))
    found = [entries_of(tmp_path / name) for name in ("a.keras", "a.h5", "a.weights.h5")]
    for entries in found:
        weights = {name: entry for name, entry in entries.items() if name.endswith("kernel")}
        assert {name.replace("/", "+") for name in weights} == set(arrays)
        for name, entry in weights.items():
            stored = arrays[name.replace("/", "+")]
            loaded = entry.load().numpy()
            # Each row has the weights of one output: the sums over all else are those of an axis.
            sums = np.sort(loaded.reshape(len(loaded), -1).sum(1))
            if "depthwise" in name:
                expected = stored.sum((0, 1)).reshape(-1)
            elif "transpose" in name:
                expected = stored.sum((0, 1, 3))
            elif any(part in name for part in ("/query/", "/key/", "/value/")):
                expected = stored.sum(0).reshape(-1)
            else:
                expected = stored.reshape(-1, stored.shape[-1]).sum(0)
            assert np.allclose(sums, np.sort(expected), atol=1e-5), name
