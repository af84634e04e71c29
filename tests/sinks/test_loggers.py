import csv
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.instruments.verdict import rival_gaps
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.loggers import LoggerSink


class Plain:
    """A logger that has nothing but `log_metrics`."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


class Broken:
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        raise ConnectionError("server is down")


def log(sink: LoggerSink, snapshots: list[Records], *loggers: Any) -> None:
    sink.open(RunContext(loggers=loggers))
    for records in snapshots:
        sink.write(records, Records())
    sink.close(snapshots[0], snapshots[-1], Records())


def many(number: int, step: int = 0) -> Records:
    kinds = ("weight", "iota")
    rows = (
        Record(kind=kind, name=f"layer.{i}", step=step, gap=0.1, gap_best_rival=0.3, q=0.2)
        for kind in kinds
        for i in range(number // 2)
    )
    return Records(rows)


def groups(metrics: dict[str, float]) -> list[str]:
    return list(dict.fromkeys(tag.split("/")[0] for tag in metrics))


def test_it_is_a_sink() -> None:
    assert isinstance(LoggerSink(), Sink)


def test_a_logger_needs_log_metrics_only(snapshots: list[Records]) -> None:
    logger = Plain()
    log(LoggerSink(), snapshots, logger)
    assert [step for step, _ in logger.rows] == [0, 10, 20]
    metrics = logger.rows[-1][1]
    record = snapshots[-1][0]
    assert metrics["gap_weight/net.0.weight"] == record.gap
    assert metrics["gap_weight_best_rival/net.0.weight"] == min(rival_gaps(record).values())
    assert metrics["equilibrium/weight/gap_worst"] >= metrics["equilibrium/weight/gap_median"]
    assert "gap_iota/net.1" in metrics


def test_the_overview_comes_first_in_a_viewer_that_sorts() -> None:
    logger = Plain()
    log(LoggerSink(), [many(4)], logger)
    assert sorted(groups(logger.rows[0][1])) == [
        "equilibrium",
        "gap_iota",
        "gap_iota_best_rival",
        "gap_weight",
        "gap_weight_best_rival",
        "q_iota",
        "q_weight",
    ]


def test_what_is_undefined_is_not_logged(snapshots: list[Records], bare: Record) -> None:
    logger = Plain()
    infinite = bare.replace(name="odd", q=-math.inf)
    log(LoggerSink(), [Records([bare, infinite]), snapshots[1] + Records([bare])], logger)
    ((step, metrics),) = logger.rows
    assert step == 10
    assert all(math.isfinite(value) for value in metrics.values())
    assert not any("empty.weight" in tag for tag in metrics)


@pytest.mark.parametrize(
    ("streams", "tags", "curves"), [(70, 210, 3), (72, 72, 1), (210, 210, 1), (1000, 210, 1)]
)
def test_tags_stay_few(streams: int, tags: int, curves: int) -> None:
    logger = Plain()
    log(LoggerSink(), [many(streams), many(streams, step=5)], logger)
    first, second = (metrics for _, metrics in logger.rows)
    ours = [tag for tag in first if not tag.startswith("equilibrium/")]
    assert len(ours) == tags
    assert len(first) <= 300
    assert first.keys() == second.keys(), "a curve is whole"
    assert len([tag for tag in ours if re.fullmatch(r"\w*weight\w*/layer\.0", tag)]) == curves
    assert f"gap_iota/layer.{streams // 2 - 1}" in first, "the last layer is among them"
    assert {"gap_weight", "gap_iota"} <= set(groups(first))


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="jaynes_callbacks"):
        log(LoggerSink(), [many(1000), many(1000, step=5)], Plain())
    (message,) = caplog.messages
    assert message.startswith("210 of 1000 streams")


def test_streams_that_appear_later_get_the_room_that_is_left() -> None:
    logger = Plain()
    log(LoggerSink(max_stream_tags=12), [many(2), many(6, step=5)], logger)
    tags = {tag for tag in logger.rows[1][1] if tag.startswith("gap_weight/")}
    tags |= {tag for tag in logger.rows[1][1] if tag.startswith("gap_iota/")}
    assert tags == {
        "gap_weight/layer.0",
        "gap_iota/layer.0",
        "gap_weight/layer.1",
        "gap_weight/layer.2",
    }


def test_no_stream_tags_at_all() -> None:
    logger = Plain()
    log(LoggerSink(max_stream_tags=0), [many(6)], logger)
    assert groups(logger.rows[0][1]) == ["equilibrium"]


def test_a_negative_number_of_tags_is_refused() -> None:
    with pytest.raises(ValueError, match="max_stream_tags must be 0 or more, got -1"):
        LoggerSink(max_stream_tags=-1)


def test_a_logger_that_fails_costs_only_itself(snapshots: list[Records]) -> None:
    before, after = Plain(), Plain()
    with pytest.warns(UserWarning, match="Broken .*ConnectionError: server is down") as said:
        log(LoggerSink(), snapshots, before, Broken(), after)
    assert len(said) == 1
    assert len(before.rows) == len(after.rows) == 3


def test_nothing_to_log_and_nobody_to_log_to(bare: Record, snapshots: list[Records]) -> None:
    logger = Plain()
    log(LoggerSink(), [Records(), Records([bare])], logger)
    assert logger.rows == []
    log(LoggerSink(), snapshots)


def test_tensorboard_has_every_curve_at_its_step(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    names = ["a/b", "../x", "层.权重", "relu#1", "x" * 300]
    odd = Records(snapshots[0][0].replace(name=name) for name in names)
    log(LoggerSink(), [snapshots[0] + odd, *snapshots[1:]], logger)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    curve = events.Scalars("gap_weight/net.0.weight")
    assert [event.step for event in curve] == [0, 10, 20]
    assert [event.value for event in curve] == pytest.approx([s[0].gap for s in snapshots])
    tags = events.Tags()["scalars"]
    assert {f"gap_weight/{name}" for name in names} <= set(tags)
    assert not any(math.isnan(e.value) for tag in tags for e in events.Scalars(tag))


def test_csv_has_every_curve(snapshots: list[Records], tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    log(LoggerSink(), snapshots, logger)
    logger.finalize("success")
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 10, 20]
    assert float(rows[2]["gap_iota/net.1"]) == pytest.approx(snapshots[2][2].gap)
