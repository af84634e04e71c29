"""What TensorBoard finds in a run's files, read by its own plugins' code."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from jaynes_callbacks.instruments.record import Records, aggregates
from jaynes_callbacks.run.arguments import default_sinks
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.loggers import LoggerSink
from jaynes_callbacks.sinks.tensorboard import TensorBoardSink

_GAP = "equilibrium/weight/gap_median"


def run(
    snapshots: list[Records], logger: Any, sink: TensorBoardSink | None = None, tags: int = 210
) -> None:
    sinks: list[Sink] = [LoggerSink(tags), sink or TensorBoardSink(tags)]
    for each in sinks:
        each.open(RunContext(loggers=[logger]))
    for records in snapshots:
        for each in sinks:
            each.write(records, Records())
    for each in sinks:
        each.close(snapshots[0], snapshots[-1], Records())
    if hasattr(logger, "finalize"):
        logger.finalize("success")


def events(logger: TensorBoardLogger) -> EventAccumulator:
    return EventAccumulator(logger.log_dir, {"tensors": 0, "scalars": 0}).Reload()


def layout(found: EventAccumulator) -> dict[str, dict[str, list[str]]]:
    """The last layout of a run: TensorBoard shows no other."""
    tensor = found.Tensors("custom_scalars__config__")[-1].tensor_proto
    parsed = layout_pb2.Layout.FromString(tensor.string_val[0])
    return {
        category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
        for category in parsed.category
    }


def entry(found: EventAccumulator) -> tuple[dict[str, Any], set[str]]:
    """Hyperparameters and the metrics that are to be shown beside them."""
    content = found.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    given = metadata.parse_session_start_info_plugin_data(content).hparams
    content = found.summary_metadata[metadata.EXPERIMENT_TAG].plugin_data.content
    metrics = metadata.parse_experiment_plugin_data(content).metric_infos
    plain = {key: getattr(value, value.WhichOneof("kind")) for key, value in given.items()}
    return plain, {metric.name.tag for metric in metrics}


def test_it_is_a_sink() -> None:
    assert isinstance(TensorBoardSink(), Sink)


@pytest.mark.parametrize("prefix", ["", "student"])
def test_every_curve_is_in_one_chart(snapshots: list[Records], tmp_path: Path, prefix: str) -> None:
    logger = TensorBoardLogger(tmp_path, prefix=prefix)
    run(snapshots, logger)
    found = events(logger)
    charts = layout(found)
    assert list(charts) == [
        "equilibrium: overview",
        "equilibrium: weights",
        "equilibrium: activations",
    ]
    patterns = [tag for category in charts.values() for tags in category.values() for tag in tags]
    scalars = found.Tags()["scalars"]
    for tag in scalars:
        assert sum(bool(re.match(f"^{pattern}$", tag)) for pattern in patterns) == 1, tag
    for pattern in patterns:
        assert any(re.match(pattern, tag) for tag in scalars), f"an empty chart: {pattern}"


def test_charts_are_for_curves_that_there_are(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    run(snapshots, logger, tags=3)
    assert list(layout(events(logger))["equilibrium: weights"]) == ["gap to the lognormal, nats"]


def test_a_users_layout_stays(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_custom_scalars({"mine": {"losses": ["Multiline", ["loss.*"]]}})
    run(snapshots, logger)
    assert list(layout(events(logger))) == ["mine"]


def test_a_resumed_run_is_laid_out_once(snapshots: list[Records], tmp_path: Path) -> None:
    for part in (snapshots[:2], snapshots[2:]):
        logger = TensorBoardLogger(tmp_path, version=0, default_hp_metric=False)
        logger.log_hyperparams({"lr": 0.1})
        run(part, logger)
    found = events(logger)
    assert len(found.Tensors("custom_scalars__config__")) == 1
    # Two files of one second are read in the order of their names, which end in a running number.
    curve = sorted(found.Scalars(_GAP), key=lambda event: event.wall_time)
    assert [event.step for event in curve] == [0, 10, 20]


def test_the_entry_has_the_final_gaps(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    logger.log_hyperparams({"lr": 0.1, "optimizer": {"name": "sgd", "betas": [0.9]}, "bias": True})
    run(snapshots, logger)
    found = events(logger)
    given, metrics = entry(found)
    assert given == {"lr": 0.1, "optimizer/name": "sgd", "optimizer/betas": "[0.9]", "bias": True}
    assert metrics == set(aggregates(snapshots[-1]))
    assert found.Scalars(_GAP)[-1].value == pytest.approx(aggregates(snapshots[-1])[_GAP])


def test_lightning_s_placeholder_is_filled(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    run(snapshots, logger)
    found = events(logger)
    assert entry(found) == ({"lr": 0.1}, {"hp_metric"})
    curve = [(event.step, event.value) for event in found.Scalars("hp_metric")]
    assert curve == [(0, -1), (20, pytest.approx(aggregates(snapshots[-1])[_GAP]))]


def test_a_users_own_metric_stays(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    sink = TensorBoardSink()
    sink.open(RunContext(loggers=[logger]))
    sink.write(snapshots[0], Records())
    logger.log_metrics({"hp_metric": 0.93}, step=15)
    sink.close(snapshots[0], snapshots[-1], Records())
    logger.finalize("success")
    curve = events(logger).Scalars("hp_metric")
    assert [event.value for event in curve] == pytest.approx([-1, 0.93])


@pytest.mark.parametrize("given", [None, {"lr": 0.1}])
def test_no_entry_without_hyperparameters_or_if_not_wanted(
    snapshots: list[Records], tmp_path: Path, given: dict[str, Any] | None
) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    if given is not None:
        logger.log_hyperparams(given)
    run(snapshots, logger, TensorBoardSink(hparams=given is None))
    found = events(logger)
    assert metadata.EXPERIMENT_TAG not in found.summary_metadata
    assert "custom_scalars__config__" in found.summary_metadata


def test_other_loggers_are_passed_over(
    snapshots: list[Records], tmp_path: Path, bare: Records
) -> None:
    class Plain:
        def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...

    with warnings.catch_warnings(action="error"):
        for logger in (DummyLogger(), Plain(), CSVLogger(tmp_path)):
            run(snapshots, logger)
        run([Records(), Records([bare])], TensorBoardLogger(tmp_path))


def test_a_full_disk_costs_charts_only(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    logger.experiment.add_custom_scalars = full
    with pytest.warns(UserWarning, match="no more charts and hyperparameters .*no space") as said:
        run(snapshots, logger)
    assert len(said) == 1
    assert len(events(logger).Scalars(_GAP)) == 3


def test_a_thousand_streams_make_at_most_300_tags(snapshots: list[Records], tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    some = [snapshots[-1][0], snapshots[-1][2]]
    sinks = default_sinks(figures_every_n_epochs=1)
    history = Records()
    for sink in sinks:
        sink.open(RunContext(directory=tmp_path / "run", loggers=[logger]))
    for epoch in range(2):
        records = Records(
            record.replace(name=f"layer.{i}", step=epoch, epoch=epoch, gap=record.gap + i / 1000)
            for record in some
            for i in (range(500) if epoch else reversed(range(500)))
        )
        history += records.without_counts()
        for sink in sinks:
            sink.write(records, history)
    for sink in sinks:
        sink.close(records, records, history)
    logger.finalize("success")
    found = events(logger).Tags()
    tags = [*found["scalars"], *found["histograms"], *found["images"], *found["tensors"]]
    assert 200 < len(tags) <= 300
