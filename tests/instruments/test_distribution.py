"""Rows of figures: which family is best, what is said of a nan, aggregates, and all of it again."""

import math

import pytest
import torch

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.distribution import Tallied, counts_of, recompute, summarise
from jaynes_callbacks.instruments.record import Record, Records, aggregates
from jaynes_callbacks.instruments.tally import tally_of_counts, tally_of_tensors
from jaynes_callbacks.records.stream import Stream

SIZE = 50_000


@pytest.fixture(scope="module")
def samples() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(23)
    normal = torch.randn(SIZE, generator=generator)
    return {
        "lognormal": (0.5 * normal).exp(),
        "half_normal": 0.02 * normal,
        "uniform": torch.rand(SIZE, generator=generator),
        "exponential": -torch.rand(SIZE, generator=generator).log(),
    }


@pytest.fixture(scope="module")
def records(samples: dict[str, torch.Tensor]) -> Records:
    streams = [Stream("weight", name, (SIZE, 1)) for name in samples]
    tally = tally_of_tensors(list(samples.values()))
    return summarise([Tallied(streams, tally, run="r", step=3, epoch=1)])[0]


def test_the_true_family_is_best_though_a_larger_one_contains_it(records: Records) -> None:
    """The generalized gamma contains all of them: Schwarz's criterion pays its parameters."""
    assert [record.best_family for record in records] == [record.name for record in records]


def test_rows_know_where_they_are_from(records: Records) -> None:
    assert {(record.run, record.step, record.epoch, record.shape) for record in records} == {
        ("r", 3, 1, (SIZE, 1))
    }
    assert [record.n for record in records] == [SIZE] * 4
    assert torch.equal(counts_of(records).sum(-1), torch.full((4,), SIZE))


def test_a_reason_names_whom_it_concerns(records: Records) -> None:
    """A ramp has no paper curve, and uniform weights no generalized gamma or one at its bound."""
    status = records.select(name="uniform")[0].status
    assert "paper protocol: no interior optimum" in status
    assert records.select(name="lognormal")[0].status == "ok"


def test_weights_of_which_only_the_counts_are_known(records: Records) -> None:
    """Spread over ranks: the paper's bins are made from the counts, as many as of other weights."""
    streams = [Stream("weight", record.name, record.shape) for record in records]
    (ours,) = summarise([Tallied(streams, tally_of_counts(counts_of(records)))])
    for mine, whole in zip(ours, records, strict=True):
        assert mine.paper_counts.size == 0
        assert whole.max < mine.max <= whole.max * 17 / 16
        assert (mine.gap, mine.q, mine.best_family) == (whole.gap, whole.q, whole.best_family)
        assert mine.status == whole.status
        assert mine.paper_r2 == pytest.approx(whole.paper_r2, abs=0.005, nan_ok=True)
        assert mine.paper_sigma == pytest.approx(whole.paper_sigma, abs=0.01, nan_ok=True)
    assert recompute(ours).to_pandas().equals(ours.to_pandas())


def test_the_same_records_come_from_the_saved_counts(records: Records) -> None:
    moved = Records(record.replace(moved=0.5, verdict="emerged") for record in records)
    again = recompute(moved)
    assert again.to_pandas(counts=False).equals(moved.to_pandas(counts=False))
    assert recompute([]) == Records() or len(recompute([])) == 0


def test_the_verdict_is_on_the_start_that_was_given(samples: dict[str, torch.Tensor]) -> None:
    stream = [Stream("weight", "w", (SIZE, 1))]
    first = Tallied(stream, tally_of_tensors([samples["uniform"]]))
    last = Tallied(stream, tally_of_tensors([samples["lognormal"]]), step=7)
    (begin,) = summarise([first])
    # A start is no end: there is nothing to judge yet.
    assert begin[0].verdict == ""
    (end,) = summarise([last], begin.by_stream())
    assert end[0].verdict == "emerged"
    # Or both at once: the first moment of a stream is its start.
    begin_again, end_again = summarise([first, last])
    assert [begin_again[0].verdict, end_again[0].verdict] == ["", "emerged"]
    assert [begin_again[0].step, end_again[0].step] == [0, 7]


def test_moments_may_hold_different_streams(samples: dict[str, torch.Tensor]) -> None:
    names = [["uniform"], [], ["lognormal", "exponential"]]
    moments = [
        Tallied(
            [Stream("weight", name, (SIZE, 1)) for name in some],
            tally_of_tensors([samples[name] for name in some]),
            step=step,
            moved=[0.1 * step] * len(some),
        )
        for step, some in enumerate(names)
    ]
    finished = summarise(moments)
    assert [[record.name for record in records] for records in finished] == names
    assert [[record.moved for record in records] for records in finished] == [[0], [], [0.2, 0.2]]
    alone = summarise(moments[2:])[0]
    assert [record.gap for record in finished[2]] == pytest.approx(
        [record.gap for record in alone], rel=1e-12
    )


def test_aggregates_of_each_kind() -> None:
    gaps = {"weight": [0.001, 0.3, 0.05, 0.01, 0.02], "iota": [0.019, math.nan, math.inf]}
    rows = [Record(kind=kind, gap=gap) for kind, values in gaps.items() for gap in values]  # type: ignore[arg-type]
    assert aggregates(Records(rows)) == {
        "equilibrium/weight/gap_median": 0.02,
        "equilibrium/weight/gap_worst": 0.3,
        "equilibrium/weight/share_lognormal_like": 0.2,
        "equilibrium/weight/share_near": 0.2,
        "equilibrium/weight/share_far": 0.4,
        "equilibrium/weight/share_no": 0.2,
        "equilibrium/iota/gap_median": 0.019,
        "equilibrium/iota/gap_worst": 0.019,
        "equilibrium/iota/share_lognormal_like": 0.0,
        "equilibrium/iota/share_near": 1.0,
        "equilibrium/iota/share_far": 0.0,
        "equilibrium/iota/share_no": 0.0,
    }
    assert aggregates(Records([Record(gap=math.nan)])) == {}


def test_no_streams_are_no_records() -> None:
    nothing = tally_of_counts(torch.zeros(0, CODES, dtype=torch.int64))
    assert [len(records) for records in summarise([Tallied([], nothing)])] == [0]
    assert summarise([]) == []
