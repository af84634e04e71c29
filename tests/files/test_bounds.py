"""Small files that would hang a reader or fill the memory: refused at once, others measured."""

import json
import os
import pickle
import re
import socket
import struct
import zipfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from jaynes_callbacks import analyse, compare, measure_checkpoint
from jaynes_callbacks.files import CheckpointError, Limits, open_checkpoint
from jaynes_callbacks.records.regular import read_text, require_regular
from tests.files.watched import Cost, measured

pytestmark = pytest.mark.usefixtures("unfitted")

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
SUFFIXES = ("pt", "safetensors", "npz", "onnx", "gguf", "safetensors.index.json", "tflite", "task")
SUFFIXES += ("msgpack", "h5", "keras")


# Pipes and devices --------------------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["pipe", "zeros", "noise", "socket"])
@pytest.mark.sampled(5)
def test_only_regular_files_are_opened(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with chdir(tmp_path), socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    else:
        path.symlink_to({"zeros": "/dev/zero", "noise": "/dev/urandom"}[kind])
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        analyse(path)
    # Beside others it is not listed.
    torch.save({"w": torch.randn(9, 9)}, tmp_path / "b.pt")
    assert len(analyse(tmp_path)) == 1


@pytest.mark.timeout(20)
def test_pipes_behind_other_files(tmp_path: Path) -> None:
    """Shards, an index, external data, the settings beside a file."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        require_regular(tmp_path / "pipe")
    index = tmp_path / "m.safetensors.index.json"
    os.mkfifo(tmp_path / "one.safetensors")
    save_file({"b": torch.randn(9, 9)}, tmp_path / "two.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    with pytest.warns(UserWarning, match="one.safetensors is missing"):
        assert [row.name for row in analyse(index)] == ["b"]
    os.mkfifo(tmp_path / "config.json")
    weight = torch.randn(20, 30).to(torch.float8_e4m3fn)
    save_file({"x": weight, "x_scale": torch.rand(2, 3)}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match=r"no config\.json beside it"):
        analyse(tmp_path / "c.safetensors")


@pytest.mark.timeout(20)
def test_a_pipe_as_external_data(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.ones((20, 20), np.float32), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    onnx.save_model(
        model, tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "w").unlink()
    os.mkfifo(tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"holds weights of .* no regular file"):
        analyse(tmp_path / "a.onnx")


def test_texts_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1001)
    assert len(read_text(tmp_path / "a")) == 1001
    with pytest.raises(OSError, match=r"1,001 bytes, expected at most 1,000"):
        read_text(tmp_path / "a", 1000)


# Bombs --------------------------------------------------------------------------------------------


def _npz_bomb(path: Path) -> None:
    """512 MiB of zeros in a few MiB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("w.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 14, 1 << 13)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(1 << 5):
            member.write(bytes(1 << 24))


def _npz_shape(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("w.npy", "w") as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 30, 1 << 30)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(100))


def _pickled_zip(content: bytes, *, deflated: bool = False) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive:
            archive.writestr("a/data.pkl", content)

    return write


def _stride_zero(path: Path) -> None:
    torch.save({"w": torch.ones(1, 1).expand(1_000_000, 1_000_000)}, path)


def _repeated_chunks(path: Path) -> None:
    """Name one chunk of 256 KiB as all 4096 rows of a tensor."""
    dcp.save({"w": torch.randn(1, 1 << 16)}, checkpoint_id=path, no_dist=True)
    index = pickle.loads((path / ".metadata").read_bytes())
    whole = index.state_dict_metadata["w"]
    (place,) = index.storage_data.values()
    whole.size = torch.Size([1 << 12, 1 << 16])
    whole.chunks = []
    for row in range(1 << 12):
        offset = torch.Size([row, 0])
        whole.chunks.append(ChunkStorageMetadata(offset, torch.Size([1, 1 << 16])))
        index.storage_data[MetadataIndex("w", offset)] = place
    (path / ".metadata").write_bytes(pickle.dumps(index))


def _gguf(*parts: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(b"GGUF" + struct.pack("<I", 3) + b"".join(parts))


def _header_length(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def _long_header(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 26) + b"{" + b" " * 100)
        file.truncate(1 << 27)


_MANY = 1 << 62
BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "compressed.npz": (_npz_bomb, "array|tensor w .*512 MiB in memory.*--max-expanded 512"),
    "shape.npz": (_npz_shape, "array w.npy cannot be read .*its shape"),
    "stride.pt": (_stride_zero, "tensor w takes 3,814,698 MiB in memory"),
    "lists.pt": (_pickled_zip(b"\x80\x02" + b"]" * 30_000_000), "more than 4,194,304 objects"),
    "deflated.pt": (
        _pickled_zip(b"\x80\x02" + b"]" * 300_000_000, deflated=True),
        "takes 287 MiB in memory",
    ),
    "text.pt": (
        _pickled_zip(b"\x80\x02X" + struct.pack("<I", 70_000_000) + b"a" * 70_000_000 + b"."),
        "bytes of texts",
    ),
    "long.pt": (_pickled_zip(b"\x80\x02L" + b"9" * 60_000 + b"L\n."), "damaged at byte"),
    "dcp": (_repeated_chunks, "tensor w takes 1,024 MiB in memory"),
    "array.gguf": (
        _gguf(struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 0, _MANY)),
        "it ends within its header",
    ),
    "strings.gguf": (
        _gguf(struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 8, _MANY)),
        "it ends within its header",
    ),
    "tensors.gguf": (_gguf(struct.pack("<QQ", _MANY, 0)), "it ends within its header"),
    "header.safetensors": (_header_length, "its header is not whole"),
    "long.safetensors": (_long_header, r"its header has 67,108,864 bytes"),
    "deep.safetensors.index.json": (
        lambda path: path.write_text('{"weight_map":' + "[" * 200_000),
        "RecursionError",
    ),
    "wide.safetensors.index.json": (
        lambda path: path.write_text("[" + "[]," * 5_000_000 + "[]]"),
        "lists",
    ),
    "long.safetensors.index.json": (
        lambda path: path.write_bytes(b" " * (1 << 25)),
        "expected at most 16,777,216",
    ),
}
#: Seconds, and KiB above what the imports take.
SECONDS, KIBIBYTES = 10, 350 * 1024


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    """What each of the bombs cost, all in one process."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (write, _) in BOMBS.items():
        write(folder / name)
    return {Path(cost.path).name: cost for cost in measured([folder / name for name in BOMBS])}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, costs: dict[str, Cost]) -> None:
    pytest.importorskip("onnx")
    cost = costs[name]
    assert not cost.traceback
    assert re.search(BOMBS[name][1], cost.said), cost.said
    assert name in cost.said
    assert "\n" not in cost.said
    assert cost.kibibytes < KIBIBYTES
    assert cost.seconds < SECONDS


def test_the_bound_can_be_raised(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(1, 30).expand(40_000, 30)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"--max-expanded 5 .*max_expanded=5"):
        measure_checkpoint(tmp_path / "a.pt", max_expanded=1)
    assert measure_checkpoint(tmp_path / "a.pt", max_expanded=5)[0].n == 1_200_000
    (pair,) = compare(tmp_path / "a.pt", tmp_path / "a.pt", max_expanded=5).pairs
    assert pair.after.moved == 0
    (entry,) = open_checkpoint(tmp_path / "a.pt", Limits(1 << 20)).entries
    with pytest.raises(CheckpointError):
        entry.load()


def test_one_bomb_leaves_the_other_tensors(tmp_path: Path) -> None:
    state = {"w": torch.randn(30, 30), "bomb": torch.ones(1, 1).expand(1_000_000, 1_000_000)}
    torch.save(state, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="tensor bomb takes"):
        assert [row.name for row in analyse(tmp_path / "a.pt")] == ["w"]
