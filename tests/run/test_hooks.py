from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.distribution import counts_of
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.schedule import at, log_spaced
from jaynes_callbacks.sinks.base import RunContext

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]


class Listening:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.contexts: list[RunContext] = []
        self.written: list[Records] = []
        self.closed: list[tuple[Records, Records, Records]] = []

    def open(self, context: RunContext) -> None:
        self.contexts.append(context)

    def write(self, records: Records, history: Records) -> None:
        if records.schema.main:
            self.written.append(records)

    def close(self, start: Records, end: Records, history: Records) -> None:
        if start.schema.main:
            self.closed.append((start, end, history))

    @property
    def steps(self) -> list[int]:
        return [records[0].step for records in self.written]


@pytest.fixture
def sink() -> Listening:
    return Listening()


def _monitor(sink: Listening, **options: Any) -> EquilibriumMonitor:
    return EquilibriumMonitor(sinks=[sink], **options)


def test_the_untouched_network_then_every_epoch(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    untouched = {name: p.detach().clone() for name, p in task.named_parameters()}
    monitor = _monitor(sink)
    make_trainer(monitor, max_epochs=3).fit(task, loader)
    assert sink.steps == [0, 6, 12, 18]
    assert [records[0].epoch for records in sink.written] == [0, 0, 1, 2]
    start = sink.written[0].by_stream()
    assert list(start) == [
        ("weight", "first.weight"),
        ("weight", "last.weight"),
        ("iota", "act"),
        ("iota", "relu"),
    ]
    for name in ("first.weight", "last.weight"):
        record = start["weight", name]
        assert record.max == untouched[name].abs().max()
        assert record.moved == 0
    assert start["iota", "act"].n + start["iota", "act"].zeros == 16 * 32
    assert monitor.history.step.unique().tolist() == [0, 6, 12, 18]
    assert len(monitor.history) == 16
    ((first, last, history),) = sink.closed
    assert (first[0].step, last[0].step, len(history)) == (0, 18, 16)
    assert monitor.end is sink.written[-1]
    assert [row.verdict != "" for row in monitor.end] == [True] * 4


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"every_n_epochs": 2}, [0, 12, 18]),
        ({"every_n_epochs": None, "every_n_steps": 4}, [0, 4, 8, 12, 16, 18]),
        ({"every_n_steps": 3}, [0, 3, 6, 9, 12, 15, 18]),
        ({"every_n_epochs": None}, [0, 18]),
        ({"every_n_epochs": None, "every_n_steps": log_spaced(3)}, [0, 1, 2, 5, 10, 18]),
        ({"every_n_epochs": at([2]), "every_n_steps": at([4, 17])}, [0, 4, 12, 17, 18]),
    ],
)
def test_cadence(
    options: dict[str, Any],
    steps: list[int],
    sink: Listening,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
) -> None:
    make_trainer(_monitor(sink, **options), max_epochs=3).fit(task, loader)
    assert sink.steps == steps


def test_a_record_due_by_step_has_that_step_s_activations(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink, every_n_steps=2, iota_every_n_batches=1000)
    make_trainer(monitor, max_epochs=1).fit(task, loader)
    for records in sink.written:
        assert len(records.select(kind="iota")) == 2, records[0].step


def test_activations_are_counted_in_every_nth_batch(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    make_trainer(_monitor(sink, iota_every_n_batches=2), max_epochs=2).fit(task, loader)
    seen = [r.n + r.zeros for records in sink.written for r in records.select(name="act")]
    # Batch 0 belongs to step 0; then 1 (the first since), 2 and 4; then 0, 2 and 4 of epoch 1.
    assert seen == [512 * batches for batches in (1, 3, 3)]


def test_steps_are_optimizer_steps(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    make_trainer(_monitor(sink), accumulate_grad_batches=3).fit(task, loader)
    assert sink.steps == [0, 2, 4]


def test_validation_is_no_training(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink, iota_every_n_batches=1)
    make_trainer(monitor, max_epochs=1).fit(task, loader, loader)
    assert sum(r.n + r.zeros for w in sink.written for r in w.select(name="act")) == 6 * 512


def test_activations_of_validation_forwards(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink, iota_from="validation", iota_every_n_batches=1)
    make_trainer(monitor, max_epochs=2).fit(task, loader, loader)
    assert [len(records.select(kind="iota")) for records in sink.written] == [0, 2, 2]
    assert sink.written[1].select(name="act")[0].n + sink.written[1].select(name="act")[
        0
    ].zeros == (6 * 512)


class Checkpointed(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = torch.utils.checkpoint.checkpoint(self.body, batch[0], use_reentrant=False)
        return nn.functional.cross_entropy(out, batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_recomputed_forward_is_not_counted_twice(
    sink: Listening, loader: Loader, make_trainer: MakeTrainer
) -> None:
    make_trainer(_monitor(sink), max_epochs=1).fit(Checkpointed(), loader)
    (record,) = sink.written[0].select(kind="iota")
    assert record.n + record.zeros == 16 * 32


@pytest.mark.parametrize("ours_first", [True, False])
def test_early_stopping_and_checkpoints_on_the_aggregates(
    ours_first: bool,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    monitor = EquilibriumMonitor(sinks=[])
    stopping = EarlyStopping(
        "equilibrium/weight/gap_median", patience=1, min_delta=10.0, check_on_train_epoch_end=True
    )
    checkpoint = ModelCheckpoint(tmp_path, monitor="equilibrium/iota/gap_worst")
    callbacks = [monitor, stopping] if ours_first else [stopping, monitor]
    trainer = make_trainer(*callbacks, checkpoint, max_epochs=9, enable_checkpointing=True)
    trainer.fit(task, loader)
    assert trainer.current_epoch == 2
    assert checkpoint.best_model_path
    median = monitor.end.select(kind="weight").to_pandas().gap.median()
    assert trainer.callback_metrics["equilibrium/weight/gap_median"] == pytest.approx(median)


def test_a_resumed_run_keeps_its_start(
    sink: Listening,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    first = _monitor(sink)
    trainer = make_trainer(first, max_epochs=1)
    trainer.fit(task, loader)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed_sink = Listening()
    resumed = _monitor(resumed_sink)
    make_trainer(resumed, max_epochs=2).fit(
        type(task)(), loader, ckpt_path=tmp_path / "one.ckpt", weights_only=True
    )
    assert resumed_sink.steps == [12]
    assert resumed_sink.contexts[0].resumed_step == 6
    assert resumed.start[0].gap == first.start[0].gap
    assert resumed.end[0].moved > 0


def test_fit_twice_goes_on(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink)
    trainer = make_trainer(monitor, max_epochs=1)
    trainer.fit(task, loader)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(task, loader)
    assert sink.steps == [0, 6, 12]
    assert len(monitor.history) == 12


def test_another_run_begins_anew(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink)
    for _ in range(2):
        make_trainer(monitor, max_epochs=1).fit(type(task)(), loader)
    assert sink.steps == [0, 6, 0, 6]
    assert monitor.history.step.tolist() == [0] * 4 + [6] * 4


def test_two_monitors_keep_apart(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    other = Listening()
    make_trainer(_monitor(sink, kinds="weight"), _monitor(other, kinds="iota")).fit(task, loader)
    assert {r.kind for records in sink.written for r in records} == {"weight"}
    assert {r.kind for records in other.written for r in records} == {"iota"}


@pytest.mark.fitted
def test_saved_counts_reproduce_the_run_s_records(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    from jaynes_callbacks.instruments.distribution import recompute

    make_trainer(_monitor(sink)).fit(task, loader)
    for records in sink.written:
        # Sums over a batch of more streams, here with the cores, round otherwise.
        pd.testing.assert_frame_equal(
            recompute(records).to_pandas(), records.to_pandas(), rtol=1e-9, atol=1e-12
        )
    assert counts_of(sink.written[0]).sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["weights"]}, "kinds must be some of"),
        ({"every_n_epochs": 0}, "every_n_epochs must be a positive integer, .* got 0"),
        ({"every_n_steps": 1.5}, "every_n_steps must be a positive integer, .* got 1.5"),
        ({"iota_every_n_batches": -1}, "iota_every_n_batches must be a positive integer, got -1"),
        ({"every_n_steps": lambda: True}, "every_n_steps must take one argument"),
        ({"iota_from": "test"}, "iota_from must be one of .*got 'test'"),
        ({"min_size": -3}, "min_size must be"),
    ],
)
def test_wrong_arguments_raise_where_they_are_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EquilibriumMonitor(sinks=[], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "frist.*"}, r"include pattern 'frist\.\*' matches no .* first"),
        ({"exclude": "nope"}, "exclude pattern 'nope' matches no"),
        ({"min_size": 10**6}, "no weight is left to watch"),
    ],
)
def test_what_does_not_fit_the_model_raises_before_training(
    options: dict[str, Any],
    message: str,
    task: Any,
    loader: Loader,
    make_trainer: MakeTrainer,
) -> None:
    monitor = EquilibriumMonitor(sinks=[], **options)
    with pytest.raises(ValueError, match=message):
        make_trainer(monitor).fit(task, loader)
    assert task.losses == []


def test_a_sink_must_be_a_sink() -> None:
    with pytest.raises(TypeError, match=r"open, write and close.*got 'csv'"):
        EquilibriumMonitor(sinks=["csv"])  # type: ignore[list-item]


class Seeing(L.Callback):
    """What a callback sees at the end of validation, and the step it sees it at."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.seen: dict[int, float] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.seen[trainer.global_step] = float(trainer.callback_metrics[self.key])


@pytest.mark.parametrize("iota_from", ["train", "validation"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_the_end_of_validation_sees_this_epoch_s_figures(
    iota_from: str,
    ours_first: bool,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
) -> None:
    monitor = EquilibriumMonitor(sinks=[], iota_from=iota_from)  # type: ignore[arg-type]
    seeing = Seeing("equilibrium/weight/gap_median")
    callbacks = [monitor, seeing] if ours_first else [seeing, monitor]
    make_trainer(*callbacks, max_epochs=3).fit(task, loader, loader)
    weights = monitor.history[monitor.history.kind == "weight"]
    medians = weights.groupby("step").gap.median()
    assert list(seeing.seen) == [6, 12, 18]
    for step, value in seeing.seen.items():
        assert value == pytest.approx(medians[step], rel=1e-5)


class TwoOptimizers(L.LightningModule):
    """Manual optimization: a step of each optimizer in every batch, as a GAN's."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.one = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.two = nn.Sequential(nn.Linear(32, 16), nn.ReLU())

    def training_step(self, batch: tuple[Tensor, Tensor]) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.two(self.one(batch[0])).mean())
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.one, self.two)]


def test_two_optimizers_step_twice_in_a_batch(
    sink: Listening, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink, every_n_epochs=None, every_n_steps=3)
    make_trainer(monitor, max_epochs=1).fit(TwoOptimizers(), loader)
    # Steps 3 and 9 are jumped over: the record is taken at the next one.
    assert sink.steps == [0, 4, 6, 10, 12]
    for records in sink.written[:4]:
        assert [r.name for r in records.select(kind="iota")] == [
            "one.1",
            "two.1",
            "one.1#1",
            "two.1#1",
        ]


class TakingAgain(torch.optim.SGD):
    """Evaluates its closure several times, as LBFGS does."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        closure()
        return super().step(closure)


def test_a_closure_that_is_evaluated_again_is_counted_once(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    task.configure_optimizers = lambda: TakingAgain(task.parameters(), lr=0.1)  # type: ignore[method-assign]
    make_trainer(_monitor(sink), max_epochs=1).fit(task, loader)
    records = sink.written[0].select(kind="iota")
    assert [(r.name, r.n + r.zeros) for r in records] == [("act", 512), ("relu", 512)]


def test_a_resumed_run_is_the_same_run(
    sink: Listening,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    first = _monitor(sink)
    trainer = make_trainer(first, max_epochs=1)
    trainer.fit(task, loader)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = Listening()
    resumed = _monitor(again)
    # No record is due before the end: what early stopping watches comes from the checkpoint.
    seeing = Seeing("equilibrium/weight/gap_median")
    make_trainer(resumed, seeing, max_epochs=2).fit(
        type(task)(), loader, loader, ckpt_path=tmp_path / "one.ckpt"
    )
    (before,), (context,) = sink.contexts, again.contexts
    assert context.run_id == before.run_id
    assert context.resumed_directory == before.directory
    assert (counts_of(resumed.start) == counts_of(first.start)).all()
    assert list(seeing.seen) == [12]


def test_another_run_has_another_id(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink)
    for _ in range(2):
        make_trainer(monitor, max_epochs=1).fit(type(task)(), loader)
    first, second = sink.contexts
    assert first.run_id != second.run_id
    assert second.resumed_step is second.resumed_directory is None


def test_only_fit_is_watched(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = _monitor(sink, iota_from="validation")
    trainer = make_trainer(monitor, max_epochs=1)
    trainer.validate(task, loader, verbose=False)
    trainer.fit(task, loader, loader)
    trainer.validate(task, loader, verbose=False)
    assert sink.steps == [0, 6]
    assert len(sink.closed) == 1
    assert torch.overrides._get_current_function_mode() is None


def test_the_coverage_is_said_once(
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_trainer(EquilibriumMonitor(sinks=[])).fit(task, loader)
    (said,) = (r.getMessage() for r in caplog.records if "watching" in r.getMessage())
    assert "watching 2 weights (first.weight, last.weight) and 2 activations (act, relu)" in said
    assert "not 4: fewer than 2 dimensions (first.bias" in said


def test_a_pattern_that_no_stream_matched_is_said_once(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = EquilibriumMonitor(sinks=[], include=["last.*", "norm.relu"])
    with pytest.warns(
        UserWarning, match=r"include patterns \['norm.relu'\] match no stream"
    ) as said:
        make_trainer(monitor).fit(task, loader)
    assert sum("include patterns" in str(warning.message) for warning in said) == 1


def test_fast_dev_run(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    make_trainer(_monitor(sink), fast_dev_run=True).fit(task, loader, loader)
    assert sink.steps == [0, 1]


def test_steps_without_epochs_end_with_a_record(
    sink: Listening, task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    make_trainer(_monitor(sink, every_n_epochs=None), max_epochs=-1, max_steps=8).fit(task, loader)
    assert sink.steps == [0, 8]
    assert [records[0].epoch for records in sink.written] == [0, 1]


def test_a_remote_directory_is_no_place_for_files(
    sink: Listening,
    task: L.LightningModule,
    loader: Loader,
    make_trainer: MakeTrainer,
) -> None:
    from jaynes_callbacks.run.lightning import run_directory

    class Remote:
        save_dir, name, version = "s3://bucket/runs", "digits", 3

    trainer = make_trainer()
    assert run_directory(trainer) == Path(trainer.default_root_dir)
    trainer.loggers = [Remote()]
    # As ModelCheckpoint does: the run has a folder of its own, not the working directory.
    assert run_directory(trainer) == Path(trainer.default_root_dir, "digits", "3")
    Remote.save_dir = None  # type: ignore[assignment]
    assert run_directory(trainer) == Path(trainer.default_root_dir, "digits", "3")
    Remote.save_dir = "runs"
    assert run_directory(trainer) == Path("runs/digits/3")
