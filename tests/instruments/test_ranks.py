from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from jaynes_callbacks.instruments import ranks as module
from jaynes_callbacks.instruments.base import Quantity, Slot, State
from jaynes_callbacks.instruments.ranks import RankReduction
from jaynes_callbacks.records.stream import Stream
from tests.probes.collectives import Collectives

Ranks = Callable[..., list[Any]]
CPU = torch.device("cpu")
#: One instrument that counts, and one that uses every reduction.
QUANTITIES = {
    "counts": {"n": Quantity(dtype=torch.int64)},
    "extremes": {
        "total": Quantity((2,)),
        "largest": Quantity(reduction="max"),
        "smallest": Quantity(reduction="min"),
        "of_rank": Quantity(reduction=None),
    },
}


def _counted(**values: int) -> State:
    """So many values of each stream, of the second group of samples."""
    slots = [Slot(Stream("iota", name, (row,)), 1) for row, name in enumerate(values)]
    n = torch.tensor(list(values.values()), dtype=torch.int64)
    return State(slots, {"n": n}, [True] * len(slots))


def _adding() -> RankReduction:
    return RankReduction({"counts": QUANTITIES["counts"]})


def _sum(adding: RankReduction, own: State | None) -> State:
    states, errors = adding.reduce({"counts": own}, CPU)
    if errors:
        raise errors["counts"]
    return states["counts"]


def _numbers(total: State) -> dict[str, int]:
    assert all(slot.group == 1 for slot in total.slots)
    names = [slot.stream.name for slot in total.slots]
    return {name: n for name, n in zip(names, total["n"].tolist(), strict=True) if n}


def test_alone_there_is_nothing_to_add() -> None:
    alone = _adding()
    assert _numbers(_sum(alone, _counted(a=3, c=1))) == {"a": 3, "c": 1}
    assert alone.reduce({"counts": None}, CPU) == ({}, {})


RECORDS: list[tuple[dict[str, int], dict[str, int]]] = [
    ({"a": 1}, {"b": 2, "a": 3}),  # names are exchanged
    ({"a": 5}, {"b": 7, "a": 11}),
    ({"a": 13}, {}),  # a rank without a forward
    ({}, {}),
    ({"a": 0, "c": 17}, {"d": 19, "b": 23}),  # different branches, both new
    ({"c": 29, "a": 31}, {"d": 37}),
]


def _add_all(records: Any) -> Any:
    adding, found = _adding(), []
    for of_rank in records:
        with Collectives() as collectives:
            total = _sum(adding, _counted(**of_rank[dist.get_rank()]))
        found.append((_numbers(total), dict(collectives.calls)))
    agreed = [(slot.stream.name, slot.stream.shape) for slot in adding.agreed["counts"]]
    return found, agreed


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
    adding, said = _adding(), []
    for failing in (1, 0, None):
        try:
            total = _sum(adding, None if dist.get_rank() == failing else _counted(a=2))
        except RuntimeError as error:
            said.append(str(error))
    return said, _numbers(total)


def test_a_rank_that_cannot_count_lets_none_wait(ranks: Ranks) -> None:
    for said, numbers in ranks(_fail_on_one):
        assert [text.split(",")[0] for text in said] == ["1 of 2 ranks failed to count"] * 2
        assert numbers == {"a": 4}


def _every_reduction() -> Any:
    rank = dist.get_rank()
    shared, own = Slot(Stream("weight", "parts")), Slot(Stream("weight", "whole"))
    extremes = State(
        [shared, own],
        {
            "total": torch.tensor([[0.1, 1.0], [5.0, 5.0]], dtype=torch.float64) * (rank + 1),
            "largest": torch.tensor([rank - 3.0, rank], dtype=torch.float64),
            "smallest": torch.tensor([rank + 3.0, rank], dtype=torch.float64),
            "of_rank": torch.tensor([rank, rank], dtype=torch.float64),
        },
        [True, False],
    )
    reduction = RankReduction(QUANTITIES)
    found = []
    for _ in range(2):
        with Collectives() as collectives:
            # The large count would lose its last digit if it were rounded to single precision.
            states, errors = reduction.reduce(
                {"counts": _counted(a=2**30 + rank), "extremes": extremes}, CPU
            )
        assert not errors
        whole = states["extremes"]
        rows = {
            slot.stream.name: [whole[name][row].tolist() for name in QUANTITIES["extremes"]]
            for row, slot in enumerate(whole.slots)
        }
        found.append((rows, _numbers(states["counts"]), dict(collectives.calls)))
    return found


def test_each_quantity_is_reduced_in_its_way_and_what_is_not_shared_is_left(ranks: Ranks) -> None:
    for rank, found in enumerate(ranks(_every_reduction)):
        for rows, counts, _ in found:
            assert rows["parts"][:3] == [[pytest.approx(0.3), 3.0], -2.0, 3.0]
            assert rows["whole"] == [[5.0 * (rank + 1)] * 2, rank, rank, rank]
            assert counts == {"a": 2**31 + 1}
        # One all_reduce for each kind of reduction in use, whatever the number of instruments.
        assert found[1][2] == {"allreduce_": 3}


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
