from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch

from jaynes_callbacks import EquilibriumMonitor, __version__
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import (
    DESCRIPTION,
    DatasetSink,
    read_description,
    write_description,
)

pytestmark = pytest.mark.usefixtures("unfitted")


def test_a_run_says_what_it_was(make_trainer: Any, task: Any, loader: Any, tmp_path: Path) -> None:
    monitor = EquilibriumMonitor(dirpath=tmp_path)
    make_trainer(monitor, max_epochs=1).fit(task, loader)
    description = read_description(tmp_path / "jaynes")
    assert description["versions"]["jaynes_callbacks"] == __version__
    assert description["versions"]["torch"] == torch.__version__
    watched = {(stream["kind"], stream["name"]) for stream in description["watched"]}
    assert watched == {record.key for record in monitor.end}
    assert [reason for _, reason in description["skipped"]] == [
        skipped.reason for skipped in monitor.coverage.skipped
    ]
    assert description["trainer"]["max_epochs"] == 1
    assert description["outcome"] == "finished"
    assert len(pd.read_parquet(tmp_path / "jaynes")) == len(monitor.history)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.sampled(2)
def test_an_interrupted_run_says_so(
    error: type[BaseException], make_trainer: Any, task: Any, loader: Any, tmp_path: Path
) -> None:
    seen = []

    class Interruption(L.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            seen.append(read_description(tmp_path / "jaynes")["outcome"])
            raise error

    trainer = make_trainer(EquilibriumMonitor(dirpath=tmp_path), Interruption())
    with pytest.raises((error, SystemExit)):
        trainer.fit(task, loader)
    assert seen == ["running"]
    assert read_description(tmp_path / "jaynes")["outcome"] == "interrupted"


def test_streams_that_appear_later_are_told_at_the_end(tmp_path: Path) -> None:
    names = ["first"]
    sink = DatasetSink()
    sink.open(RunContext(directory=tmp_path, describe=lambda: {"watched": list(names)}))
    sink.write(Records([Record(name="first")]), Records())
    assert read_description(tmp_path / "jaynes") == {"watched": ["first"]}
    names.append("second")
    sink.close(Records(), Records(), Records())
    assert read_description(tmp_path / "jaynes") == {"watched": ["first", "second"]}


@pytest.mark.parametrize("text", [None, "", "{", "[1, 2]"])
def test_what_cannot_be_read_is_empty(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / DESCRIPTION).write_text(text)
    assert read_description(tmp_path) == {}


def test_anything_can_be_described(tmp_path: Path) -> None:
    write_description(tmp_path, {"path": tmp_path, "name": "λ <b>", "class": Record})
    assert read_description(tmp_path)["name"] == "λ <b>"
    assert read_description(tmp_path)["path"] == str(tmp_path)
