"""The same weights in every format: the same records."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import find_checkpoints, open_checkpoint

State = dict[str, Tensor]
AssertSame = Callable[[Records, Mapping[str, Record]], None]
WATCHED = ["net.fc1.weight", "net.conv.weight", "net.half.weight", "net.double.weight"]
WATCHED += ["net.holes.weight"]


def _lightning(state: State, path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.randn(300, 400)}}}
    torch.save(
        {
            "state_dict": state,
            "optimizer_states": [optimizer],
            "pytorch-lightning_version": "2.6.0",
            "global_step": 70,
            "epoch": 3,
        },
        path,
    )


def _legacy(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def _arrays(state: State, path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})


def _compressed(state: State, path: Path) -> None:
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in state.items()})


def _other_order(state: State, path: Path) -> None:
    arrays: dict[str, Any] = {}
    for number, (name, tensor) in enumerate(state.items()):
        array = tensor.numpy()
        foreign = array.astype(array.dtype.newbyteorder(">"))
        arrays[name] = foreign if number % 2 else np.asfortranarray(array)
    np.savez(path, **arrays)


def _sharded(state: State, path: Path) -> None:
    place = {}
    for number, name in enumerate(state):
        place[name] = f"model-{number % 3}.safetensors"
    for shard in set(place.values()):
        save_file({n: state[n] for n in place if place[n] == shard}, path.parent / shard)
    path.write_text(json.dumps({"weight_map": place}))


FORMATS: dict[str, Callable[[State, Path], object]] = {
    "a.safetensors": lambda state, path: save_file(state, path),
    "model.safetensors.index.json": _sharded,
    "a.pt": torch.save,
    "nested.pth": lambda state, path: torch.save({"model": state, "optimizer": [state]}, path),
    "old.bin": _legacy,
    "epoch=3.ckpt": _lightning,
    "a.npz": _arrays,
    "small.npz": _compressed,
    "foreign.npz": _other_order,
}


@pytest.mark.parametrize("name", FORMATS)
def test_equal_records(name: str, state: State, tmp_path: Path, assert_same: AssertSame) -> None:
    FORMATS[name](state, tmp_path / name)
    expected = {row.name: row for row in analyse({name: state[name] for name in WATCHED})}
    assert_same(analyse(tmp_path / name), expected)
    assert_same(analyse(str(tmp_path if "json" in name else tmp_path / name)), expected)


def test_a_lightning_file_says_when(state: State, tmp_path: Path) -> None:
    _lightning(state, tmp_path / "a.ckpt")
    rows = analyse(tmp_path / "a.ckpt")
    assert {(row.step, row.epoch) for row in rows} == {(70, 3)}
    assert {row.run for row in rows} == {str(tmp_path / "a.ckpt")}
    assert {row.verdict for row in rows} == {""}


def test_parts_of_a_file_that_are_no_weights_are_left_out(state: State, tmp_path: Path) -> None:
    torch.save({"net": state, "optimizer": {"moment": torch.randn(9, 9)}}, tmp_path / "a.pt")
    names = [entry.name for entry in open_checkpoint(tmp_path / "a.pt").entries]
    assert names == [f"net.{name}" for name in state]


def test_tied_weights_are_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 40))
    net[2].weight = net[0].weight
    torch.save(net.state_dict(), tmp_path / "a.pt")
    save_model(net, str(tmp_path / "a.safetensors"))
    for name in ("a.pt", "a.safetensors"):
        entries = open_checkpoint(tmp_path / name).entries
        tied = [{entry.name, *entry.aliases} for entry in entries if entry.aliases]
        assert tied == [{"0.weight", "2.weight"}], name
        assert len(analyse(tmp_path / name)) == 2


def test_weights_that_lie_transposed_in_the_file(
    tmp_path: Path, generator: torch.Generator, assert_same: AssertSame
) -> None:
    state = {"a": torch.randn(60, 50, generator=generator).t(), "b": torch.randn(90, 90)[::2, ::3]}
    torch.save(state, tmp_path / "a.pt")
    assert_same(analyse(tmp_path / "a.pt"), {row.name: row for row in analyse(state)})


def test_a_directory_of_a_model_saved_twice_is_one(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "pytorch_model.bin")
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "other.pt")
    found = [path.name for path in find_checkpoints(tmp_path)]
    assert found == ["model.safetensors", "other.pt"]


def test_an_index_and_its_shards_are_one(state: State, tmp_path: Path) -> None:
    _sharded(state, tmp_path / "model.safetensors.index.json")
    assert [path.name for path in find_checkpoints(tmp_path)] == ["model.safetensors.index.json"]
