"""The standard error of a gap's change, from a stream's first record on."""

import io
import math

import pytest
import torch
from torch import nn

from jaynes_callbacks.api import compare
from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.change import GapChanges
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.records.stream import WEIGHT, Stream
from jaynes_callbacks.statistics import Influence, influences

STREAM = Stream(WEIGHT, "weight", (40, 30))
CPU = torch.device("cpu")


def influence_of(tensor: torch.Tensor) -> Influence:
    counts = torch.zeros(1, CODES, dtype=torch.int64)
    count_(tensor, counts, 0)
    (found,) = influences([tensor], counts)
    assert found is not None
    return found


@pytest.fixture
def states() -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(4)
    first, step = torch.randn(2, 40, 30, generator=source)
    return [first, first + 0.2 * step, first + 0.4 * step]


def expected(states: list[torch.Tensor], at: int) -> float:
    change = influence_of(states[at]).less(influence_of(states[0]))
    assert change is not None
    return change.standard_error.item()


def snapshot(recorder: Recorder, weights: torch.Tensor, step: int) -> Record:
    with torch.no_grad():
        recorder.model.weight.copy_(weights)  # type: ignore[union-attr, operator]
    (record,) = recorder.snapshot(step)
    assert isinstance(record, Record)
    return record


def watched() -> Recorder:
    recorder = Recorder(nn.Linear(30, 40), kinds=WEIGHT)
    recorder.attach()
    return recorder


def test_each_record_is_compared_with_the_first(states: list[torch.Tensor]) -> None:
    recorder = watched()
    records = [snapshot(recorder, weights, step) for step, weights in enumerate(states)]
    assert math.isnan(records[0].gap_change_se)
    for step in (1, 2):
        assert records[step].gap_change_se == pytest.approx(expected(states, step), rel=1e-9)


def test_a_resumed_run_remembers_its_start(states: list[torch.Tensor]) -> None:
    recorder = watched()
    snapshot(recorder, states[0], 0)
    buffer = io.BytesIO()
    torch.save(recorder.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    resumed = watched()
    resumed.load_state_dict(state)
    record = snapshot(resumed, states[2], 2)
    assert record.gap_change_se == pytest.approx(expected(states, 2), rel=1e-9)
    # A checkpoint of version 0.1 kept nothing, and what is resumed is no start.
    del state["instruments"]["magnitudes"]["changes"]
    older = watched()
    older.load_state_dict(state)
    records = [snapshot(older, states[step], step) for step in (1, 2)]
    assert all(math.isnan(record.gap_change_se) for record in records)


def test_a_begun_run_is_compared_with_its_untouched_weights(states: list[torch.Tensor]) -> None:
    recorder = watched()
    with torch.no_grad():
        recorder.model.weight.copy_(states[0])  # type: ignore[union-attr, operator]
    recorder.begin()
    assert math.isnan(snapshot(recorder, states[1], 0).gap_change_se), "of the untouched weights"
    record = snapshot(recorder, states[2], 1)
    assert record.gap_change_se == pytest.approx(expected(states, 2), rel=1e-9)


def test_states_of_a_network_are_compared_too(states: list[torch.Tensor]) -> None:
    (pair,) = compare({"w": states[0]}, {"w": states[1]}).pairs
    assert pair.after.gap_change_se == pytest.approx(expected(states, 1), rel=1e-9)
    assert math.isnan(pair.before.gap_change_se)


def test_what_cannot_be_compared_is_nan(states: list[torch.Tensor]) -> None:
    changes = GapChanges()
    found = [
        influence_of(states[0]),
        None,
        influence_of(states[1][:, :20]),
        influence_of(states[1]),
    ]
    errors = [changes.errors([STREAM], [each], CPU).item() for each in found]
    assert [math.isnan(each) for each in errors] == [True, True, True, False]
