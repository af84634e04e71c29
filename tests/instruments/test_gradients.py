"""Gradients and updates of whole runs, against a plain loop over the same batches and numpy."""

import gc
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments import gradients as instrument
from jaynes_callbacks.instruments.gradients import Gradients
from jaynes_callbacks.probes import gradients as watch
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.histograms import HistogramSink
from jaynes_callbacks.sinks.loggers import LoggerSink
from tests.probes.training import Exact, Sharded, train

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]
BOTH = ["magnitudes", "gradients"]
EPOCHS, BATCHES = 2, 5


# A run under watch --------------------------------------------------------------------------


class Task(L.LightningModule):
    """Draws from the global state only if `noisy`; every loss is kept."""

    def __init__(self, *, noisy: bool = False) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.net = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8))
        self.noise = nn.Dropout(0.2) if noisy else nn.Identity()
        self.losses: list[float] = []

    def forward(self, batch: Tensor) -> Tensor:
        return self.noise(self.net(batch)).float().square().mean()

    def training_step(self, batch: Tensor) -> Tensor:
        loss = self(batch)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def _batches(number: int = BATCHES) -> list[Tensor]:
    return list(torch.randn(number, 8, 16, generator=torch.Generator().manual_seed(4)))


def _loader(number: int = BATCHES) -> DataLoader[Any]:
    return DataLoader(_batches(number), batch_size=None)  # type: ignore[arg-type]


class Keep:
    """A sink that keeps the rows of gradients and updates, with their counts."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[tuple[str, str], Any]] = {}

    def open(self, context: Any) -> None: ...

    def write(self, frame: Any, history: Any) -> None:
        if frame.schema.instrument == "gradients":
            (step,) = set(frame["step"].tolist())
            assert step not in self.rows
            self.rows[step] = frame.by_stream()

    def close(self, start: Any, end: Any, history: Any) -> None: ...


def _watched(
    make_trainer: MakeTrainer, task: L.LightningModule, options: Mapping[str, Any], **trainer: Any
) -> Keep:
    kept = Keep()
    monitor = EquilibriumMonitor(sinks=[kept], **{"instruments": "gradients", **options})
    make_trainer(monitor, max_epochs=EPOCHS, **trainer).fit(task, _loader())
    return kept


# Its plain twin -----------------------------------------------------------------------------


class Seen(NamedTuple):
    """A parameter around one step: its gradient, and its values before and after."""

    gradient: Tensor
    before: Tensor
    after: Tensor


Twin = dict[int, dict[str, Seen]]


def _around(
    model: nn.Module, parameters: Sequence[nn.Parameter], step: Callable[[], Any]
) -> dict[str, Seen]:
    """Look at the gradients as they are, then at what a step changes."""
    stepping = {id(each) for each in parameters}
    named = {
        name: each
        for name, each in model.named_parameters()
        if id(each) in stepping and each.dim() > 1 and each.grad is not None
    }
    gradients = {name: each.grad.clone() for name, each in named.items()}  # type: ignore[union-attr]
    before = {name: each.detach().clone() for name, each in named.items()}
    step()
    return {
        name: Seen(gradients[name], before[name], each.detach().clone())
        for name, each in named.items()
    }


def _twin(*, accumulate: int = 1, clip: float = 0.0, by_value: float = 0.0) -> Twin:
    task, seen = Task(), Twin()
    parameters, optimizer = list(task.parameters()), task.configure_optimizers()

    def step() -> None:
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        if by_value:
            nn.utils.clip_grad_value_(parameters, by_value)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(EPOCHS):
        for place, batch in enumerate(_batches(), 1):
            (task(batch) / accumulate).backward()
            if place % accumulate == 0 or place == BATCHES:
                seen[len(seen) + 1] = _around(task, parameters, step)
    return seen


def _twin_in_half_precision() -> Twin:
    """With a scaler of its own, whose scale divides the gradients before they are looked at."""
    task, seen = Task(), Twin()
    optimizer, scaler = task.configure_optimizers(), torch.amp.GradScaler("cpu")  # type: ignore[attr-defined]
    for step, batch in enumerate(EPOCHS * _batches(), 1):
        with torch.autocast("cpu", torch.float16):
            loss = task(batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        seen[step] = _around(task, list(task.parameters()), lambda: scaler.step(optimizer))
        scaler.update()
        optimizer.zero_grad()
    return seen


def _codes(values: Tensor) -> list[int]:
    """Count by numpy on the bits of float32: sign off, the upper 12 of the rest."""
    bits = np.abs(values.numpy().astype(np.float32)).view(np.uint32) >> 19
    return np.bincount(bits.ravel(), minlength=4096).tolist()


def _counted(row: Any) -> list[int]:
    counts = np.zeros(4096, dtype=np.int64)
    counts[row.codes] = row.counts
    return counts.tolist()


def _assert_is(row: Any, values: Tensor) -> None:
    assert _counted(row) == _codes(values)
    assert row.shape == tuple(values.shape)
    assert row.n + row.zeros + row.nonfinite == values.numel()
    assert row.max == values.abs().max().item()
    assert row.verdict == ""
    assert math.isnan(row.moved)


def _assert_same(rows: Mapping[tuple[str, str], Any], seen: Mapping[str, Seen]) -> None:
    """Compare one record with what the twin saw of the same step."""
    assert set(rows) == {(kind, name) for kind in ("gradient", "update") for name in seen}
    for name, (gradient, before, after) in seen.items():
        _assert_is(rows["gradient", name], gradient)
        assert math.isnan(rows["gradient", name].update_ratio)
        update = rows["update", name]
        _assert_is(update, after - before)
        ratio = np.linalg.norm((after - before).double()) / np.linalg.norm(before.double())
        assert update.update_ratio == pytest.approx(ratio, rel=1e-12)
        assert (rows["gradient", name].variable, update.variable) == ("g", "Δw")


# 1. A record is what the twin saw -----------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*number of training batches.*")
@pytest.mark.parametrize(
    ("trainer", "twin"),
    [
        ({}, {}),
        ({"gradient_clip_val": 0.01}, {"clip": 0.01}),
        ({"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"}, {"by_value": 0.001}),
        ({"accumulate_grad_batches": 3}, {"accumulate": 3}),
    ],
    ids=["plain", "clipping", "clipping by value", "accumulation"],
)
def test_every_step_of_a_fit(
    trainer: dict[str, Any], twin: dict[str, Any], make_trainer: MakeTrainer
) -> None:
    kept, seen = _watched(make_trainer, Task(), {"every_n_steps": 1}, **trainer), _twin(**twin)
    assert list(kept.rows) == list(seen)
    for step, rows in kept.rows.items():
        _assert_same(rows, seen[step])


def test_scaled_gradients_are_unscaled(make_trainer: MakeTrainer) -> None:
    # By its name alone, 16-mixed falls back to bfloat16 on a CPU, without a scaler.
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))  # type: ignore[attr-defined]
    kept = _watched(make_trainer, Task(), {"every_n_steps": 1}, plugins=[half])
    seen, unscaled = _twin_in_half_precision(), _twin()
    assert list(kept.rows) == list(seen)
    for step, rows in kept.rows.items():
        _assert_same(rows, seen[step])
    for name, (gradient, *_) in unscaled[1].items():
        rms = gradient.square().mean().sqrt().item()
        assert kept.rows[1]["gradient", name].rms == pytest.approx(rms, rel=0.05)


class GAN(Task):
    """Manual optimization, two optimizers, each with gradients of its own loss only."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.critic = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 8))

    def training_step(self, batch: Tensor) -> None:  # type: ignore[override]
        for optimizer, loss in zip(self.optimizers(), self.rounds(batch), strict=True):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def rounds(self, batch: Tensor) -> Iterator[Callable[[], Tensor]]:
        yield lambda: -self.critic(self.net(batch)).square().mean()
        yield lambda: self.critic(self.net(batch).detach()).square().mean()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        return [torch.optim.Adam(part.parameters(), lr=1e-2) for part in (self.net, self.critic)]


def _twin_of_two() -> Twin:
    """What both optimizers did is known after every batch, that is after every second step."""
    task, seen = GAN(), Twin()
    optimizers = task.configure_optimizers()
    for place, batch in enumerate(EPOCHS * _batches(), 1):
        seen[2 * place] = {}
        for optimizer, loss in zip(optimizers, task.rounds(batch), strict=True):
            optimizer.zero_grad()
            mine = optimizer.param_groups[0]["params"]
            for parameter, gradient in zip(mine, torch.autograd.grad(loss(), mine), strict=True):
                parameter.grad = gradient
            seen[2 * place] |= _around(task, mine, optimizer.step)
    return seen


@pytest.mark.parametrize("every", [1, 4])
def test_two_optimizers_in_one_batch(every: int, make_trainer: MakeTrainer) -> None:
    kept, seen = _watched(make_trainer, GAN(), {"every_n_steps": every}), _twin_of_two()
    due = [step for step in seen if step % every == 0 or step % (2 * BATCHES) == 0]
    assert list(kept.rows) == due
    for step, rows in kept.rows.items():
        assert len(rows) == 8
        _assert_same(rows, seen[step])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note each call that copies or counts, with the number of values."""
    calls: list[tuple[str, int]] = []
    copied, counted = watch._Copy, instrument.weights_state

    def copy(stream: Any, parameter: Any, values: Tensor) -> Any:
        calls.append(("copy", values.numel()))
        return copied(stream, parameter, values)

    def count(values: Sequence[Any], device: Any) -> Any:
        calls.append(("count", sum(value.numel() for _, value, *_ in values)))
        return counted(values, device)

    monkeypatch.setattr(watch, "_Copy", copy)
    monkeypatch.setattr(instrument, "weights_state", count)
    return calls


#: What one record of `Task` costs: two copies, and each gradient and update counted once.
SIZES = [12 * 16, 8 * 12]
OF_RECORD = Counter([("copy", size) for size in SIZES] + 2 * [("count", sum(SIZES))])
#: Which instruments are recorded after the first step is not known before it was taken.
OF_FIRST_BATCH = OF_RECORD - Counter([("count", sum(SIZES))])


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({"instruments": ["magnitudes", Gradients(Cadence(None, 4))]}, [4, 8]),
        ({"instruments": Gradients(Cadence(None, 1)), "every_n_epochs": None}, range(1, 11)),
        ({"instruments": ["gradients"]}, [5, 10]),
        ({"instruments": BOTH, "every_n_steps": 4}, [4, 5, 8, 10]),
    ],
    # The final record has gradients only where its step was due.
    ids=["a cadence of its own", "every step", "by epoch", "with the monitor's"],
)
def test_only_due_steps_cost_anything(
    options: dict[str, Any], due: Sequence[int], make_trainer: MakeTrainer, shown: Any
) -> None:
    of_steps: dict[int, Counter[tuple[str, int]]] = {}

    class Note(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            of_steps[trainer.global_step] = Counter(shown)
            shown.clear()

    kept = Keep()
    monitor = EquilibriumMonitor(sinks=[kept], **options)
    make_trainer(monitor, Note(), max_epochs=EPOCHS).fit(Task(), _loader())
    assert list(kept.rows) == list(due)
    seen = _twin()
    for step in due:
        _assert_same(kept.rows[step], seen[step])
    for step, calls in of_steps.items():
        first = OF_FIRST_BATCH if step == 1 else Counter()
        assert calls == (OF_RECORD if step in due else first), step


def test_by_epoch_after_validation(make_trainer: MakeTrainer) -> None:
    class Validated(Task):
        def validation_step(self, batch: Tensor) -> None:
            self(batch)

    kept, seen = Keep(), _twin()
    monitor = EquilibriumMonitor(sinks=[kept], instruments="gradients", iota_from="validation")
    make_trainer(monitor, max_epochs=EPOCHS).fit(Validated(), _loader(), _loader())
    assert list(kept.rows) == [5, 10]
    for step, rows in kept.rows.items():
        _assert_same(rows, seen[step])


# 2. The run is the unwatched run, and nothing is kept ---------------------------------------


def _fit(make_trainer: MakeTrainer, task: Task, *callbacks: L.Callback) -> tuple[Any, ...]:
    L.seed_everything(11, verbose=False)
    trainer = make_trainer(*callbacks, max_epochs=EPOCHS)
    trainer.fit(task, _loader())
    states = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    return task.state_dict(), states, task.losses, torch.get_rng_state()


@pytest.mark.parametrize("make", [lambda: Task(noisy=True), GAN])
def test_the_watched_run_is_the_unwatched_run(
    make: Callable[[], Task], make_trainer: MakeTrainer
) -> None:
    monitor = EquilibriumMonitor(sinks=[], instruments="gradients", every_n_steps=1)
    plain, watched = _fit(make_trainer, make()), _fit(make_trainer, make(), monitor)
    torch.testing.assert_close(watched, plain, rtol=0, atol=0)
    assert len(monitor.history_of("gradients"))


class Copies:
    """Which copies of parameters have been made, and which of them live."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Tensor]] = []
        #: Raises in the place of the copy of this number.
        self.broken: int | None = None

    def __call__(self, stream: Any, parameter: Any, values: Tensor) -> Any:
        if len(self._made) == self.broken:
            self.broken = None
            raise MemoryError("no room for a copy")
        self._made.append(weakref.ref(values))
        return _COPY(stream, parameter, values)

    def __len__(self) -> int:
        return len(self._made)

    @property
    def alive(self) -> int:
        if any(each() is not None for each in self._made):
            gc.collect()
        return sum(each() is not None for each in self._made)


_COPY = watch._Copy


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    made = Copies()
    monkeypatch.setattr(watch, "_Copy", made)
    return made


class Alive(L.Callback):
    """Notes how many copies live after each batch."""

    def __init__(self, copies: Copies) -> None:
        self.copies, self.after = copies, dict[int, int]()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.after[trainer.global_step] = self.copies.alive


def test_no_copy_outlives_its_record(make_trainer: MakeTrainer, copies: Copies) -> None:
    monitor = EquilibriumMonitor(sinks=[], instruments="gradients", every_n_steps=1)
    make_trainer(monitor, alive := Alive(copies), max_epochs=1).fit(Task(), _loader())
    assert len(copies) == 2 * BATCHES
    assert set(alive.after.values()) == {0}


def test_no_copy_outlives_a_first_batch_that_is_not_recorded(
    make_trainer: MakeTrainer, copies: Copies
) -> None:
    monitor = EquilibriumMonitor(sinks=[], instruments="gradients")
    make_trainer(monitor, alive := Alive(copies), max_epochs=1).fit(Task(), _loader())
    assert set(alive.after.values()) == {0}


def test_a_last_record_does_not_show_the_first_batch(make_trainer: MakeTrainer) -> None:
    kept = _watched(make_trainer, Task(), {"every_n_epochs": None})
    assert kept.rows == {}


class Broken(L.Callback):
    """Raises before the monitor makes its record."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            raise OSError("broken in mid-step")


def test_no_copy_outlives_an_exception(make_trainer: MakeTrainer, copies: Copies) -> None:
    monitor = EquilibriumMonitor(sinks=[], instruments="gradients", every_n_steps=1)
    with pytest.raises(OSError, match="broken in mid-step"):
        make_trainer(Broken(), monitor).fit(Task(), _loader())
    assert (len(copies), copies.alive) == (6, 0)
    assert monitor.history_of("gradients").step.unique().tolist() == [1, 2]


def test_a_failing_copy_costs_one_record_of_this_instrument(
    make_trainer: MakeTrainer, copies: Copies
) -> None:
    copies.broken = 5  # the second parameter, in the third step
    monitor = EquilibriumMonitor(sinks=[], instruments=BOTH, kinds="weight", every_n_steps=1)
    message = "no record by the instrument gradients: MemoryError: no room for a copy"
    with pytest.warns(UserWarning, match=message) as said:
        watched = _fit(make_trainer, Task(noisy=True), monitor, alive := Alive(copies))
    assert sum("no record" in str(each.message) for each in said) == 1
    assert monitor.history_of("gradients").step.unique().tolist() == [1, 2, *range(4, 11)]
    assert monitor.history.step.unique().tolist() == list(range(11))
    assert set(alive.after.values()) == {0}
    plain = _fit(make_trainer, Task(noisy=True))
    torch.testing.assert_close(watched, plain, rtol=0, atol=0)


def test_a_count_that_fails_after_the_step_costs_the_same(
    make_trainer: MakeTrainer, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, calls = instrument.weights_state, []

    def count(values: Any, device: Any) -> Any:
        calls.append(values)
        if len(calls) == 4:
            raise MemoryError("no room for counts")
        return counted(values, device)

    monkeypatch.setattr(instrument, "weights_state", count)
    monitor = EquilibriumMonitor(sinks=[], instruments=BOTH, kinds="weight", every_n_steps=1)
    with pytest.warns(UserWarning, match="instrument gradients: MemoryError: no room for counts"):
        _fit(make_trainer, Task(), monitor)
    calls.clear()
    assert monitor.history_of("gradients").step.unique().tolist() == [1, *range(3, 11)]
    assert copies.alive == 0


# 3. A loop of one's own ---------------------------------------------------------------------


def _backward(model: nn.Module, batch: Tensor) -> None:
    model.zero_grad()
    model(batch).square().mean().backward()


def test_a_plain_loop(copies: Copies) -> None:
    task = Task()
    parameters, optimizer = list(task.parameters()), task.configure_optimizers()
    with Recorder(task.net, instruments="gradients") as recorder:
        for step, batch in enumerate(_batches(2), 1):
            _backward(task.net, batch)
            recorder.before_step(parameters)
            seen = _around(task.net, parameters, optimizer.step)
            assert copies.alive == 2
            records = recorder.record(step)
            _assert_same(records["gradients"].by_stream(), seen)
            assert set(records["gradients"]["step"]) == {step}
            assert copies.alive == 0
        assert len(recorder.record(step)["gradients"]) == 0
        recorder.before_step(parameters)
        assert copies.alive == 2
    assert copies.alive == 0


def test_the_last_step_before_a_record_counts() -> None:
    task = Task()
    first, last = task.net[0].weight, task.net[2].weight
    recorder = Recorder(task.net, instruments="gradients")
    recorder.attach()
    seen = {}
    # The first layer is stepped twice, the last one once; then shown without a gradient.
    for parameters in ([first, last], [first]):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        _backward(task.net, _batches()[0])
        recorder.before_step(parameters)
        seen |= _around(task.net, parameters, optimizer.step)
    _assert_same(recorder.record()["gradients"].by_stream(), seen)
    _backward(task.net, _batches()[0])
    recorder.before_step([first, last])
    last.grad = None
    recorder.before_step([first, last])
    assert {name for _, name in recorder.record()["gradients"].by_stream()} == {"0.weight"}


def test_a_record_is_whole_or_there_is_none(copies: Copies) -> None:
    task = Task()
    recorder = Recorder(task.net, instruments="gradients")
    recorder.attach()
    _backward(task.net, _batches()[0])
    copies.broken = 0
    for layer in (task.net[0], task.net[2]):
        recorder.before_step(list(layer.parameters()))
    with pytest.raises(MemoryError, match="no room for a copy"):
        recorder.record()
    for layer in (task.net[0], task.net[2]):
        recorder.before_step(list(layer.parameters()))
    assert len(recorder.record()["gradients"]) == 4


def test_updates_of_weights_that_are_zero_have_no_ratio() -> None:
    layer = nn.Linear(16, 8, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.grad = torch.ones_like(layer.weight)
    recorder = Recorder(layer, instruments="gradients")
    recorder.attach()
    recorder.before_step([layer.weight])
    torch.optim.SGD([layer.weight], lr=0.5).step()
    rows = recorder.record()["gradients"].by_stream()
    assert math.isnan(rows["update", "weight"].update_ratio)
    assert rows["update", "weight"].rms == pytest.approx(0.5, rel=0.04)


# 4. Two ranks -------------------------------------------------------------------------------


def _exact_network() -> nn.Sequential:
    """Quarters in double precision: no sum over them rounds, whatever its order."""
    source = torch.Generator().manual_seed(5)
    network = nn.Sequential(nn.Linear(32, 7, bias=False), nn.Linear(7, 32, bias=False)).double()
    for layer in network:
        whole = torch.randint(-4, 5, layer.weight.shape, generator=source)
        layer.weight = nn.Parameter(whole.double() / 4)
    return network


def _exact_batches() -> Tensor:
    return torch.randint(-2, 3, (3, 8, 32), generator=torch.Generator().manual_seed(6)).double()


def _rows_on_ranks(broken: int | None = None) -> list[list[dict[str, Any]]]:
    """Return what each record of a network in shards has of gradients and updates.

    Args:
        broken: number of the copy that fails on the second rank.
    """
    network, copies = _exact_network(), Copies()
    for layer in network:
        fully_shard(layer)
    fully_shard(network)
    watch._Copy = copies  # type: ignore[misc]
    copies.broken = broken if dist.get_rank() else None
    recorder = Recorder(network, instruments=BOTH)
    recorder.attach()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25)
    moments = []
    for step, batch in enumerate(_exact_batches(), 1):
        optimizer.zero_grad()
        # Gradients are averaged over the ranks, so that their sum is twice that.
        (network(batch.tensor_split(2)[dist.get_rank()]).sum() * 2 / 64).backward()
        recorder.before_step(list(network.parameters()))
        optimizer.step()
        moments.append(recorder.count(step))
        assert copies.alive == 0
    records = recorder.summarise(moments)
    assert [len(each["magnitudes"]) for each in records] == [2, 2, 2]
    return [[row.to_dict() for row in each.get("gradients", ())] for each in records]


def _of_exact_twin() -> list[dict[str, Seen]]:
    network = _exact_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25)
    seen = []
    for batch in _exact_batches():
        optimizer.zero_grad()
        (network(batch).sum() / 64).backward()
        seen.append(_around(network, list(network.parameters()), optimizer.step))
    return seen


def _assert_adds_up(rows: Sequence[Mapping[str, Any]], seen: Mapping[str, Seen]) -> None:
    by_key = {(row["kind"], row["name"]): row for row in rows}
    assert len(by_key) == len(rows) == 2 * len(seen)
    for name, (gradient, before, after) in seen.items():
        for kind, values in (("gradient", gradient), ("update", after - before)):
            row = by_key[kind, name]
            counts = np.zeros(4096, dtype=np.int64)
            counts[row["codes"]] = row["counts"]
            assert counts.tolist() == _codes(values)
            assert row["shape"] == tuple(values.shape)
        ratio = ((after - before).norm() / before.norm()).item()
        assert by_key["update", name]["update_ratio"] == pytest.approx(ratio, rel=1e-12)
        assert math.isnan(by_key["gradient", name]["update_ratio"])


def _assert_same_on_all(first: Any, second: Any) -> None:
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), check_exact=True)


def _whole_and_failing() -> Any:
    whole = _rows_on_ranks()
    with pytest.warns(UserWarning, match="no record by the instrument gradients") as said:
        failing = _rows_on_ranks(broken=3)
    return whole, failing, [str(each.message) for each in said]


def test_shards_add_up_and_a_rank_that_fails_costs_all_one_record(ranks: Ranks) -> None:
    (whole, failing, said), (whole_there, failing_there, said_there) = ranks(_whole_and_failing)
    _assert_same_on_all(whole, whole_there)
    twin = _of_exact_twin()
    for rows, seen in zip(whole, twin, strict=True):
        _assert_adds_up(rows, seen)
    # No record is a sum without the second rank's part.
    _assert_same_on_all(failing, failing_there)
    assert [len(rows) for rows in failing] == [4, 0, 4]
    _assert_adds_up(failing[2], twin[2])
    assert "1 of 2 ranks failed to count" in said[0]
    assert "MemoryError: no room for a copy" in said_there[0]


def _train(path: Path) -> None:
    watched = {"instruments": "gradients"}
    train(path / "ddp", Exact(), watch=watched, devices=2, strategy="ddp")
    strategy = ModelParallelStrategy(2, 1)
    train(path / "sharded", Sharded(), watch=watched, devices=2, strategy=strategy)


def test_lightning_on_two_ranks(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_train, tmp_path)
    train(tmp_path / "alone", Exact(), watch={"instruments": "gradients"}, devices=1)
    alone = pd.read_parquet(tmp_path / "alone" / "0" / "jaynes" / "_gradients").drop(columns="run")
    assert sorted(alone.step.unique()) == [1, 2, 3]
    assert len(alone) == 12
    # With replicas each rank has all; of shards only counts and squares are added.
    local = pd.read_parquet(tmp_path / "ddp" / "0" / "jaynes" / "_gradients").drop(columns="run")
    pd.testing.assert_frame_equal(local, alone, check_exact=True)
    sharded = pd.read_parquet(tmp_path / "sharded" / "0" / "jaynes" / "_gradients")
    exact = "step epoch kind name shape variable n zeros nonfinite codes counts gap q".split()
    pd.testing.assert_frame_equal(sharded[exact], alone[exact], check_exact=True)
    pd.testing.assert_series_equal(sharded.update_ratio, alone.update_ratio, rtol=1e-12)


# 5. Resuming --------------------------------------------------------------------------------


def _resumed(make_trainer: MakeTrainer, make: type[Task], path: Path, every: int) -> None:
    """Compare a run in two parts with one in a single part."""

    def fit(folder: str, epochs: int, checkpoint: Path | None = None) -> EquilibriumMonitor:
        monitor = EquilibriumMonitor(
            instruments="gradients",
            dirpath=path / folder,
            every_n_steps=every,
            sinks=[DatasetSink()],
        )
        trainer = make_trainer(monitor, max_epochs=epochs)
        trainer.fit(make(), _loader(), ckpt_path=checkpoint)
        trainer.save_checkpoint(path / f"{folder}.ckpt")
        return monitor

    whole = fit("whole", 2).history_of("gradients").drop(columns="run")
    fit("parts", 1)
    again = fit("parts", 2, path / "parts.ckpt").history_of("gradients")
    pd.testing.assert_frame_equal(again.drop(columns="run"), whole, check_exact=True)
    stored, expected = (
        pd.read_parquet(path / folder / "jaynes" / "_gradients").drop(columns="run")
        for folder in ("parts", "whole")
    )
    pd.testing.assert_frame_equal(stored, expected, check_exact=True)
    assert stored.step.unique().tolist() == whole.step.unique().tolist()
    assert stored.step.max() > BATCHES


def test_a_resumed_run_is_the_uninterrupted_one(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    _resumed(make_trainer, Task, tmp_path, 3)


def test_with_two_optimizers_too(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    _resumed(make_trainer, GAN, tmp_path, 4)


# 6. Where it is seen ------------------------------------------------------------------------


def test_curves_histograms_and_dataset(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    sinks = [LoggerSink(), HistogramSink(), DatasetSink()]
    monitor = EquilibriumMonitor(instruments=BOTH, every_n_steps=2, sinks=sinks)
    make_trainer(monitor, logger=logger, max_epochs=1).fit(Task(), _loader())
    history, run = monitor.history_of("gradients"), tmp_path / "run"
    assert history.step.unique().tolist() == [2, 4, 5]
    assert history.columns[-1] == "update_ratio"

    events = EventAccumulator(str(run), {"histograms": 0}).Reload()
    curves = {
        "gap_{}": "gap",
        "gap_{}_best_rival": "gap_best_rival",
        "q_{}": "q",
        "update_ratio_{}": "update_ratio",
    }
    expected: dict[str, list[tuple[int, float]]] = {}
    for kind, of_kind in history.groupby("kind"):
        for tag, column in curves.items():
            finite = of_kind[np.isfinite(of_kind[column])]
            for name, of_name in finite.groupby("name"):
                points = list(zip(of_name.step, of_name[column], strict=True))
                expected[f"{tag.format(kind)}/{name}"] = points
            if len(finite):
                medians = finite.groupby("step")[column].median()
                expected[f"gradients/{kind}/{column}_median"] = list(medians.items())
    # A gradient has no ratio, and so no curve of it; AdamW's first updates are all alike.
    assert "update_ratio_update/net.0.weight" in expected
    assert "update_ratio_gradient/net.0.weight" not in expected
    of_us = {tag for tag in events.Tags()["scalars"] if "gradient" in tag or "update" in tag}
    assert of_us == set(expected)
    for tag, points in expected.items():
        logged = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in logged] == [step for step, _ in points], tag
        values = [value for _, value in points]
        assert [value for _, value in logged] == pytest.approx(values, rel=1e-6), tag

    for (kind, name), rows in history.groupby(["kind", "name"]):
        shown = events.Histograms(f"ln_magnitude_{kind}/{name}")
        assert [event.step for event in shown] == rows.step.tolist()
        assert [event.histogram_value.num for event in shown] == rows.n.tolist()

    stored = pd.read_parquet(run / "jaynes" / "_gradients")
    pd.testing.assert_frame_equal(stored[list(history.columns)], history)
    assert set(stored.verdict) == {""}
    assert stored.moved.isna().all()
    assert stored[stored.kind == "gradient"].update_ratio.isna().all()
    assert set(pd.read_parquet(run / "jaynes").kind) == {"weight", "iota"}
    assert "2 gradients (net.0.weight, net.2.weight)" in str(monitor.coverage)
