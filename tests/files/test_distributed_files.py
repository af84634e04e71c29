"""Directories of torch.distributed.checkpoint: in one part, in several, broken and hostile."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from jaynes_callbacks import Record, Records, analyse
from jaynes_callbacks.files import CheckpointError, find_checkpoints, open_checkpoint

AssertSame = Callable[[Records, Mapping[str, Record]], None]
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def _save(state: dict[str, Any], path: Path) -> Path:
    dcp.save(state, checkpoint_id=path, no_dist=True)
    return path


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in state.items() if t.dim() > 1 and t.is_floating_point()}


def test_equal_records(state: dict[str, Tensor], tmp_path: Path, assert_same: AssertSame) -> None:
    weights = _weights(state)
    path = _save({"model": weights, "optimizer": {"moment": torch.randn(50, 50)}}, tmp_path / "d")
    weights.pop("net.tiny.weight")
    assert_same(analyse(path), {row.name: row for row in analyse(weights)})
    assert find_checkpoints(tmp_path) == [path]
    assert all(entry.mapped for entry in open_checkpoint(path).entries)


def test_a_tensor_in_several_parts(
    tmp_path: Path, generator: torch.Generator, assert_same: AssertSame
) -> None:
    """As several ranks write it: the index joins what one process saved apart."""
    whole = torch.randn(100, 90, generator=generator)
    path = _save({"one": whole[:60].clone(), "two": whole[60:].clone()}, tmp_path / "d")
    index = pickle.loads((path / ".metadata").read_bytes())
    first, second = (index.state_dict_metadata.pop(name) for name in ("one", "two"))
    first.chunks.append(ChunkStorageMetadata(torch.Size([60, 0]), torch.Size([40, 90])))
    first.size = torch.Size([100, 90])
    index.state_dict_metadata["w"] = first
    index.planner_data = {"w": ("w",)}
    places = {key.fqn: place for key, place in index.storage_data.items()}
    index.storage_data = {
        MetadataIndex("w", torch.Size([0, 0])): places["one"],
        MetadataIndex("w", torch.Size([60, 0])): places["two"],
    }
    assert second.size == torch.Size([40, 90])
    (path / ".metadata").write_bytes(pickle.dumps(index))
    assert_same(analyse(path), {row.name: row for row in analyse({"w": whole})})
    first.chunks.pop()
    (path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(CheckpointError, match="lacks a part of a tensor"):
        analyse(path)


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hostile",)


def test_an_index_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = _save({"w": torch.randn(20, 20)}, tmp_path / "d")
    (path / ".metadata").write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(CheckpointError, match=r"it holds posix.system, expected Metadata"):
        analyse(path)
    assert not Path("hostile").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"a": 1})])
def test_no_index(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match="no readable index of a distributed checkpoint"):
        analyse(tmp_path)


def test_a_missing_part_is_said_once(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = _save(_weights(state), tmp_path / "d")
    (file,) = path.glob("*.distcp")
    gone = file.rename(file.with_suffix(".gone"))
    with pytest.raises(CheckpointError, match="cannot be read as a part of a distributed"):
        analyse(path)
    file.write_bytes(gone.read_bytes()[:550_000])
    with pytest.warns(UserWarning, match=r"it may be missing or truncated") as said:
        rows = analyse(path)
    assert len(said) == 1
    assert 0 < len(rows) < 5


def test_parts_elsewhere_are_refused(tmp_path: Path) -> None:
    path = _save({"w": torch.randn(20, 20)}, tmp_path / "d")
    index = pickle.loads((path / ".metadata").read_bytes())
    for place in index.storage_data.values():
        place.relative_path = "../secret.distcp"
    (path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(CheckpointError, match=r"'../secret.distcp', which is not beside it"):
        analyse(path)
