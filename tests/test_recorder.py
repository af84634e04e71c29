import copy
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from jaynes_callbacks import analyse
from jaynes_callbacks.figures import log_density
from jaynes_callbacks.instruments.distribution import counts_of
from jaynes_callbacks.instruments.laws import Laws, fit_laws
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.tally import tally_of_tensors
from jaynes_callbacks.probes.weights import WeightWatch
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.sinks.dataset import read_description, read_records

pytestmark = pytest.mark.usefixtures("unfitted")


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))


def _train(model: nn.Module, recorder: Recorder, steps: int) -> Records:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = Records()
    for step in range(steps):
        loss = model(torch.randn(64, 16)).square().mean()
        records += recorder.snapshot(step=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return records


def test_a_hand_written_loop(model: nn.Sequential) -> None:
    with Recorder(model, run="mine") as recorder:
        records = _train(model, recorder, 3)
    assert [(r.step, r.kind, r.name) for r in records[:3]] == [
        (0, "weight", "0.weight"),
        (0, "weight", "2.weight"),
        (0, "iota", "1"),
    ]
    assert {record.run for record in records} == {"mine"}
    assert records[0].shape == (32, 16)
    assert records[2].n + records[2].zeros == 64 * 32
    moved = [record.moved for record in records.select(name="0.weight")]
    assert moved[0] == 0
    assert moved[2] > moved[1] > 0
    assert math.isnan(records[2].moved)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_rows_of_a_weight_are_the_clusters_of_its_error(model: nn.Sequential) -> None:
    """Also of the start, whose weights are gone by the time of its snapshot."""
    recorder = Recorder(model, kinds="weight")
    recorder.attach()
    recorder.begin()
    expected = tally_of_tensors([model[0].weight, model[2].weight]).errors
    with torch.no_grad():
        model[0].weight.zero_()
    records = recorder.snapshot()
    assert records[0].gap_se == expected[0].item()
    # Eight rows are too few to tell: its values count as independent.
    assert expected[1].isnan()
    assert math.isfinite(records[1].gap_se)


def test_moved_is_the_relative_distance(model: nn.Sequential) -> None:
    with Recorder(model, kinds="weight") as recorder, torch.no_grad():
        model[0].weight.mul_(1.5)
        records = recorder.snapshot()
    assert [record.moved for record in records] == pytest.approx([0.5, 0.0], abs=1e-6)


def test_a_start_that_was_begun_is_that_of_its_moment(model: nn.Sequential) -> None:
    with Recorder(model, kinds="weight") as recorder, torch.no_grad():
        recorder.begin()
        model[0].weight.mul_(2)
        held, now = recorder.snapshot(0), recorder.snapshot(1)
    assert now[0].log_mean - held[0].log_mean == pytest.approx(math.log(2), abs=1e-12)
    assert held[0].moved == 0


def _update(model: nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)


@pytest.mark.parametrize("first", [0, 100])
def test_a_loop_that_updates_before_it_records_starts_from_the_untouched_model(
    first: int, model: nn.Sequential
) -> None:
    untouched = counts_of(analyse({"0.weight": model[0].weight.detach().clone()}))
    with Recorder(model) as recorder:
        for step in (first, first + 1):
            model(torch.randn(64, 16))
            _update(model)
            recorder.snapshot(step=step)
    start = recorder.start.select(name="0.weight")
    assert torch.equal(counts_of(start), untouched)
    steps = list(dict.fromkeys([0, first, first + 1]))
    weights = recorder.records.select(name="0.weight")
    assert weights["step"].tolist() == steps
    updates = [0.0, 1.25] if first == 0 else [0.0, 0.5, 1.25]
    assert weights["moved"].tolist() == pytest.approx(updates, abs=1e-6)
    # Activations belong to the forwards, not to the start that none had seen.
    iota = recorder.records.select(kind="iota")
    assert iota["step"].tolist() == [first, first + 1]


def test_a_recorder_keeps_its_history_with_the_counts_of_start_and_end(
    model: nn.Sequential,
) -> None:
    with Recorder(model, instruments=["magnitudes", "gradients"]) as recorder:
        _train(model, recorder, 3)
    assert recorder.history.equals(recorder.records.to_pandas())
    assert recorder.history_of("gradients").empty
    of_weight = recorder.records.select(name="0.weight")
    assert [len(row.counts) > 0 for row in of_weight] == [True, False, True]
    log_density(of_weight)


def test_a_recorder_writes_the_dataset(model: nn.Sequential, tmp_path: Path) -> None:
    with Recorder(model, dirpath=tmp_path / "mine") as recorder:
        _train(model, recorder, 3)
        assert read_description(tmp_path / "mine" / "jaynes")["outcome"] == "running"
    dataset = tmp_path / "mine" / "jaynes"
    written = read_records(dataset)
    assert written.to_pandas().equals(recorder.history)
    assert set(written["run"]) == {"mine"}
    description = read_description(dataset)
    assert description["outcome"] == "finished"
    assert [each["name"] for each in description["watched"]] == ["0.weight", "2.weight", "1"]


def test_a_recorder_that_fails_says_so(model: nn.Sequential, tmp_path: Path) -> None:
    def interrupted() -> None:
        with Recorder(model, kinds="weight", dirpath=tmp_path) as recorder:
            recorder.snapshot(step=3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_description(tmp_path / "jaynes")["outcome"] == "interrupted"
    assert read_records(tmp_path / "jaynes")["step"].tolist() == [0, 0, 3, 3]


def test_a_resumed_recorder_continues_its_dataset(model: nn.Sequential, tmp_path: Path) -> None:
    with Recorder(model, kinds="weight", dirpath=tmp_path) as recorder:
        recorder.snapshot(step=3)
        state = recorder.state_dict()
        recorder.snapshot(step=9)
    again = Recorder(model, kinds="weight", dirpath=tmp_path)
    again.load_state_dict(state)
    with again:
        _update(model)
        again.snapshot(step=5)
    weights = again.records.select(name="0.weight")
    assert weights["step"].tolist() == [0, 3, 5]
    assert weights["moved"].tolist() == pytest.approx([0, 0, 0.5], abs=1e-6)
    assert read_records(tmp_path / "jaynes")["step"].tolist() == [0, 0, 3, 3, 5, 5]


def test_activations_are_those_since_the_last_snapshot(model: nn.Sequential) -> None:
    with Recorder(model, kinds="iota") as recorder:
        model(torch.randn(10, 16))
        model(torch.randn(10, 16))
        first = recorder.snapshot(0)
        model(torch.randn(10, 16))
        second = recorder.snapshot(1)
        nothing = recorder.snapshot(2)
    assert [r.n + r.zeros for r in (*first, *second)] == [640, 320]
    assert len(nothing) == 0


def test_measuring_is_not_watched(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode makes each of the many operations of the fits slower."""
    modes = []

    def noting(counts: Tensor) -> Laws:
        modes.append(_get_current_function_mode_stack())
        return fit_laws(counts)

    monkeypatch.setattr("jaynes_callbacks.instruments.computing.fit_laws", noting)
    with Recorder(model) as recorder:
        model(torch.randn(4, 16))
        recorder.snapshot()
        model(torch.randn(4, 16))
        assert recorder.snapshot().select(kind="iota")
    assert modes == [[], []]


@pytest.mark.fitted
def test_the_verdict_is_on_the_first_record() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.Linear(256, 8))
    with Recorder(model, kinds="weight") as recorder, torch.no_grad():
        recorder.snapshot(0)
        model[0].weight.copy_(torch.randn(256, 128).exp())
        (end, _) = recorder.snapshot(1)
    assert recorder.start[0].gap > 0.2
    assert end.verdict == "emerged"


def test_state_goes_on_through_a_weights_only_file(model: nn.Sequential) -> None:
    with Recorder(model, kinds="weight") as recorder:
        recorder.snapshot(0)
    buffer = io.BytesIO()
    torch.save(recorder.state_dict(), buffer)
    buffer.seek(0)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    resumed = Recorder(model, kinds="weight")
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    with resumed:
        records = resumed.snapshot(5)
    assert records[0].moved == pytest.approx(0.5, abs=1e-6)
    assert resumed.start[0].step == 0
    assert resumed.start[0].gap == recorder.start[0].gap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "weights"}, "kinds must be some of"),
        ({"include": "nothing.*"}, "matches no parameter and no module"),
        ({"min_size": 10**9}, "no weight is left to watch.*min_size=1000000000.*lower min_size"),
        ({"iota_values_per_call": 0}, "iota_values_per_call must be a positive integer, got 0"),
        ({"iota_groups": 1}, "iota_groups must be 0 or an integer from 2 on, got 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    model: nn.Sequential, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message), Recorder(model, **options):  # type: ignore[arg-type]
        pass
    assert not any(m._forward_hooks for m in model.modules())


def test_parts_called_from_outside_are_forwards_of_their_own() -> None:
    model = nn.ModuleDict({"one": nn.Sequential(nn.Linear(8, 8), nn.ReLU())})
    with Recorder(model, kinds="iota") as recorder:
        for _ in range(5):
            model["one"](torch.randn(2, 8))
        (record,) = recorder.snapshot()
    assert (record.name, record.n + record.zeros) == ("one.1", 5 * 16)


def test_after_an_exception_calls_are_numbered_anew(model: nn.Sequential) -> None:
    with Recorder(model, kinds="iota") as recorder:
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 3))
        model(torch.randn(2, 16))
        model(torch.randn(2, 16))
        (record,) = recorder.snapshot()
    assert (record.name, record.n + record.zeros) == ("1", 2 * 64)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_forward_is_not_counted_twice(reentrant: bool) -> None:
    body = nn.Sequential(nn.Linear(16, 16), nn.ReLU())

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=reentrant)

    with Recorder(Model(), kinds="iota") as recorder:
        recorder.model(torch.randn(4, 16, requires_grad=True)).sum().backward()
        (record,) = recorder.snapshot()
    assert record.n + record.zeros == 64
    assert body[0].weight.grad is not None


def test_the_coverage_tells_what_is_still_to_come(model: nn.Sequential) -> None:
    with Recorder(model, exclude="0.*") as recorder:
        assert "appear with the first forward" in str(recorder.coverage)
        model(torch.randn(3, 16))
        recorder.snapshot()
        assert str(recorder.coverage) == (
            "watching 1 weight (2.weight) and 1 activation (1); not 1: excluded by pattern "
            "(0.weight); not 2: fewer than 2 dimensions (0.bias, 2.bias)"
        )


def test_a_model_that_is_just_small_is_no_error() -> None:
    model = nn.Linear(3, 3)
    with Recorder(model) as recorder:
        model(torch.randn(2, 3))
        assert len(recorder.snapshot()) == 0
        assert "watching nothing; no activation function was applied" in str(recorder.coverage)


def test_a_start_of_another_shape_or_none_is_not_compared(model: nn.Sequential) -> None:
    recorder = Recorder(model, kinds="weight")
    recorder.load_state_dict({"start": [], "first": {"0.weight": torch.ones(3)}})
    with recorder:
        assert all(math.isnan(record.moved) for record in recorder.snapshot())


def test_a_model_without_relu_records_its_weights() -> None:
    model = nn.Linear(16, 16)
    with Recorder(model) as recorder:
        model(torch.randn(3, 16))
        (record,) = recorder.snapshot()
    assert record.kind == "weight"


@pytest.mark.fitted
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_degenerate_weights_become_a_status(model: nn.Sequential, value: float) -> None:
    with torch.no_grad():
        model[0].weight.fill_(value)
    with Recorder(model, kinds="weight") as recorder:
        bad, good = recorder.snapshot()
    assert bad.status != "ok"
    assert bad.verdict == "undetermined"
    assert bad.zeros + bad.nonfinite == 512
    assert math.isfinite(good.gap)


@pytest.mark.fitted
def test_recording_twice_is_deterministic(model: nn.Sequential) -> None:
    x = torch.randn(64, 16)
    tables = []
    for _ in range(2):
        with Recorder(copy.deepcopy(model)) as recorder:
            recorder.model(x)
            tables.append(recorder.snapshot().to_pandas())
    assert tables[0].equals(tables[1])


def _half_of_the_data(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with Recorder(model) as recorder:
        model(x.chunk(2)[dist.get_rank()])
        return counts_of(recorder.snapshot())


def test_two_processes_count_what_one_does(
    model: nn.Sequential, ranks: Callable[..., list[torch.Tensor]]
) -> None:
    x = torch.randn(64, 16)
    with Recorder(model) as recorder:
        model(x)
        alone = counts_of(recorder.snapshot())
    for counts in ranks(_half_of_the_data, model, x):
        assert torch.equal(counts, alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, model: nn.Sequential) -> None:
    model = model.to(dtype)
    with Recorder(model) as recorder:
        model(torch.randn(8, 16, dtype=dtype))
        records = recorder.snapshot()
    assert [record.n + record.zeros for record in records] == [512, 256, 256]


def test_a_start_that_cannot_be_counted_is_not_replaced_by_a_later_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, calls = WeightWatch.read, []

    def failing_first(self: WeightWatch) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise MemoryError("no room")
        return read(self)

    monkeypatch.setattr(WeightWatch, "read", failing_first)
    model = nn.Sequential(nn.Linear(16, 32))
    recorder = Recorder(model, instruments="magnitudes")
    recorder.attach()
    with pytest.warns(UserWarning, match="no room"):
        recorder.begin()
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(MemoryError, match="no room"):
        recorder.record(step=0)
    (record,) = recorder.snapshot(step=1)
    assert (record.step, record.moved) == (1, 0)
