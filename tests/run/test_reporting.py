"""The report as a file of a tracker's run."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.run.reporting import FILE, ReportSink
from jaynes_callbacks.sinks.base import RunContext, Sink
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.trackers import Ability, Tracker

pytestmark = pytest.mark.usefixtures("unfitted")


class Keeper(Tracker):
    """Keeps the text of files."""

    name = "keeper"
    needs = {Ability.ARTIFACTS: "append"}  # noqa: RUF012

    def log_artifact(self, path: Path) -> None:
        assert path.name == FILE
        self._target.append(path.read_text())


class Broken(Keeper):
    name = "broken"

    def log_artifact(self, path: Path) -> None:
        raise ConnectionError("server is down")


def run(snapshots: list[Records], directory: Path | None, *loggers: Any) -> None:
    sinks: list[Sink] = [DatasetSink(), ReportSink()]
    context = RunContext(directory=directory, loggers=loggers)
    for sink in sinks:
        sink.open(context)
    for records in snapshots:
        for sink in sinks:
            sink.write(records, Records())
    for sink in sinks:
        sink.close(snapshots[0], snapshots[-1], Records())


def test_a_tracker_gets_the_report_of_the_whole_run(
    snapshots: list[Records], tmp_path: Path
) -> None:
    pages: list[str] = []
    run(snapshots, tmp_path, Keeper(pages))
    (page,) = pages
    assert "net.0.weight" in page
    assert "approaching" in page, "the verdict is of the end"
    assert not list(tmp_path.rglob("*.html"))


def test_a_tracker_that_fails_costs_only_itself(snapshots: list[Records], tmp_path: Path) -> None:
    pages: list[str] = []
    with pytest.warns(UserWarning, match="broken gets no more report .*server is down") as said:
        run(snapshots, tmp_path, Broken(pages), Keeper(pages))
    assert len(said) == len(pages) == 1


def test_nothing_is_written_for_nobody_or_without_a_dataset(
    snapshots: list[Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    run(snapshots, None, Keeper(pages))
    monkeypatch.setattr("jaynes_callbacks.report.write_report", None)
    run(snapshots, tmp_path)
    assert pages == []


def test_the_missing_extra_is_named(
    snapshots: list[Records],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in [name for name in sys.modules if name.startswith("jaynes_callbacks.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    pages: list[str] = []
    with caplog.at_level(logging.INFO, logger="jaynes_callbacks"):
        run(snapshots, tmp_path, Keeper(pages))
    assert pages == []
    assert "jaynes-callbacks[report]" in caplog.text
