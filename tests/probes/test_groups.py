"""Groups of samples: what they cost nothing of, and the error that they give."""

import io
import statistics

import pytest
import torch
from torch import nn

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.statistics import jackknife_standard_error

GROUPS = 5


def batches(number: int, seed: int) -> list[torch.Tensor]:
    """Pre-activations of batches, each with a scale of its own."""
    source = torch.Generator().manual_seed(seed)
    scales = torch.randn(number, 1, 1, generator=source).exp()
    return list(scales * torch.randn(number, 50, 40, generator=source))


def listen(recorder: Recorder, parts: list[torch.Tensor]) -> None:
    for part in parts:
        recorder.open()
        recorder.model(part)
        recorder.close()


def iota(recorder: Recorder, step: int = 0) -> Record:
    (record,) = recorder.snapshot(step=step)
    return record


def watched(groups: int) -> Recorder:
    recorder = Recorder(nn.Sequential(nn.ReLU()), kinds="iota", iota_groups=groups)
    recorder.attach()
    return recorder


def by_hand(parts: list[torch.Tensor]) -> float:
    counts = torch.zeros(GROUPS, 1, CODES, dtype=torch.int64)
    for place, part in enumerate(parts):
        count_(part.relu(), counts[place % GROUPS], 0)
    return jackknife_standard_error(counts).item()


def test_the_error_is_the_jackknife_s_and_all_else_as_without_groups() -> None:
    parts = batches(12, seed=1)
    grouped, plain = watched(GROUPS), watched(0)
    records = []
    for recorder in (grouped, plain):
        listen(recorder, parts)
        records.append(iota(recorder))
    assert records[0].gap_se == by_hand(parts)
    assert records[0].counts.tolist() == records[1].counts.tolist()
    assert records[0].gap == records[1].gap
    listen(grouped, parts[:7])
    assert iota(grouped, 1).gap_se == by_hand(parts[:7]), "a record begins with the first group"


def test_one_batch_is_one_group_and_its_values_count_as_independent() -> None:
    alone, plain = watched(GROUPS), watched(0)
    for recorder in (alone, plain):
        listen(recorder, batches(1, seed=2))
    assert iota(alone).gap_se == iota(plain).gap_se > 0


@pytest.mark.slow
def test_values_of_a_batch_belong_together() -> None:
    grouped, plain = watched(16), watched(0)
    found = []
    for draw in range(40):
        for recorder in (grouped, plain):
            listen(recorder, batches(64, seed=100 + draw))
        found.append((iota(grouped), iota(plain)))
    spread = statistics.stdev(record.gap for record, _ in found)
    errors, independent = (
        statistics.mean(each.gap_se for each in column) for column in zip(*found, strict=True)
    )
    assert errors == pytest.approx(spread, rel=0.35)
    assert independent < 0.5 * spread


@pytest.mark.parametrize("groups", [GROUPS, 3, 0])
def test_a_resumed_record_goes_on_in_its_group(groups: int) -> None:
    parts = batches(12, seed=3)
    first = watched(GROUPS)
    listen(first, parts[:8])
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    resumed = watched(groups)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    listen(resumed, parts[8:])
    record = iota(resumed)
    assert record.n + record.zeros == 12 * 50 * 40
    if groups == GROUPS:
        assert record.gap_se == by_hand(parts)


class Mixed(nn.Module):
    """One activation of a map, one of features."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.features = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(self.map(x).flatten(1))


@pytest.mark.parametrize("compiled", [False, True])
def test_groups_are_the_default_where_a_sample_repeats_a_neuron(compiled: bool) -> None:
    recorder = Recorder(Mixed(), kinds="iota")
    model = torch.compile(recorder.model, backend="aot_eager") if compiled else recorder.model
    recorder.attach()
    parts = [part.view(50, 10, 4) for part in batches(8, seed=5)]
    for part in parts:
        recorder.open()
        model(part)
        recorder.close()
    moment = recorder.count()["magnitudes"]
    numbers = {stream.name: 0 for stream in moment.state.streams}
    for slot in moment.state.slots:
        numbers[slot.stream.name] += 1
    assert numbers == {"map": 8, "features": 1}
    whole = [
        row.counts.sum() for row in recorder.summarise([{"magnitudes": moment}])[0]["magnitudes"]
    ]
    assert whole == [8 * 50 * 40] * 2


def test_without_repeated_neurons_no_group_takes_memory() -> None:
    recorder = Recorder(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), kinds="iota")
    recorder.attach()
    listen(recorder, [torch.randn(6, 4)] * 2)
    ledger = recorder.instruments["magnitudes"]._ledger  # type: ignore[attr-defined]
    assert ledger._dealt.numel() == 0
    assert ledger.grouped.shape == (1, 1, CODES)
