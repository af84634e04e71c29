"""Whole runs on several ranks, against one process over the same data."""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.multiprocessing import ProcessRaisedException

from jaynes_callbacks.probes.weights import WeightWatch
from tests.probes import training
from tests.probes.collectives import note_records
from tests.probes.training import BATCHES, Exact, Sharded, dataset, history, train

Ranks = Callable[..., list[Any]]


#: The records of one fit: the untouched network, then after each batch.
STEPS = list(range(len(BATCHES) + 1))
#: Names are exchanged when the first record finds streams, and never again.
CALLS = [{"allreduce_": 2, "allgather_": 2}] + [{"allreduce_": 1}] * len(BATCHES)
#: Weights in parts need their sums by row and column first; the untouched ones at the start.
CALLS_OF_PARTS = CALLS[:1] + [{"allreduce_": 2}] * len(BATCHES)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The dataset of one process."""
    path = tmp_path_factory.mktemp("alone")
    train(path, Exact(), devices=1)
    return dataset(path)


def _same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def _ddp(path: Path, size: int, options: dict[str, Any]) -> Any:
    calls: list[dict[str, int]] = []
    note_records(calls)
    trainer = train(path, Exact(**options), devices=size, strategy="ddp")
    return history(trainer), calls


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.sampled(2)
def test_ddp_records_what_one_process_does(
    size: int, ranks: Ranks, alone: pd.DataFrame, tmp_path: Path
) -> None:
    """With a last batch that the ranks cannot share evenly."""
    found = ranks(_ddp, tmp_path, size, {}, size=size)
    _same(dataset(tmp_path), alone)
    assert sorted(alone.step.unique()) == STEPS
    assert alone[alone.step == STEPS[-1]].moved.min() > 0.1
    for remembered, calls in found:
        _same(remembered, found[0][0])
        assert calls == CALLS
    # The ranks' directories are named by their number: only the first one writes.
    assert [path.parent.name for path in tmp_path.glob("*/jaynes")] == ["0"]


def test_ranks_that_take_other_branches_or_none(ranks: Ranks, tmp_path: Path) -> None:
    found = ranks(_ddp, tmp_path, 3, {"branching": True}, size=3)
    for remembered, calls in found:
        _same(remembered, found[0][0])
        assert calls == CALLS
    iota = found[0][0].query("kind == 'iota'")
    assert sorted(iota.name.unique()) == ["even", "odd"]
    for rank, name in enumerate(("even", "odd")):
        mine = iota[iota.name == name]
        # 7 neurons of a third of the rows each; the first record has the first batch.
        first = mine.iloc[0]
        rows = [len(range(BATCHES[0])[:3]), len(range(BATCHES[0])[3:6])]
        assert first.n + first.zeros == 7 * rows[rank]


def _sharded(path: Path, **options: Any) -> Any:
    calls: list[dict[str, int]] = []
    note_records(calls)
    trainer = train(path, Sharded(), devices=2, strategy=ModelParallelStrategy(2, 1), **options)
    return trainer, history(trainer), calls


def _sharded_once(path: Path) -> Any:
    return _sharded(path)[1:]


def test_fully_sharded_weights_are_counted_once(
    ranks: Ranks, alone: pd.DataFrame, tmp_path: Path
) -> None:
    (first, calls), (second, calls_of_second) = ranks(_sharded_once, tmp_path)
    ours = dataset(tmp_path)
    exact = "step kind name shape n zeros nonfinite codes counts gap q best_family verdict".split()
    _same(ours[exact], alone[exact])
    assert calls == calls_of_second == CALLS_OF_PARTS
    # What needs the values and not their counts: the maximum is its bin's upper edge.
    weights, theirs = ours[ours.kind == "weight"], alone[alone.kind == "weight"]
    assert not weights.paper_counts.map(len).any()
    assert (theirs["max"] < weights["max"]).all()
    assert (weights["max"] <= theirs["max"] * 17 / 16).all()
    assert weights.moved.min() == 0
    assert weights[weights.step == STEPS[-1]].moved.min() > 0.1
    _same(second.drop(columns="moved"), first.drop(columns="moved"))
    assert second[second.kind == "weight"].moved.isna().all()


def _sharded_and_resumed(path: Path) -> None:
    _sharded(path / "whole", max_epochs=2)
    trainer, *_ = _sharded(path / "resumed", max_epochs=1)
    trainer.save_checkpoint(path / "checkpoint")
    _sharded(path / "resumed", max_epochs=2, ckpt_path=path / "checkpoint")


def test_a_resumed_sharded_run_is_the_uninterrupted_one(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_sharded_and_resumed, tmp_path)
    whole = dataset(tmp_path / "whole")
    assert len(whole.step.unique()) == 2 * len(BATCHES) + 1
    _same(dataset(tmp_path / "resumed"), whole)


BY_EPOCH = {"iota_from": "validation", "every_n_steps": None}


def _validating(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(path, Exact(), watch=BY_EPOCH, devices=2, strategy="ddp")
    return [str(warning.message) for warning in said if "equilibrium" in str(warning.message)]


def test_activations_of_validation_without_advice(ranks: Ranks, tmp_path: Path) -> None:
    assert ranks(_validating, tmp_path) == [[], []]
    train(tmp_path / "alone", Exact(), watch=BY_EPOCH, devices=1)
    _same(dataset(tmp_path), dataset(tmp_path / "alone"))


def _failing_once(path: Path) -> Any:
    read, calls = WeightWatch.read, []

    def broken(self: WeightWatch) -> Any:
        calls.append(None)
        if len(calls) == 5 and dist.get_rank() == 1:
            raise MemoryError("no room on rank 1")
        return read(self)

    WeightWatch.read = broken  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = train(path, Exact(), devices=2, strategy="ddp")
    return history(trainer), [
        str(each.message) for each in said if "no record by" in str(each.message)
    ]


def test_a_rank_that_cannot_count_costs_one_record_and_nothing_else(
    ranks: Ranks, tmp_path: Path
) -> None:
    (first, said_by_first), (second, said_by_second) = ranks(_failing_once, tmp_path)
    _same(first, second)
    assert first.step.unique().tolist() == [0, 1, 3]
    (said,) = said_by_first
    assert "1 of 2 ranks failed to count" in said
    (said,) = said_by_second
    assert "MemoryError: no room on rank 1" in said


def test_an_exception_on_one_rank_ends_the_run(ranks: Ranks, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ProcessRaisedException, match="broken on rank 1"):
        ranks(_ddp, tmp_path, 2, {"breaking": True})
    # Sooner than rank 1 would give up waiting for a collective that rank 0 never enters.
    assert time.monotonic() - began < 100
    # The launcher kills rank 0, perhaps while it computes the second record.
    assert dataset(tmp_path).step.unique().tolist() in ([0], [0, 1])


@pytest.mark.parametrize("start", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_lightning_s_own_launcher(start: Any, alone: pd.DataFrame, tmp_path: Path) -> None:
    train(tmp_path, Exact(), devices=2, strategy=DDPStrategy(start_method=start))
    _same(dataset(tmp_path), alone)


TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node 2".split()


def _launched(launch: list[str], path: Path, *options: str) -> int:
    command = [sys.executable, *launch, training.__file__, str(path), *options]
    # Lightning starts the script anew: as that of the rank that it is.
    environment = {name: value for name, value in os.environ.items() if "RANK" not in name}
    return subprocess.run(command, timeout=240, capture_output=True, env=environment).returncode


@pytest.mark.slow
@pytest.mark.parametrize("launch", [TORCHRUN, []])
def test_a_script_under_torchrun_or_started_again_by_lightning(
    launch: list[str], alone: pd.DataFrame, tmp_path: Path
) -> None:
    assert _launched(launch, tmp_path) == 0
    _same(dataset(tmp_path), alone)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [TORCHRUN, []])
def test_a_script_ends_when_one_rank_raises(launch: list[str], tmp_path: Path) -> None:
    assert _launched(launch, tmp_path, "breaking") != 0
    assert sorted(dataset(tmp_path).step.unique()) == [0, 1]
