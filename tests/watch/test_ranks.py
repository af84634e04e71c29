from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.record import Stream
from jaynes_callbacks.watch import ranks as module
from jaynes_callbacks.watch.ranks import Counted, RankSum
from tests.watch.collectives import Collectives

Ranks = Callable[..., list[Any]]
CPU = torch.device("cpu")


def _counted(**values: int) -> Counted:
    """So many values of each stream, all in code 7 of the second group of samples."""
    counts = torch.zeros(len(values), 2, CODES, dtype=torch.int64)
    counts[:, 1, 7] = torch.tensor(list(values.values()), dtype=torch.int64)
    return Counted([Stream("iota", name, (row,)) for row, name in enumerate(values)], counts)


def _numbers(total: Counted) -> dict[str, int]:
    return {
        stream.name: n
        for stream, n in zip(total.streams, total.counts.sum((1, 2)).tolist(), strict=True)
    }


def test_alone_there_is_nothing_to_add() -> None:
    alone = RankSum(groups=2)
    assert _numbers(alone.sum(_counted(a=3, b=0, c=1), CPU)) == {"a": 3, "c": 1}
    alone.abstain(CPU)
    assert not alone.streams


RECORDS: list[tuple[dict[str, int], dict[str, int]]] = [
    ({"a": 1}, {"b": 2, "a": 3}),  # names are exchanged
    ({"a": 5}, {"b": 7, "a": 11}),
    ({"a": 13}, {}),  # a rank without a forward
    ({}, {}),
    ({"a": 0, "c": 17}, {"d": 19, "b": 23}),  # different branches, both new
    ({"c": 29, "a": 31}, {"d": 37}),
]


def _add_all(records: Any) -> Any:
    adding, found = RankSum(groups=2), []
    for of_rank in records:
        with Collectives() as collectives:
            total = adding.sum(_counted(**of_rank[dist.get_rank()]), CPU)
        assert (total.counts.sum((1, 2)) == total.counts[:, 1, 7]).all()
        found.append((_numbers(total), dict(collectives.calls)))
    return found, [(stream.name, stream.shape) for stream in adding.streams]


def test_ranks_that_see_other_streams(ranks: Ranks) -> None:
    first, second = ranks(_add_all, RECORDS)
    assert first == second
    found, agreed = first
    assert [numbers for numbers, _ in found] == [
        {"a": 4, "b": 2},
        {"a": 16, "b": 7},
        {"a": 13},
        {},
        {"b": 23, "c": 17, "d": 19},
        {"a": 31, "c": 29, "d": 37},
    ]
    # One all_reduce for each record, and an exchange only where a stream was new.
    exchange = {"allreduce_": 2, "allgather_": 2}
    one = {"allreduce_": 1}
    assert [calls for _, calls in found] == [exchange, one, one, one, exchange, one]
    assert agreed == [("a", (1,)), ("b", (0,)), ("c", (1,)), ("d", (0,))]


def _fail_on_one() -> tuple[list[str], dict[str, int]]:
    adding, said = RankSum(groups=2), []
    for failing in (1, 0, None):
        try:
            if dist.get_rank() == failing:
                adding.abstain(CPU)
            else:
                total = adding.sum(_counted(a=2), CPU)
        except RuntimeError as error:
            said.append(str(error))
    return said, _numbers(total)


def test_a_rank_that_cannot_count_lets_none_wait(ranks: Ranks) -> None:
    for said, numbers in ranks(_fail_on_one):
        assert [text.split(",")[0] for text in said] == ["1 of 2 ranks failed to count"]
        assert numbers == {"a": 4}


@pytest.mark.parametrize(
    ("backends", "wanted", "device"),
    [
        ("cpu:gloo,cuda:gloo", "cpu", "cpu"),
        ("cpu:gloo,cuda:nccl", "cuda:1", "cuda:1"),
        ("cpu:gloo,cuda:nccl", "cpu", "cpu"),
        ("cuda:nccl", "cpu", "cuda"),
    ],
)
def test_counts_go_where_the_group_speaks(
    backends: str, wanted: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_backend_config", lambda: backends)
    assert module._collective_device(torch.device(wanted)) == torch.device(device)
