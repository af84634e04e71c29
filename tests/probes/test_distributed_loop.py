"""Loops of one's own on several ranks: DDP, FSDP2 and tensor parallelism in plain torch."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from jaynes_callbacks.instruments.distribution import counts_of
from jaynes_callbacks.recorder import Recorder
from tests.probes.collectives import note_records

pytestmark = pytest.mark.usefixtures("unfitted")

Ranks = Callable[..., list[Any]]


class Net(nn.Sequential):
    """The same weights on every rank."""

    def __init__(self, width: int = 7) -> None:
        source = torch.Generator().manual_seed(1)
        first, last = nn.Linear(32, width, bias=False), nn.Linear(width, 32, bias=False)
        super().__init__(first, nn.GELU(), last)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=source)


def _batch() -> torch.Tensor:
    return torch.randn(12, 32, generator=torch.Generator().manual_seed(2))


def _snapshot(model: nn.Module, *batches: torch.Tensor) -> tuple[list[str], torch.Tensor]:
    with Recorder(model) as recorder, torch.no_grad():
        for batch in batches:
            model(batch)
        records = recorder.snapshot()
    return [record.name for record in records], counts_of(records)


def _tensor_parallel(local_output: bool) -> Any:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plan = {
        "0": ColwiseParallel(use_local_output=local_output),
        "2": RowwiseParallel(),
    }
    return _snapshot(parallelize_module(Net(8), mesh, plan), _batch())


@pytest.mark.parametrize("local_output", [True, False])
def test_tensor_parallel_layers_and_activations(local_output: bool, ranks: Ranks) -> None:
    """Each rank has its neurons, be they a DTensor or its own part of one."""
    names, counts = _snapshot(Net(8), _batch())
    for found_names, found in ranks(_tensor_parallel, local_output):
        assert sorted(found_names) == sorted(names) == ["0.weight", "1", "2.weight"]
        assert torch.equal(found[found_names.index("1")], counts[names.index("1")])
        for name in names:
            assert torch.equal(found[found_names.index(name)], counts[names.index(name)]), name


def _gathered() -> Any:
    model = fully_shard(Net())
    with Recorder(model) as recorder, torch.no_grad():
        model(_batch()[dist.get_rank() :: 2])
        # No backward has freed them.
        assert not hasattr(model[0].weight, "placements")
        records = recorder.snapshot()
    return counts_of(records), [record.moved for record in records.select(kind="weight")]


def test_shards_are_the_weights_also_while_they_are_gathered(ranks: Ranks) -> None:
    _, counts = _snapshot(Net(), _batch())
    (first, moved), (second, _) = ranks(_gathered)
    assert torch.equal(first, counts)
    assert torch.equal(second, counts)
    assert moved == [0, 0]


def _mixed() -> Any:
    model = Net()
    fully_shard(model[2])
    with Recorder(model, kinds="weight") as recorder:
        first = recorder.snapshot(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        second = recorder.snapshot(1)
        state = io.BytesIO()
        torch.save(recorder.state_dict(), state)
        state.seek(0)
        torch.load(state, weights_only=True)
    return [(record.name, record.gap_se, record.moved) for record in (*first, *second)]


def test_whole_and_sharded_weights_in_one_model(ranks: Ranks) -> None:
    """Rank 0 follows each weight from its start; rank 1 but the whole one, of which it has all."""
    rank_0, rank_1 = ranks(_mixed)
    assert [name for name, _, _ in rank_0] == ["0.weight", "2.weight"] * 2
    assert [moved for _, _, moved in rank_0] == pytest.approx([0, 0, 0.5, 0.5], abs=1e-6)
    assert [moved for _, _, moved in rank_1] == pytest.approx(
        [0, math.nan, 0.5, math.nan], abs=1e-6, nan_ok=True
    )
    assert [row[:2] for row in rank_0] == [row[:2] for row in rank_1]
    assert all(math.isfinite(error) for _, error, _ in rank_0)


def _plain_loop() -> Any:
    model = Net()
    ddp = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    calls: list[dict[str, int]] = []
    note_records(calls)
    with Recorder(model) as recorder:
        for step in range(3):
            loss = ddp(_batch()[dist.get_rank() :: 2]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            records = recorder.snapshot(step)
    return counts_of(records), calls


def test_a_loop_of_one_s_own(ranks: Ranks) -> None:
    (first, calls), (second, _) = ranks(_plain_loop)
    assert torch.equal(first, second)
    assert first.sum(-1).tolist() == [224, 224, 12 * 7]
    assert calls == [{"allreduce_": 2, "allgather_": 2}, {"allreduce_": 1}, {"allreduce_": 1}]
