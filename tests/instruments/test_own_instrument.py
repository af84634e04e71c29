"""A user's own instrument, in thirty lines, goes every road with nothing of the package changed."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, State
from jaynes_callbacks.probes.selection import Coverage
from jaynes_callbacks.records.exports import open_export
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.report import read_run, write_report
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.sinks.loggers import curves_of

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]


# Thirty lines -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BiasRow(Row):
    norm: float = column("w", "Euclidean norm of the bias", label="norm of bias", curve=True)
    largest: float = column("w", "largest magnitude over all ranks", shown=True)
    ranks: int = column("ranks", "how many contributed", 0)


class Biases(Instrument[BiasRow]):
    name = "biases"
    schema = Schema(BiasRow, "biases", "Biases")
    quantities: ClassVar = {
        "square": Quantity(),
        "largest": Quantity(reduction="max"),
        "ranks": Quantity(dtype=torch.int64),
    }

    @property
    def coverage(self) -> Coverage:
        names = [name for name, p in self.model.named_parameters() if p.dim() == 1]
        return Coverage(tuple(Stream("bias", name) for name in names), ())

    def collect(self) -> State:
        streams = self.coverage.watched
        values = [self.model.get_parameter(stream.name).detach() for stream in streams]
        tensors = {
            "square": torch.stack([each.square().sum().double() for each in values]),
            "largest": torch.stack([each.abs().max().double() for each in values]),
            "ranks": torch.ones(len(streams), dtype=torch.int64),
        }
        return State.of(streams, tensors, shared=True)

    def compute(self, moments: Sequence[Moment]) -> list[Frame[BiasRow]]:
        return [
            self.frame(
                moment,
                {
                    "norm": moment.state["square"].sqrt(),
                    "largest": moment.state["largest"],
                    "ranks": moment.state["ranks"],
                },
            )
            for moment in moments
        ]


# The roads ----------------------------------------------------------------------------------


def test_it_records_beside_others_each_at_its_own_cadence(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    biases = Biases(Cadence(every_n_epochs=None, every_n_steps=4))
    monitor = EquilibriumMonitor(instruments=["magnitudes", biases], sinks=[])
    untouched = task.first.bias.detach().clone()
    make_trainer(monitor, max_epochs=2).fit(task, loader)
    own = monitor.history_of("biases")
    assert own.step.unique().tolist() == [0, 4, 8, 12]
    assert monitor.history.step.unique().tolist() == [0, 6, 12]
    first = own[(own.step == 0) & (own.name == "first.bias")]
    assert first.norm.item() == pytest.approx(untouched.double().norm().item(), rel=1e-6)
    last = own[(own.step == 12) & (own.name == "first.bias")]
    assert last.norm.item() == pytest.approx(task.first.bias.double().norm().item(), rel=1e-6)
    assert "biases (first.bias" in str(monitor.coverage)
    with pytest.raises(KeyError, match=r"no instrument 'others'; there are \['magnitudes', 'bia"):
        monitor.history_of("others")


def test_alone_it_is_the_history(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = EquilibriumMonitor(instruments=Biases(), sinks=[])
    make_trainer(monitor, max_epochs=1).fit(task, loader)
    assert monitor.history.step.unique().tolist() == [0, 6]
    assert list(monitor.history.columns)[-3:] == ["norm", "largest", "ranks"]


def test_it_reaches_tensorboard_dataset_report_and_csv(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    monitor = EquilibriumMonitor(instruments=["magnitudes", Biases()])
    make_trainer(monitor, logger=logger).fit(task, loader)
    expected = monitor.history_of("biases")
    run = tmp_path / "run"

    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()["scalars"]
    assert {"norm_bias/first.bias", "biases/bias/norm_median"} <= set(tags)
    of_first = expected[expected.name == "first.bias"]
    logged = [(event.step, event.value) for event in events.Scalars("norm_bias/first.bias")]
    assert [step for step, _ in logged] == of_first.step.tolist()
    assert [value for _, value in logged] == pytest.approx(of_first.norm.tolist(), rel=1e-6)

    dataset = run / "jaynes"
    stored = pd.read_parquet(dataset / "_biases")
    pd.testing.assert_frame_equal(stored[list(expected.columns)], expected)
    assert set(pd.read_parquet(dataset).kind) == {"weight", "iota"}, "its rows are not among others"

    page = write_report([read_run(dataset)], tmp_path / "report.html").read_text()
    assert "Biases" in page
    assert "norm of bias" in page
    assert "last.bias" in page

    frame = monitor._delivery.histories["biases"].frame()
    with open_export(tmp_path / "rows.csv", "csv", frame.schema) as export:
        export.write(frame)
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["norm"]) for row in rows] == expected.norm.tolist()
    assert repr(frame).splitlines()[0].split() == "kind name step norm of bias largest".split()


def test_it_resumes(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(folder: str, epochs: int, checkpoint: str | None = None) -> EquilibriumMonitor:
        L.seed_everything(1, verbose=False)
        monitor = EquilibriumMonitor(
            instruments=["magnitudes", Biases()], dirpath=tmp_path / folder, every_n_steps=5
        )
        trainer = make_trainer(monitor, max_epochs=epochs)
        trainer.fit(task, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{folder}.ckpt")
        return monitor

    start = {name: value.clone() for name, value in task.state_dict().items()}
    whole = fit("whole", 2).history_of("biases")
    task.load_state_dict(start)
    fit("parts", 1)
    resumed = fit("parts", 2, str(tmp_path / "parts.ckpt"))
    again = resumed.history_of("biases")
    assert again.step.tolist() == whole.step.tolist()
    assert again.step.unique().tolist() == [0, 5, 6, 10, 12]
    assert pd.read_parquet(tmp_path / "parts/jaynes/_biases").step.tolist() == whole.step.tolist()
    # The first record is that of the first part, with its values.
    assert again.norm.iloc[0] == whole.norm.iloc[0]
    start_of = resumed._run.recorder.start_of("biases")  # type: ignore[union-attr]
    assert start_of["step"].tolist() == [0] * len(start_of)


def _of_rank() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.bias.fill_(dist.get_rank() + 1.0)
    recorder = Recorder(model, instruments=["magnitudes", Biases()])
    recorder.attach()
    frames = [recorder.record(step)["biases"] for step in range(2)]
    return [row.to_dict() for frame in frames for row in frame]


def test_two_ranks_reduce_its_state_each_quantity_in_its_way(
    ranks: Callable[..., list[Any]],
) -> None:
    first, second = ranks(_of_rank)
    assert first == second
    for row in first:
        assert row["ranks"] == 2
        assert row["largest"] == 2.0
        assert row["norm"] == pytest.approx((3 * 1.0 + 3 * 4.0) ** 0.5)


class Failing(Biases):
    name = "failing"
    schema = Schema(BiasRow, "failing")

    def collect(self) -> State:
        raise ArithmeticError("cannot be collected")


def test_one_that_fails_says_so_once_and_costs_no_other_a_record(
    task: L.LightningModule, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = EquilibriumMonitor(instruments=["magnitudes", Failing(), Biases()], sinks=[])
    message = "no record by the instrument failing: ArithmeticError: cannot be collected"
    with pytest.warns(UserWarning, match=message) as caught:
        make_trainer(monitor, max_epochs=2).fit(task, loader)
    assert sum("failing" in str(warning.message) for warning in caught) == 1
    assert monitor.history.step.unique().tolist() == [0, 6, 12]
    assert monitor.history_of("biases").step.unique().tolist() == [0, 6, 12]
    assert not len(monitor.history_of("failing"))


@pytest.mark.parametrize(
    ("instruments", "error", "message"),
    [
        ("magnitude", ValueError, "no instrument 'magnitude'; known are"),
        ([], ValueError, "one or more of different names, got none"),
        ([Biases(), Biases()], ValueError, r"different names, got \['biases', 'biases'\]"),
        ([3], TypeError, "an instrument is a name of .* or an object of a subclass of .*, got 3"),
    ],
)
def test_wrong_instruments_are_refused_at_construction(
    instruments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EquilibriumMonitor(instruments=instruments)


def test_the_first_curve_is_the_one_that_the_schema_names() -> None:
    @dataclass(frozen=True, eq=False)
    class Two(Row):
        before: float = column("", "another", curve=True)
        norm: float = column("w", "the one that matters", curve=True)

    schema = Schema(Two, first_curve="norm")
    assert [each.name for each in schema.curves] == ["norm", "before"]
    assert [each.name for each in curves_of(schema, streams=10, room=10)] == ["norm"]
    with pytest.raises(ValueError, match=r"one of its curves \['before', 'norm'\], got 'nrom'"):
        Schema(Two, first_curve="nrom")


def test_a_row_of_undeclared_fields_is_refused() -> None:
    @dataclass(frozen=True, eq=False)
    class Wrong(Row):
        value: float = 0.0

    with pytest.raises(TypeError, match=r"Wrong\.value must be declared by column\(\.\.\.\)"):
        Schema(Wrong)
