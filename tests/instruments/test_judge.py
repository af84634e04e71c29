"""Verdicts on records as they come: each stream against its own first."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jaynes_callbacks import Recorder
from jaynes_callbacks.instruments.judge import Judge, judged
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.records.stream import WEIGHT
from jaynes_callbacks.statistics import FAMILIES, LOGNORMAL

RIVALS = {family.name: 0.3 for family in FAMILIES if family is not LOGNORMAL}


def _record(gap: float, step: int, name: str = "a", **changes: Any) -> Record:
    return Record(
        kind=WEIGHT,
        name=name,
        step=step,
        n=50_000,
        gap=gap,
        gap_se=0.001,
        rival_gaps=RIVALS,
        **changes,
    )


def _course(*gaps: float, name: str = "a") -> list[Records]:
    return [Records([_record(gap, 10 * step, name)]) for step, gap in enumerate(gaps)]


def _column(found: list[Records], name: str) -> list[Any]:
    return [value for records in found for value in records[name].tolist()]


def test_a_stream_starts_with_its_first_record() -> None:
    found = Judge({}).judged(_course(0.163, 0.1, 0.01))
    assert _column(found, "verdict") == ["", "approaching", "emerged"]
    assert _column(found, "verdict_2") == ["", "approaching", "approaching"]
    assert _column(found, "gap_closed") == pytest.approx(
        [math.nan, 1 - 0.1 / 0.163, 1 - 0.01 / 0.163], nan_ok=True
    )
    assert _column(found, "start_step") == [0, 0, 0]


def test_a_start_that_is_given_stands() -> None:
    start = _record(0.4, -5)
    judge = Judge({start.key: start})
    found = judge.judged(_course(0.163, 0.01))
    assert _column(found, "verdict") == ["approaching", "emerged"]
    assert _column(found, "start_step") == [-5, -5]
    assert judge.start[start.key] is start


def test_streams_that_come_later_start_then() -> None:
    """And one does not judge another."""
    moments = [
        Records([_record(0.163, 0)]),
        Records([_record(0.1, 7), _record(0.4, 7, "b")]),
        Records([_record(0.1, 9), _record(0.01, 9, "b")]),
    ]
    found = Judge({}).judged(moments)
    assert _column(found, "start_step") == [0, 0, 7, 0, 7]
    assert _column(found, "verdict") == ["", "approaching", "", "approaching", "emerged"]


def test_version_2_takes_the_median_of_the_last_three_after_the_start() -> None:
    gaps = (0.163, 0.01, 0.01, 0.05, 0.05, 0.01)
    found = Judge({}).judged(_course(*gaps))
    assert _column(found, "verdict_2") == [
        "",
        "emerged",  # the start is no part of the end
        "emerged",
        "emerged",  # one record that is far
        "approaching",
        "approaching",
    ]
    assert _column(found, "verdict")[3:] == ["approaching", "approaching", "emerged"]


def test_records_without_a_gap_are_left_out() -> None:
    found = Judge({}).judged(_course(0.163, 0.01, math.nan, 0.012))
    assert _column(found, "verdict_2") == ["", "emerged", "undetermined", "emerged"]
    assert math.isnan(_column(found, "gap_closed")[2])


def test_in_parts_a_course_is_judged_as_in_one() -> None:
    gaps = (0.163, 0.05, 0.01, 0.05, 0.012, 0.011)
    expected = Judge({}).judged(_course(*gaps))
    first = Judge({})
    found = first.judged(_course(*gaps)[:3])
    second = Judge(first.start, first.recent)
    found += second.judged(_course(*gaps)[3:])
    for name in ("verdict", "verdict_2", "gap_closed", "start_step"):
        np.testing.assert_array_equal(_column(found, name), _column(expected, name))
    assert second.recent == {(WEIGHT, "a"): [0.012, 0.011]}


def test_what_is_given_is_not_changed() -> None:
    start, recent = {(WEIGHT, "a"): _record(0.163, 0)}, {(WEIGHT, "a"): [0.05]}
    Judge(start, recent).judged(_course(0.163, 0.1, 0.01))
    assert list(start) == [(WEIGHT, "a")]
    assert recent == {(WEIGHT, "a"): [0.05]}
    (records,) = _course(0.163)
    Judge({}).judged([records])
    assert records[0].verdict == ""


def test_a_gap_of_zero_at_the_start_closes_by_nothing() -> None:
    found = Judge({}).judged(_course(0.0, 0.01))
    assert np.isnan(_column(found, "gap_closed")).all()


def test_no_records_are_no_verdicts() -> None:
    assert [len(records) for records in Judge({}).judged([Records()])] == [0]


def test_two_records_are_judged_by_themselves() -> None:
    found = judged(_record(0.163, 3), _record(0.01, 8))
    assert (found.verdict, found.verdict_2, found.start_step) == ("emerged", "emerged", 3)
    assert found.gap_closed == pytest.approx(1 - 0.01 / 0.163)


def test_a_resumed_recorder_judges_as_the_uninterrupted_one() -> None:
    model = nn.Linear(100, 100, bias=False)
    laws = [torch.randn(100, 100), *(torch.randn(100, 100).exp() for _ in range(4))]

    def recorder() -> Recorder:
        made = Recorder(model, kinds=WEIGHT, instruments=["magnitudes"])
        made.attach()
        return made

    def step(own: Recorder, number: int) -> tuple[str, str]:
        with torch.no_grad():
            model.weight.copy_(laws[number])
        (record,) = own.snapshot(number)
        return record.verdict, record.verdict_2

    whole = recorder()
    expected = [step(whole, number) for number in (0, 1, 2)]
    state = whole.state_dict()
    laws[3] = torch.rand(100, 100)
    expected += [step(whole, number) for number in (3, 4)]
    resumed = recorder()
    resumed.load_state_dict(state)
    assert [step(resumed, number) for number in (3, 4)] == expected[3:]
    # By the median the gap is still small, but of uniform weights the uniform law is nearer.
    assert expected[3] == ("not emerging", "approaching")
