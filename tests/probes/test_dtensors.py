"""Mostly every rank of a mesh in turn, in one process: nothing here speaks to another one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from jaynes_callbacks.probes.dtensors import (
    is_sharded,
    local_shard,
    owned_values,
    reason_not_countable_in_parts,
)
from jaynes_callbacks.probes.parameters import CurrentValues, WeightFinder, WeightStream, sample
from jaynes_callbacks.probes.selection import Selection, Skipped

OnEveryRank = Callable[..., list[Any]]
Ranks = Callable[..., list[Any]]


@pytest.fixture
def on_every_rank() -> Iterator[OnEveryRank]:
    """Call a function with the mesh as each of its ranks sees it."""

    def call(function: Callable[..., Any], *shape: int) -> list[Any]:
        size, results = torch.Size(shape).numel(), []
        for rank in range(size):
            dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
            names = ("outer", "inner")[: len(shape)]
            results.append(function(init_device_mesh("cpu", shape, mesh_dim_names=names)))
            dist.destroy_process_group()
        return results

    yield call
    if dist.is_initialized():
        dist.destroy_process_group()


def _spread(values: Tensor, mesh: Any, *placements: Any) -> DTensor:
    return distribute_tensor(values, mesh, placements, src_data_rank=None)


@pytest.mark.parametrize(
    ("shape", "placements"),
    [
        ((2,), (Shard(0),)),  # 7 rows: 4 and 3
        ((2,), (Shard(1),)),
        ((8,), (Shard(0),)),  # rows for seven ranks only
        ((2, 2), (Replicate(), Shard(0))),  # HSDP
        ((2, 2), (Shard(0), Replicate())),
        ((2, 3), (Shard(1), Shard(0))),
        ((2, 2), (Shard(0), Shard(0))),
        ((2, 1), (Shard(0), Replicate())),
    ],
)
def test_the_shares_of_all_ranks_hold_every_value_once(
    shape: tuple[int, ...], placements: tuple[Any, ...], on_every_rank: OnEveryRank
) -> None:
    values = torch.arange(35.0).view(7, 5)

    def of_rank(mesh: Any) -> Tensor:
        tensor = _spread(values, mesh, *placements)
        assert is_sharded(tensor)
        assert not reason_not_countable_in_parts(tensor)
        return owned_values(tensor).flatten()

    shares = on_every_rank(of_rank, *shape)
    assert torch.equal(torch.cat(shares).sort().values, values.flatten())


def _fully_sharded(shape: tuple[int, ...], tensor_parallel: bool) -> Tensor:
    values = torch.arange(35.0).view(7, 5)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("outer", "inner")[: len(shape)])
    layer = nn.Linear(5, 7, bias=False)
    layer.weight = nn.Parameter(values)
    if tensor_parallel:
        layer.weight = nn.Parameter(_spread(values, mesh["inner"], Shard(0)))
        mesh = mesh["outer"]
    fully_shard(layer, mesh=mesh)
    assert is_sharded(layer.weight)
    return owned_values(layer.weight).flatten()


@pytest.mark.parametrize(
    ("shape", "tensor_parallel"), [((2,), False), ((2, 2), False), ((2, 2), True)]
)
def test_fully_sharded_layers(shape: tuple[int, ...], tensor_parallel: bool, ranks: Ranks) -> None:
    """FSDP, copies of it (HSDP), and FSDP over tensor parallelism; 7 rows are uneven for each."""
    shares = ranks(_fully_sharded, shape, tensor_parallel, size=torch.Size(shape).numel())
    assert torch.equal(torch.cat(shares).sort().values, torch.arange(35.0))


@pytest.mark.parametrize("shape", [(2,), (2, 2)])
def test_copies_are_whole_everywhere_but_shared_once(
    shape: tuple[int, ...], on_every_rank: OnEveryRank
) -> None:
    values = torch.randn(6, 4)

    def of_rank(mesh: Any) -> int:
        tensor = _spread(values, mesh, *[Replicate()] * mesh.ndim)
        assert not is_sharded(tensor)
        assert torch.equal(local_shard(tensor), values)
        return owned_values(tensor).numel()

    assert on_every_rank(of_rank, *shape) == [24] + [0] * (torch.Size(shape).numel() - 1)


def test_one_rank_alone_holds_the_whole(on_every_rank: OnEveryRank) -> None:
    values = torch.randn(6, 4)

    def of_rank(mesh: Any) -> None:
        tensor = _spread(values, mesh, Shard(0))
        assert not is_sharded(tensor)
        assert torch.equal(local_shard(tensor), values)
        assert torch.equal(owned_values(tensor), values)

    on_every_rank(of_rank, 1)


def test_a_plain_tensor_is_its_own_share() -> None:
    values = torch.randn(3, 3, requires_grad=True)
    assert not is_sharded(values)
    assert not reason_not_countable_in_parts(values)
    for part in (owned_values(values), local_shard(values)):
        assert part.data_ptr() == values.data_ptr()
        assert not part.requires_grad


def find_weights(
    model: nn.Module, selection: Selection
) -> tuple[list[WeightStream], list[Skipped]]:
    return WeightFinder(model, selection).find(CurrentValues())


def _find(mesh: Any, *placements: Any) -> tuple[list[WeightStream], list[Any]]:
    model = nn.Module()
    model.weight = nn.Parameter(_spread(torch.arange(1.0, 8001.0).view(80, 100), mesh, *placements))
    return find_weights(model, Selection.of("weight", "*", (), 8000))


def test_a_sharded_parameter_keeps_its_shape_and_size(on_every_rank: OnEveryRank) -> None:
    def of_rank(mesh: Any) -> Tensor:
        (weight,), _ = _find(mesh, Shard(0))
        assert weight.sharded
        assert weight.stream.shape == (80, 100)
        return sample(weight.value())

    halves, thirds = on_every_rank(of_rank, 2), on_every_rank(of_rank, 3)
    # Rank 0's share in a sample of at most 4096; what two ranks remember is none of three's.
    assert 1024 < len(halves[0]) <= 2048
    assert 300 < len(thirds[0]) <= 1366
    assert halves[0].max() <= 4000
    assert [len(values) for values in (*halves[1:], *thirds[1:])] == [0] * 3


def test_sums_that_are_still_to_be_taken_are_skipped(on_every_rank: OnEveryRank) -> None:
    def of_rank(mesh: Any) -> Any:
        model = nn.Module()
        partial = DTensor.from_local(torch.ones(80, 100), mesh, [Partial()], run_check=False)
        model.weight = nn.Parameter(partial)
        return find_weights(model, Selection.of("weight", "*", (), 64))

    for weights, skipped in on_every_rank(of_rank, 2):
        assert not weights
        assert skipped == [("weight", "a sum over ranks that is still to be taken (Partial)")]


def test_what_the_first_fsdp_has_flattened_is_named() -> None:
    model = nn.Module()
    model._fsdp_wrapped_module = nn.Module()
    model._fsdp_wrapped_module.weight = nn.Parameter(torch.randn(500))
    weights, ((name, reason),) = find_weights(model, Selection.of("weight", "*", (), 64))
    assert not weights
    assert name == "_fsdp_wrapped_module.weight"
    assert "flattened by FullyShardedDataParallel" in reason
