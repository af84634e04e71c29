"""What a run says at its end: once, on the main process, and only what is there."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.run.closing import closing_lines
from jaynes_callbacks.sinks.dataset import DatasetSink

pytestmark = pytest.mark.usefixtures("unfitted")

LOGGER = "lightning.pytorch.jaynes_callbacks"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    """What the monitor says after its coverage, line by line."""
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: [
        line
        for message in [each.getMessage() for each in caplog.records if each.name == LOGGER][1:]
        for line in message.splitlines()
    ]


def test_the_end_of_a_run_says_verdict_dataset_and_report(
    said: Any, task: Any, loader: Any, make_trainer: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monitor = EquilibriumMonitor(dirpath=tmp_path / "my run", sinks=[DatasetSink()])
    make_trainer(monitor, max_epochs=1).fit(task, loader)
    verdict, dataset, report = said()
    assert verdict.startswith("jaynes_callbacks: 4 streams: ")
    assert "median gap 0." in verdict
    assert dataset == "jaynes_callbacks: dataset  'my run/jaynes'"
    assert report.endswith("report 'my run/jaynes'")
    assert monitor.dataset == tmp_path / "my run" / "jaynes"


def test_the_second_attempt_points_to_its_own_dataset(
    said: Any, task: Any, loader: Any, make_trainer: Any, tmp_path: Path
) -> None:
    for name in ("jaynes", "jaynes-1"):
        monitor = EquilibriumMonitor(dirpath=tmp_path, sinks=[DatasetSink()])
        with pytest.warns() if name == "jaynes-1" else nullcontext():
            make_trainer(monitor, max_epochs=1).fit(task, loader)
        assert said()[-1].endswith(f"report {tmp_path / name}")
        assert monitor.dataset == tmp_path / name


def test_an_interrupted_run_says_where_it_ended(
    said: Any, task: Any, loader: Any, make_trainer: Any, tmp_path: Path
) -> None:
    class Interruption(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError

    monitor = EquilibriumMonitor(sinks=[])
    with pytest.raises(RuntimeError):
        make_trainer(monitor, Interruption()).fit(task, loader)
    verdict, dataset = said()
    assert verdict.startswith("jaynes_callbacks: interrupted after step 6; 4 streams: ")
    assert dataset.startswith("jaynes_callbacks: dataset  none was written")


def test_what_is_not_known_is_not_said() -> None:
    assert closing_lines(Records(), None, finished=True)[0] == "nothing was recorded"
    lines = closing_lines(Records([Record(name="fc", step=3)]), Path("/a/jaynes"), finished=True)
    assert lines[0] == "1 stream"
    assert lines[1] == "dataset  /a/jaynes"
