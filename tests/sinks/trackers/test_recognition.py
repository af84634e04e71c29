"""What is recognised as which tracker, what it can do, and that the docs say the same."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from torch.utils.tensorboard import SummaryWriter

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.loggers import LoggerSink
from jaynes_callbacks.sinks.trackers import (
    TRACKERS,
    Ability,
    BinnedValues,
    LoggerTracker,
    MlflowRun,
    SummaryWriterTracker,
    Tracker,
    TrackioRun,
    WandbRun,
    active_trackers,
    tracker_of,
    trackers_of,
)

HOME = Path(__file__).parents[3]


class Wandb:
    summary: dict[str, Any] = {}  # noqa: RUF012

    def define_metric(self, name: str) -> None: ...
    def log(self, row: dict[str, Any]) -> None: ...


class Trackio:
    project = "test"

    def log(self, row: dict[str, Any]) -> None: ...
    def log_system(self, row: dict[str, Any]) -> None: ...


class Client:
    def log_batch(self, run_id: str) -> None: ...
    def create_run(self) -> None: ...


class Plain:
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...


class Failing(Plain):
    @property
    def experiment(self) -> Any:
        raise ConnectionError("server is down")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (Wandb(), WandbRun),
        (Trackio(), TrackioRun),
        ((Client(), "0a1b"), MlflowRun),
        (Plain(), LoggerTracker),
        (Failing(), LoggerTracker),
        (DummyLogger(), LoggerTracker),
        (CSVLogger("unused"), LoggerTracker),
        (WandbRun(Wandb(), own_rows=False), WandbRun),
    ],
)
def test_what_is_handed_over_is_known_by_what_it_can_do(target: Any, kind: type) -> None:
    (tracker,) = trackers_of([target])
    assert type(tracker) is kind
    assert tracker is target or not isinstance(target, Tracker)
    assert tracker.can(Ability.SCALARS) or isinstance(target, DummyLogger)


def test_a_writer_can_do_what_its_logger_can(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "raw") as writer:
        raw = tracker_of(writer)
        logger = tracker_of(TensorBoardLogger(tmp_path / "logger"))
        assert isinstance(raw, SummaryWriterTracker)
        assert isinstance(logger, LoggerTracker)
        assert {each for each in Ability if raw.can(each)} == set(raw.needs) - {
            Ability.HYPERPARAMETERS
        }, "who knows no hyperparameters enters nothing beside them"
        assert {each for each in Ability if logger.can(each)} == set(raw.needs)


@pytest.mark.parametrize("target", [object(), None, "runs/1", 3, (Client(), 3), (), {}])
def test_what_is_no_tracker_is_named(target: Any) -> None:
    assert tracker_of(target) is None
    with pytest.raises(TypeError, match=re.escape(f"got {target!r}")):
        trackers_of([Plain(), target])


def test_a_run_says_once_what_is_no_tracker(snapshots: list[Records]) -> None:
    sink = LoggerSink()
    with pytest.warns(UserWarning, match="object gets no more records.*TypeError") as said:
        sink.open(RunContext(loggers=[object(), Plain()]))
    assert len(said) == 1
    sink.write(snapshots[0], Records())


def test_sinks_share_one_tracker_of_a_run() -> None:
    """Its rows are written in one order, whichever sink they come from."""
    context = RunContext(loggers=[Wandb(), Failing()])
    (scalars, _) = context.trackers_with(Ability.SCALARS, what="records")
    with pytest.warns(UserWarning, match="Failing gets no more figures .*server is down"):
        (images,) = context.trackers_with(Ability.IMAGES, what="figures")
    assert scalars is images


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_a_copy_writes_nowhere(duplicate: Any) -> None:
    tracker = duplicate(tracker_of(CSVLogger("unused")))
    assert tracker.label == "CSVLogger"
    assert not any(tracker.can(ability) for ability in Ability)


def test_what_a_tracker_has_not_is_refused(binned: BinnedValues, tmp_path: Path) -> None:
    nothing, path = copy.copy(tracker_of(Plain())), tmp_path / "report.html"
    assert nothing is not None
    calls: dict[Ability, Any] = {
        Ability.SCALARS: lambda: nothing.log_scalars({}, 0),
        Ability.HISTOGRAMS: lambda: nothing.log_histograms({"a": binned}, 0),
        Ability.IMAGES: lambda: nothing.log_image("a", None, 0),
        Ability.CHARTS: lambda: nothing.lay_out({}),
        Ability.HYPERPARAMETERS: lambda: nothing.enter({}, 0),
        Ability.AXES: lambda: nothing.define_axes([]),
        Ability.TABLE: lambda: nothing.log_table("a", None, 0),  # type: ignore[arg-type]
        Ability.SUMMARY: lambda: nothing.summarise({}, {}, 0),
        Ability.ARTIFACTS: lambda: nothing.log_artifact(path),
    }
    assert set(calls) == set(Ability)
    for ability, call in calls.items():
        with pytest.raises(NotImplementedError, match=f"Plain has no {ability.value}"):
            call()


def test_every_ability_is_stated_with_a_method_that_the_class_implements() -> None:
    methods = {
        Ability.SCALARS: "log_scalars",
        Ability.HISTOGRAMS: "log_histograms",
        Ability.IMAGES: "log_image",
        Ability.CHARTS: "lay_out",
        Ability.HYPERPARAMETERS: "enter",
        Ability.AXES: "define_axes",
        Ability.TABLE: "log_table",
        Ability.SUMMARY: "summarise",
        Ability.ARTIFACTS: "log_artifact",
    }
    for kind in TRACKERS:
        if kind is not LoggerTracker:
            assert set(kind.needs) == {each for each in Ability if methods[each] in vars(kind)}


def test_no_tracker_is_imported_to_look_for_active_ones() -> None:
    check = """
import sys
from jaynes_callbacks.sinks.trackers import active_trackers, tracker_of
assert active_trackers() == []
assert tracker_of(object()) is None
assert not {"wandb", "trackio", "mlflow", "tensorboard", "lightning"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, cwd=HOME, check=False
    )
    assert done.returncode == 0, done.stderr


def test_none_is_active_unless_a_run_is() -> None:
    assert active_trackers() == []


def test_the_docs_show_the_abilities() -> None:
    page = (HOME / "docs/loggers.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| ") and len(line.split("|")) == len(TRACKERS) + 3
    ]
    heading, _, *rows = rows
    assert heading[1:] == [kind.name for kind in TRACKERS]
    shown = {row[0]: [cell != "–" for cell in row[1:]] for row in rows}
    assert shown == {
        ability.value: [ability in kind.needs for kind in TRACKERS] for ability in Ability
    }
