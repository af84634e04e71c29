"""What cannot be read says in one sentence what, why and what to do."""

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from jaynes_callbacks import analyse
from jaynes_callbacks.files import CheckpointError

State = dict[str, Tensor]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _truncated(save: Callable[[State, Path], object]) -> Callable[[State, Path], None]:
    def write(state: State, path: Path) -> None:
        save(state, path)
        _truncate(path)

    return write


class _Lost:
    """Pickled as a tensor whose strides are no numbers."""

    def __reduce__(self) -> tuple[Any, ...]:
        tensor = torch.randn(20, 20)
        function, (storage, offset, shape, _, *rest) = tensor.__reduce_ex__(2)
        return function, (storage, offset, shape, ("a", "b"), *rest)


REFUSED: dict[str, tuple[Callable[[State, Path], object], str]] = {
    "notes.txt": (lambda _, path: path.write_text("hello"), "its name ends in none of"),
    "text.pt": (
        lambda _, path: path.write_text("hello"),
        r"\(it does not begin as a pickle does\)",
    ),
    "empty.pt": (lambda _, path: path.touch(), r"is no whole file of torch.save \(it is empty\)"),
    "half.pt": (_truncated(torch.save), r"no whole file of torch.save .* may be truncated"),
    "half.safetensors": (_truncated(save_file), "no whole safetensors file .* may be truncated"),
    "empty.safetensors": (lambda _, path: path.touch(), "no whole safetensors file"),
    "half.npz": (
        _truncated(lambda state, path: np.savez(path, a=state["net.fc1.weight"].numpy())),
        "no whole archive of numpy.savez",
    ),
    "code.ckpt": (
        lambda _, path: torch.save(argparse.Namespace(lr=0.1), path),
        "holds argparse.Namespace, not tensors by name; save a model's state_dict",
    ),
    "beside.ckpt": (
        lambda _, path: torch.save({"args": argparse.Namespace(lr=0.1)}, path),
        r"holds no tensors; .* only code of their own could make \(argparse.Namespace\)",
    ),
    "shadow.ckpt": (
        lambda _, path: torch.save({"state_dict": {"w": _Lost()}}, path),
        r"tensor w cannot be read \(its storage, shape or strides are not described\)",
    ),
    "function.pt": (
        lambda _, path: path.write_bytes(pickle.dumps({"a": print})),
        r"is no file of torch.save \(it is a plain pickle of a dict\); expected a state dict",
    ),
    "list.pt": (lambda _, path: torch.save(3, path), "holds a int, not tensors by name"),
    "none.pt": (lambda _, path: torch.save({}, path), "holds no tensors"),
    "bias.pt": (
        lambda _, path: torch.save({"bias": torch.ones(9)}, path),
        r"no weight to measure: all 1 tensors are left out \(fewer than 2 dimensions\)",
    ),
    "ints.npz": (
        lambda _, path: np.savez(path, a=np.ones((20, 20), int)),
        "of dtype int64, not real floating-point",
    ),
    "objects.npz": (
        lambda _, path: np.savez(path, a=np.array([[{}] * 9] * 9)),
        "an array of Python objects, which is a pickle",
    ),
    "x.safetensors.index.json": (lambda _, path: path.write_text("{}"), "no index of shards"),
    "y.bin.index.json": (
        lambda _, path: path.write_text(json.dumps({"weight_map": {"a": "../secret.bin"}})),
        r"names the shard '../secret.bin', which is not beside it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str, state: State, tmp_path: Path) -> None:
    write, sentence = REFUSED[name]
    write(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        analyse(tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert str(tmp_path / name) in str(refusal.value)


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*nothing.pt"):
        analyse(tmp_path / "nothing.pt")


def test_a_directory_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint: no file in it ends in"):
        analyse(tmp_path)
    below = r"folders below it are not searched: name them, as in .*/\*/checkpoints"
    with pytest.raises(CheckpointError, match=below):
        analyse(tmp_path)


def test_a_broken_shard_leaves_the_others(state: State, tmp_path: Path) -> None:
    halves = {"one.safetensors": {}, "two.safetensors": {}, "three.safetensors": {}}
    names = ["net.fc1.weight", "net.conv.weight", "net.half.weight"]
    for shard, name in zip(halves, names, strict=True):
        save_file({name: state[name]}, tmp_path / shard)
    place = dict(zip(names, halves, strict=True))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}))
    _truncate(tmp_path / "two.safetensors")
    (tmp_path / "three.safetensors").unlink()
    with pytest.warns(UserWarning, match="safetensors") as said:
        rows = analyse(index)
    assert [row.name for row in rows] == ["net.fc1.weight"]
    assert "two.safetensors is no whole safetensors file" in str(said[0].message)
    assert "three.safetensors is missing" in str(said[1].message)


def test_a_shard_that_lacks_a_tensor_says_so(state: State, tmp_path: Path) -> None:
    save_file({"a": state["net.fc1.weight"]}, tmp_path / "one.safetensors")
    place = {"a": "one.safetensors", "b": "one.safetensors"}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    with pytest.warns(UserWarning, match="it lacks b, which"):
        assert len(analyse(tmp_path)) == 1


def test_a_pattern_that_matches_nothing(state: State, tmp_path: Path) -> None:
    from jaynes_callbacks import measure_checkpoint

    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"pattern 'nit.*' matches no tensor"):
        measure_checkpoint(tmp_path / "a.safetensors", include="nit.*")
    assert len(measure_checkpoint(tmp_path / "a.safetensors", exclude="*conv*")) == 4
