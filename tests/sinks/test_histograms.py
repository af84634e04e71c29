import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.instruments.scale_row import SCHEMA as SCALES
from jaynes_callbacks.instruments.scale_row import ScaleRow
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.histograms import HistogramSink


class Writer:
    """Has what histograms need, and nothing else."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int]] = []

    def add_histogram_raw(self, tag: str, *, global_step: int, **_: Any) -> None:
        self.shown.append((tag, global_step))


class Board:
    def __init__(self) -> None:
        self.experiment = Writer()

    @property
    def steps(self) -> list[int]:
        return list(dict.fromkeys(step for _, step in self.experiment.shown))


class Unreachable:
    @property
    def experiment(self) -> Any:
        raise ConnectionError("server is down")


def one(step: int, name: str = "fc.weight") -> Record:
    return Record(name=name, n=7, step=step, codes=np.array([2032]), counts=np.array([7]))


def show(sink: HistogramSink, snapshots: list[Records], *loggers: Any) -> None:
    sink.open(RunContext(loggers=loggers))
    for records in snapshots:
        sink.write(records, Records())
    sink.close(snapshots[0], snapshots[-1], Records())


def test_it_is_a_sink() -> None:
    assert isinstance(HistogramSink(), Sink)


def test_tensorboard_shows_where_the_values_are(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    show(HistogramSink(), snapshots, logger)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, {"histograms": 0}).Reload()
    assert set(events.Tags()["histograms"]) == {
        "ln_magnitude_weight/net.0.weight",
        "ln_magnitude_weight/net.2.weight",
        "ln_magnitude_iota/net.1",
    }
    found = events.Histograms("ln_magnitude_weight/net.0.weight")
    assert [event.step for event in found] == [0, 10, 20]
    value, record = found[-1].histogram_value, snapshots[-1][0]
    assert value.num == sum(value.bucket) == record.n
    assert value.sum / value.num == pytest.approx(record.log_mean)
    assert value.sum_squares / value.num == pytest.approx(record.log_std**2 + record.log_mean**2)
    assert value.max == value.bucket_limit[-1] == pytest.approx(math.log(record.max), abs=0.07)
    assert value.min < value.bucket_limit[0]


def test_streams_are_chosen_once_and_evenly() -> None:
    board = Board()
    snapshots = [Records(one(step, f"layer.{i}") for i in range(100)) for step in (0, 1)]
    show(HistogramSink(max_streams=4), snapshots, board)
    tags = [f"ln_magnitude_weight/layer.{i}" for i in (0, 33, 66, 99)]
    assert board.experiment.shown == [(tag, step) for step in (0, 1) for tag in tags]


def test_a_long_run_shows_ever_fewer_and_always_the_last() -> None:
    board = Board()
    show(HistogramSink(), [Records([one(step)]) for step in range(1000)], board)
    assert board.steps[:66] == [*range(64), 64, 66]
    assert np.diff(board.steps[:-1]).max() == 16
    assert board.steps[-1] == 999
    assert len(board.steps) < 64 * 5


def test_what_has_no_counts_is_left_out(bare: Record) -> None:
    board = Board()
    show(HistogramSink(), [Records(), Records([bare, one(3)])], board)
    assert board.experiment.shown == [("ln_magnitude_weight/fc.weight", 3)]
    show(HistogramSink(max_streams=0), [Records([one(3)])], board)
    assert len(board.experiment.shown) == 1


def test_cores_of_weights_are_left_out() -> None:
    """They have counts, but would stand under the names of the weights themselves."""
    board = Board()
    frame = Frame.from_rows(
        SCALES, [ScaleRow(name="fc.weight", n=7, codes=np.array([2032]), counts=np.array([7]))]
    )
    show(HistogramSink(), [frame, Records([one(3)])], board)  # type: ignore[list-item]
    assert board.experiment.shown == [("ln_magnitude_weight/fc.weight", 3)]


def test_loggers_without_histograms_are_passed_over(snapshots: list[Records]) -> None:
    show(HistogramSink(), snapshots, object(), DummyLogger())


def test_a_logger_that_fails_costs_only_itself(snapshots: list[Records]) -> None:
    board = Board()
    with pytest.warns(UserWarning, match="Unreachable gets no more histograms") as said:
        show(HistogramSink(), snapshots, Unreachable(), board)
    assert len(said) == 1
    assert board.steps == [0, 10, 20]


def test_a_negative_number_of_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="max_streams must be 0 or more, got -1"):
        HistogramSink(max_streams=-1)
