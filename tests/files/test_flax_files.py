"""Weights of Flax: mapped, and in PyTorch's order."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import CheckpointError, Entry, Limits, open_checkpoint
from jaynes_callbacks.files.formats.msgpack_tree import PackedArray, unpack
from tests.files.flax_models import chunked, write_flax
from tests.processes import python

pytest.importorskip("msgpack")

AssertSame = Callable[[Records, Mapping[str, Record]], None]


def noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def entries_of(path: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in open_checkpoint(path).entries}


ORDERS: list[tuple[dict[str, Any], str, str]] = [
    ({"dense": {"kernel": noise(6, 9), "bias": noise(9)}}, "dense.kernel", "io->oi"),
    ({"dense": {"kernel": noise(6, 9)}}, "dense.kernel", "io->oi"),
    ({"c_attn": {"kernel": noise(9, 6), "bias": noise(9)}}, "c_attn.kernel", "oi->oi"),
    ({"conv": {"kernel": noise(3, 6, 9), "bias": noise(9)}}, "conv.kernel", "wio->oiw"),
    ({"conv": {"kernel": noise(2, 3, 6, 9)}}, "conv.kernel", "hwio->oihw"),
    ({"embed": {"embedding": noise(9, 6)}}, "embed.embedding", "vd->vd"),
    ({"blocks": [{"kernel": noise(6, 9)}]}, "blocks.0.kernel", "io->oi"),
]


@pytest.mark.parametrize(("tree", "name", "order"), ORDERS)
def test_rows_are_outputs(tree: dict[str, Any], name: str, order: str, tmp_path: Path) -> None:
    entry = entries_of(write_flax(tmp_path / "a.msgpack", tree))[name]
    values = tree
    for part in name.split("."):
        values = values[int(part) if part.isdecimal() else part]
    assert entry.mapped
    assert np.array_equal(entry.load().numpy(), np.einsum(order, values))
    assert entry.shape == np.einsum(order, values).shape


def test_attention(tmp_path: Path) -> None:
    attention = {
        **{name: {"kernel": noise(8, 2, 4), "bias": noise(2, 4)} for name in ("query", "key")},
        "value": {"kernel": noise(8, 2, 4)},
        "out": {"kernel": noise(2, 4, 8), "bias": noise(8)},
    }
    found = entries_of(write_flax(tmp_path / "a.msgpack", {"mha": attention}))
    query, out = attention["query"]["kernel"], attention["out"]["kernel"]
    assert np.array_equal(found["mha.query.kernel"].load().numpy(), query.reshape(8, 8).T)
    assert np.array_equal(found["mha.out.kernel"].load().numpy(), out.reshape(8, 8).T)
    assert found["mha.query.bias"].reason == "a bias"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_equal_records(dtype: str, tmp_path: Path, assert_same: AssertSame) -> None:
    kernel = noise(64, 96).astype(dtype)
    tree = {"a": {"kernel": kernel, "bias": noise(96)}, "b": {"kernel": chunked(kernel, 1000)}}
    path = write_flax(tmp_path / "a.msgpack", tree)
    weight = torch.from_numpy(kernel.T.copy())
    names = ("a.kernel", "b.kernel")
    assert_same(analyse(path), {name: analyse({name: weight})[0] for name in names})
    assert [entry.mapped for entry in open_checkpoint(path).entries] == [True, True, False]


def test_of_a_training_state_only_the_model_is_taken(tmp_path: Path) -> None:
    brain = torch.randn(6, 9).bfloat16()
    tree = {
        "step": 70,
        "params": {
            "dense": {"kernel": brain.view(torch.int16).numpy().view("V2")},
            "steps": np.ones((9, 9), np.int32),
            "scalar": np.float32(3),
            "complex": 1j,
        },
        "opt_state": {"0": {"mu": {"dense": {"kernel": noise(6, 9)}}}},
    }
    checkpoint = open_checkpoint(write_flax(tmp_path / "a.msgpack", tree))
    assert checkpoint.step == 70
    assert {entry.name: entry.reason for entry in checkpoint.entries} == {
        "dense.kernel": None,
        "steps": "of dtype int32, not real floating-point",
        "scalar": None,
    }
    assert torch.equal(checkpoint.entries[0].load(), brain.t())


@pytest.mark.parametrize(
    "value",
    [0, 127, 128, 1 << 40, -1, -32, -33, -(1 << 40), 0.5, None, True, False, "a", "ä" * 40,
     "x" * 300, "y" * 70_000, [], list(range(20)), list(range(70_000)), {},
     {str(n): n for n in range(20)}, {str(n): n for n in range(70_000)}, {"a": {"b": [1, "c"]}},
     {3: "number"}],
)  # fmt: skip
def test_every_kind_of_object(value: Any) -> None:
    import msgpack

    expected = {str(k): v for k, v in value.items()} if isinstance(value, dict) else value
    content = np.frombuffer(msgpack.packb(value), np.uint8)
    assert unpack(content, Limits()) == expected


def test_bytes_and_extensions(tmp_path: Path) -> None:
    import msgpack

    for size in (1, 2, 4, 8, 16, 17, 300, 70_000):
        content = np.frombuffer(msgpack.packb([b"x" * size, msgpack.ExtType(9, b"x" * size)]), "u1")
        data, other = unpack(content, Limits())
        assert bytes(data) == b"x" * size
        assert other is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\xc1", "begins no object"),
        (b"\xdf\xff\xff\xff\xff", "too many parts"),
        (b"\x91" * 100, "nested too deeply"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "it ends after"),
        (b"\x81\x90\x01", "neither text nor number"),
        (b"\x80\x80", "goes on after its end"),
        (b"\x81\xa1a\xd4\x01\x90", "an array in it is none"),
    ],
)
def test_refusals(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"is no whole file of Flax \(.*{said}"):
        analyse(tmp_path / "a.msgpack")


def test_a_list_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        analyse(write_flax(tmp_path / "a.msgpack", [1]))


def test_a_shape_that_does_not_fit_is_told(tmp_path: Path) -> None:
    broken = {**chunked(noise(8, 9), 50), "shape": {"0": 8, "1": 1 << 40}}
    path = write_flax(tmp_path / "a.msgpack", {"good": noise(8, 9), "bad": broken})
    with pytest.warns(UserWarning, match=r"tensor bad cannot be read \(its shape"):
        assert [row.name for row in analyse(path)] == ["good"]


REAL = """
import sys
import jax, jax.numpy as jnp, numpy
from flax import linen, serialization, traverse_util

class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(6, (3, 3))(x).reshape(x.shape[0], -1, 6)
        x = linen.MultiHeadDotProductAttention(2, qkv_features=8)(x)
        return linen.Dense(9, param_dtype=jnp.bfloat16)(x)

variables = Net().init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))
with open(sys.argv[1] + "/a.msgpack", "wb") as file:
    file.write(serialization.to_bytes(variables["params"]))
flat = traverse_util.flatten_dict(variables["params"], sep=".")
numpy.savez(sys.argv[1] + "/a.npz", **{k: numpy.asarray(v, numpy.float32) for k, v in flat.items()})
"""


@pytest.mark.slow
def test_a_file_that_flax_wrote(tmp_path: Path) -> None:
    if find_spec("flax") is None:
        pytest.skip("flax is not installed")
    done = python("-c", REAL, str(tmp_path))
    assert done.returncode == 0, done.stderr
    arrays = dict(np.load(tmp_path / "a.npz"))
    found = entries_of(tmp_path / "a.msgpack")
    assert set(found) == set(arrays)
    for name, entry in found.items():
        stored, loaded = arrays[name], entry.load().float().numpy()
        if name.endswith(("query.kernel", "key.kernel", "value.kernel")):
            expected = stored.reshape(len(stored), -1).T
        elif name.endswith("out.kernel"):
            expected = stored.reshape(-1, stored.shape[-1]).T
        elif name.endswith("kernel"):
            expected = np.moveaxis(stored, (-1, -2), (0, 1))
        else:
            expected = stored
        assert np.array_equal(loaded, expected), name


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    content = np.frombuffer(write_flax(tmp_path / "a", {"w": noise(8, 9)}).read_bytes(), np.uint8)
    tree = unpack(content, Limits())
    assert isinstance(tree, dict)
    array = tree["w"]
    assert isinstance(array, PackedArray)
    assert np.shares_memory(array.data, content)
