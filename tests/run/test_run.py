"""Records by step are counted at once, fitted in groups, and never late for whoever asks."""

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.base import Moment
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.recorder import Recorder
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.run import run
from jaynes_callbacks.sinks.base import RunContext

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]
STREAMS = 4


class Noting(L.Callback):
    """A sink that notes at which step of the trainer each record comes."""

    def __init__(self) -> None:
        self.now = 0
        self.arrivals: list[tuple[int, int]] = []
        self.records: list[Records] = []

    def open(self, context: RunContext) -> None:
        """Nothing to prepare."""

    def write(self, records: Records, history: Records) -> None:
        if not records.schema.main:
            return
        assert history[-1].step == records[-1].step
        self.arrivals.append((records[0].step, self.now))
        self.records.append(records)

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Nothing to finish."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.now = trainer.global_step


@pytest.fixture
def noting() -> Noting:
    return Noting()


def _fit(
    noting: Noting, task: L.LightningModule, loader: Loader, trainer: Callable[..., L.Trainer]
) -> EquilibriumMonitor:
    monitor = EquilibriumMonitor(
        sinks=[noting], every_n_epochs=None, every_n_steps=1, iota_every_n_batches=1
    )
    trainer(noting, monitor).fit(task, loader)
    return monitor


def test_records_by_step_come_in_groups_and_in_order(
    noting: Noting, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    _fit(noting, task, loader, lambda *callbacks: make_trainer(*callbacks, max_epochs=4))
    assert [step for step, _ in noting.arrivals] == list(range(25))
    # The first at once; then 16 together; the rest when training ends.
    assert [now for _, now in noting.arrivals] == [0] + 16 * [15] + 8 * [23]


def test_a_group_is_bounded_by_its_streams(
    noting: Noting,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "_GROUP_STREAMS", 2 * STREAMS + 1)
    _fit(noting, task, loader, lambda *callbacks: make_trainer(*callbacks, max_epochs=1))
    # The first batch's activations are in the record of the untouched network.
    assert [len(records) for records in noting.records] == [STREAMS, 2, *5 * [STREAMS]]
    assert [now for _, now in noting.arrivals] == [0, 1, 1, 3, 3, 5, 5]


@pytest.mark.fitted
def test_the_figures_are_those_of_records_fitted_alone(
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = {name: value.clone() for name, value in task.state_dict().items()}
    frames = []
    for group in (16, 1):
        monkeypatch.setattr(run, "_GROUP", group)
        task.load_state_dict(first)
        L.seed_everything(5, verbose=False)
        monitor = _fit(Noting(), task, loader, make_trainer)
        frames.append(monitor.history.select_dtypes("number"))
    assert frames[0].step.nunique() == 13
    together, alone = frames
    assert together.to_numpy() == pytest.approx(alone.to_numpy(), rel=1e-7, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    "decider",
    [
        EarlyStopping("equilibrium/weight/gap_median", patience=99),
        ModelCheckpoint(monitor="equilibrium/iota/gap_worst", every_n_train_steps=2),
        EarlyStopping("scales/weight/core_gap_median", patience=99),
    ],
    ids=["early stopping", "checkpoint", "another instrument"],
)
def test_whoever_decides_by_our_numbers_does_not_wait(
    decider: L.Callback,
    noting: Noting,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
) -> None:
    # Their defaults would call for a checkpoint callback of the trainer's own.
    options = {"max_epochs": 1, "enable_checkpointing": isinstance(decider, ModelCheckpoint)}
    _fit(noting, task, loader, lambda *callbacks: make_trainer(decider, *callbacks, **options))
    assert [now for _, now in noting.arrivals] == [0, 0, 1, 2, 3, 4, 5]


class Asking(L.Callback):
    """Looks into the monitor in the middle of a group."""

    def __init__(self, look: Callable[[EquilibriumMonitor], Any]) -> None:
        self.look = look
        self.seen: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 4:
            (monitor,) = (c for c in trainer.callbacks if isinstance(c, EquilibriumMonitor))
            self.seen = self.look(monitor)


@pytest.mark.parametrize(
    ("look", "seen"),
    [
        (lambda monitor: monitor.history.step.max(), 4),
        (lambda monitor: monitor.end[0].step, 4),
        (lambda monitor: monitor.state_dict()["recorded_step"], 4),
    ],
    ids=["history", "end", "state"],
)
def test_whoever_looks_sees_all_that_was_recorded(
    look: Callable[[EquilibriumMonitor], Any],
    seen: int,
    noting: Noting,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
) -> None:
    asking = Asking(look)
    _fit(noting, task, loader, lambda *callbacks: make_trainer(asking, *callbacks, max_epochs=1))
    assert asking.seen == seen
    # All that had been counted was handed on before it was answered.
    assert [step for step, now in noting.arrivals if now <= 4] == [0, 1, 2, 3, 4]


@pytest.mark.fitted
def test_what_cannot_be_fitted_costs_no_other_record(
    noting: Noting,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summarise = Recorder.summarise

    def failing(self: Recorder, moments: list[dict[str, Moment]]) -> list[dict[str, Frame[Any]]]:
        if any(moment.step == 3 for each in moments for moment in each.values()):
            raise ArithmeticError("no fit of step 3")
        return summarise(self, moments)

    monkeypatch.setattr(Recorder, "summarise", failing)
    with pytest.warns(UserWarning, match="no equilibrium record: ArithmeticError: no fit of"):
        _fit(noting, task, loader, lambda *callbacks: make_trainer(*callbacks, max_epochs=1))
    assert [step for step, _ in noting.arrivals] == [0, 1, 2, 4, 5, 6]


class Failing(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 4:
            raise KeyboardInterrupt


def test_an_interruption_loses_nothing(
    noting: Noting, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        _fit(noting, task, loader, lambda *callbacks: make_trainer(*callbacks, Failing()))
    assert [step for step, _ in noting.arrivals] == [0, 1, 2, 3, 4]
