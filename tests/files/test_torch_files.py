"""Files of torch.save with anything beside the weights: read, mapped, and nothing of it is run."""

import argparse
import datetime
import enum
import functools
import importlib
import os
import pickle
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import CheckpointError, open_checkpoint
from jaynes_callbacks.files.survey import Survey
from jaynes_callbacks.probes.selection import Selection

AssertSame = Callable[[Records, Mapping[str, Record]], None]
EVERYTHING = Selection.of("weight", "*", (), 64)


class _Colour(enum.Enum):
    RED = 1


class _Settings(dict[str, Any]):
    """A subclass, as Lightning's AttributeDict is."""


FOREIGN: dict[str, Callable[[], Any]] = {
    "numpy.": lambda: np.float64(0.5),
    "numpy array": lambda: np.ones((30, 30)),
    "argparse.Namespace": lambda: argparse.Namespace(lr=0.1, deep=argparse.Namespace(a=[1])),
    "pathlib": lambda: PurePosixPath("a/b"),
    "datetime.datetime": lambda: datetime.datetime(2026, 1, 1),
    "collections.deque": lambda: __import__("collections").deque([1, 2], maxlen=3),
    "functools.partial": lambda: functools.partial(torch.optim.SGD, lr=0.1),
    "_Colour": lambda: _Colour.RED,
    "_Settings": lambda: _Settings(a=1),
    "omegaconf": lambda: OmegaConf.create({"lr": 0.1, "layers": [1, 2]}),
    "defaultdict": lambda: defaultdict(list, {"a": [1]}),
    "Counter": lambda: Counter("aab"),
    "optimizer class": lambda: torch.optim.AdamW,
    "set": lambda: {1, 2},
    "complex": lambda: 1 + 2j,
    "bytes": lambda: b"abc" * 100,
    "large": lambda: 1 << 90,
    "generator": lambda: torch.Generator().get_state(),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_foreign_objects_leave_the_weights(
    foreign: str, zipped: bool, protocol: int, tmp_path: Path, generator: torch.Generator
) -> None:
    weights = {"a.weight": torch.randn(20, 30, generator=generator), "b.weight": torch.ones(8, 8)}
    path = tmp_path / "a.ckpt"
    content = {"hyper": FOREIGN[foreign](), "state_dict": OrderedDict(weights), "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    checkpoint = open_checkpoint(path)
    assert [entry.name for entry in checkpoint.entries] == list(weights)
    assert all(entry.mapped for entry in checkpoint.entries)
    for entry in checkpoint.entries:
        assert torch.equal(entry.load(), weights[entry.name])
    assert not checkpoint.problems
    if "." in foreign:
        (note,) = checkpoint.notes
        assert foreign.split(" ")[0] in note
        assert "only code of their own could make" in note


def test_skipped_objects_are_said_in_one_line(tmp_path: Path) -> None:
    objects = {name: make() for name, make in FOREIGN.items()}
    torch.save({"objects": objects, "state_dict": {"w": torch.randn(9, 9)}}, tmp_path / "a.pt")
    survey = Survey(open_checkpoint(tmp_path / "a.pt"), EVERYTHING)
    (line,) = survey.remarks()
    assert line.startswith("not ")
    assert " more); none is run here" in line


# What torch.load makes, and what it does not ------------------------------------------------------


def _zoo(generator: torch.Generator) -> dict[str, Tensor]:
    base = torch.randn(40, 50, generator=generator)
    return {
        "plain": base,
        "tied": base,
        "transposed": base.t(),
        "part": base[3:30, ::2],
        "double": base.double(),
        "half": base.half(),
        "brain": base.bfloat16(),
        "eight": base.to(torch.float8_e4m3fn),
        "parameter": nn.Parameter(base.clone()),
        "negated": torch._neg_view(base.clone()),
        "integers": torch.ones(9, 9, dtype=torch.int64),
        "unsigned": torch.ones(9, 9, dtype=torch.uint16),
        "complex": torch.complex(base, base),
        "conjugate": torch.complex(base, base).conj(),
        "sparse": base.relu().to_sparse(),
        "rows": base.relu().to_sparse_csr(),
        "meta": base.to("meta"),
        "scalar": torch.tensor(2.0),
        "empty": torch.empty(0, 5),
        "expanded": torch.randn(1, 50, generator=generator).expand(40, 50),
    }


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("zipped", [True, False])
def test_equal_to_what_torch_loads(
    zipped: bool, tmp_path: Path, generator: torch.Generator
) -> None:
    zoo = _zoo(generator)
    if not zipped:
        zoo.pop("eight"), zoo.pop("unsigned")
    torch.save(zoo, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    expected = torch.load(tmp_path / "a.pt", weights_only=True)
    found = {entry.name: entry for entry in open_checkpoint(tmp_path / "a.pt").entries}
    assert found["plain"].aliases == ("tied",)
    for name, tensor in expected.items():
        if name == "tied":
            continue
        entry = found[name]
        assert entry.shape == tuple(tensor.shape)
        if entry.reason is None:
            assert torch.equal(entry.load(), tensor)
            assert entry.load().stride() == tensor.stride() or name in ("negated", "empty")
        else:
            assert not tensor.is_floating_point() or tensor.is_sparse or name in ("meta", "rows")


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(20, 30)
        self.table = nn.Buffer(torch.randn(30, 9))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x)) @ self.table


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.sampled(2)
def test_a_whole_module_is_read_without_its_class(
    zipped: bool, tmp_path: Path, assert_same: AssertSame
) -> None:
    net = _Net()
    for name, content in (("a.pt", net), ("b.pt", {"model": net, "ema": _Net()})):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        state = {n: t for n, t in net.state_dict().items() if t.dim() > 1}
        assert_same(analyse(tmp_path / name), {row.name: row for row in analyse(state)})


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::DeprecationWarning")
def test_torchscript(tmp_path: Path, assert_same: AssertSame) -> None:
    net = _Net().eval()
    scripted = torch.jit.script(net)
    torch.jit.save(scripted, str(tmp_path / "a.pt"))
    state = {n: t for n, t in net.state_dict().items() if t.dim() > 1}
    assert_same(analyse(tmp_path / "a.pt"), {row.name: row for row in analyse(state)})
    assert not open_checkpoint(tmp_path / "a.pt").notes
    torch.jit.save(torch.jit.freeze(scripted), str(tmp_path / "b.pt"))
    frozen = analyse(tmp_path / "b.pt")
    assert sorted(row.shape for row in frozen) in ([(20, 30), (30, 9)], [(30, 9), (30, 20)])
    assert all(row.name.startswith("constants.") for row in frozen)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)
        self.plain = torch.randn(16, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.plain.sum()


class _Nested(nn.Module):
    """Lists and dictionaries of modules, tied weights, a recurrent layer, a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.lstm = nn.LSTM(16, 8)
        self.heads = nn.ModuleDict({"words": nn.Linear(16, 20, bias=False)})
        self.heads["words"].weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x)
        for block in self.blocks:
            y = block(y)
        return self.heads["words"](y)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::DeprecationWarning")
def test_names_in_torchscript_are_those_of_the_state_dict(tmp_path: Path) -> None:
    net = _Nested()
    torch.jit.save(torch.jit.script(net), str(tmp_path / "a.pt"))
    entries = open_checkpoint(tmp_path / "a.pt").entries
    found = {name: entry for entry in entries for name in (entry.name, *entry.aliases)}
    state = net.state_dict()
    # TorchScript also keeps plain tensors, and a list of the recurrent layer's weights.
    others = {"blocks.0.plain", "blocks.1.plain"} | {f"lstm._flat_weights.{n}" for n in range(4)}
    assert found.keys() == state.keys() | others
    assert all(torch.equal(found[name].load(), state[name]) for name in state)
    assert found["words.weight"] is found["heads.words.weight"]


def test_a_big_endian_file_is_turned(tmp_path: Path) -> None:
    weights = {"w": torch.randn(20, 20)}
    torch.save({"w": weights["w"]}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            if "/data/" in name:
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            new.writestr(name, content)
    (entry,) = open_checkpoint(tmp_path / "b.pt").entries
    assert torch.equal(entry.load(), weights["w"])


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    weights = {"w": torch.randn(20, 20)}
    torch.save(weights, tmp_path / "a.pt")
    _recompressed(tmp_path / "a.pt", tmp_path / "b.pt")
    (entry,) = open_checkpoint(tmp_path / "b.pt").entries
    assert not entry.mapped
    assert torch.equal(entry.load(), weights["w"])


def _recompressed(source: Path, target: Path) -> None:
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))


def test_an_old_tar_file_says_what_to_do(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.pt", "w") as tar:
        tar.add(__file__, "sys_info")
    with pytest.raises(CheckpointError, match=r"a tar archive, .* load it with torch.load"):
        analyse(tmp_path / "a.pt")


# Hostile files ------------------------------------------------------------------------------------


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._made = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made


class _Builds:
    """Its state would be set on what `__reduce__` made."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("os",), {"path": None}


def _raw(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


ZOO: dict[str, Any] = {
    "system": _Calls(os.system, "touch hostile"),
    "popen": _Calls(subprocess.Popen, "touch hostile", 0, None, None, None, None, None, True, True),
    "exec": _Calls(exec, "open('hostile', 'w')"),
    "eval": _Calls(eval, "open('hostile', 'w')"),
    "open": _Calls(open, "hostile", "w"),
    "getattr": _Calls(getattr, "text", "upper"),
    "import": _Calls(importlib.import_module, "antigravity"),
    "build": _Builds(),
    "nested": [{"a": (_Calls(os.system, "touch hostile"),)}],
    "key": {_Calls(os.system, "touch hostile"): 1},
    "rebuild": _Calls(torch._utils._rebuild_parameter, _Calls(os.system, "touch hostile"), True, 0),
    "load": _Calls(torch.load, "other.pt"),
    "hub": _Calls(torch.hub.load, "no/such", "model"),
    "pickle": _Calls(pickle.loads, pickle.dumps(_Calls(os.system, "touch hostile"))),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ZOO)
def test_nothing_hostile_runs(
    name: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"w": torch.randn(20, 20)}, "hostile": ZOO[name]}
    torch.save(content, "a.pt", _use_new_zipfile_serialization=zipped)
    before = set(sys.modules)
    assert [row.name for row in analyse("a.pt")] == ["w"]
    assert not Path("hostile").exists()
    assert not {"antigravity", "this"} & (set(sys.modules) - before)
    pickled = pickle.dumps(ZOO[name])
    Path("b.pt").write_bytes(pickled)
    with pytest.raises(CheckpointError, match=r"is no file of torch\.save"):
        analyse("b.pt")
    assert not Path("hostile").exists()


def _with_pickle(path: Path, content: bytes) -> None:
    """A file of torch.save with another pickle, and the bytes of a tensor."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", bytes(1600))


_LAUGHS = b"]q\x00" + b"".join(
    b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"e" + b"q" + bytes([n + 1])
    for n in range(20)
)
BROKEN: dict[str, tuple[bytes, str]] = {
    "memo": (_raw(b"Nr\xff\xff\xff\xff"), "holds a NoneType"),
    "laughs": (_raw(_LAUGHS), "name each other too often"),
    "circle": (_raw(b"]q\x00h\x00a"), "holds no tensors"),
    "deep": (_raw(b"N" + b"\x85" * 100_000), "holds no tensors"),
    "deep key": (_raw(b"}N" + b"\x85" * 100_000 + b"Ns"), "holds no tensors"),
    "list key": (_raw(b"}]Ns"), "holds no tensors"),
    "number": (_raw(b"I" + b"9" * 10_000 + b"\n"), "damaged at byte"),
    "length": (_raw(b"\x8d" + b"\xff" * 8), "bytes of texts"),
    "short": (_raw(b"X\xff\xff\x00\x00"), "ends too early"),
    "underflow": (_raw(b"0" * 50), "damaged at byte"),
    "opcode": (_raw(b"N\xfe"), "damaged at byte"),
    "name": (_raw(b"NN\x93"), "something else than a text"),
    "no stop": (b"\x80\x02" + b"N" * 50, "damaged at byte"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_are_told(name: str, tmp_path: Path) -> None:
    content, sentence = BROKEN[name]
    _with_pickle(tmp_path / "a.pt", content)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        analyse(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in str(refusal.value)
    assert "\n" not in str(refusal.value)


TENSOR = "ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n"


@pytest.mark.parametrize(
    ("size", "offset", "shape", "strides", "sentence"),
    [
        (400, 0, (20, 20), (20, 1), ""),
        (400, 0, (1_000_000, 1_000_000), (0, 0), "takes 3,814,698 MiB in memory"),
        (400, 0, (20, 20), (1 << 40, 1), "reaches beyond its storage"),
        (400, 1, (20, 20), (20, 1), "reaches beyond its storage"),
        (800, 0, (40, 20), (20, 1), "reaches beyond its storage"),
        (400, 0, (-20, -20), (20, 1), "strides are not described"),
        (400, 0, (20, 20), (-20, 1), "strides are not described"),
        (400, 0, (20, 20), (1,), "strides are not described"),
        (400, -1, (20, 20), (20, 1), "strides are not described"),
        (400, 0, (1 << 70, 20), (20, 1), "strides are not described"),
        (-1, 0, (20, 20), (20, 1), "its storage is not described"),
    ],
)
def test_a_tensor_must_lie_in_its_storage(
    size: int,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    sentence: str,
    tmp_path: Path,
) -> None:
    def numbers(values: tuple[int, ...]) -> str:
        return "(" + "".join(f"L{value}L\n" for value in values) + "t"

    text = f"(Vw\n{TENSOR}L{size}L\ntQL{offset}L\n{numbers(shape)}{numbers(strides)}tR"
    _with_pickle(tmp_path / "a.pt", text.encode() + b"d.")
    if not sentence:
        assert [row.name for row in analyse(tmp_path / "a.pt")] == ["w"]
        return
    with pytest.raises(CheckpointError, match=f"tensor w .*{sentence}"):
        analyse(tmp_path / "a.pt")
