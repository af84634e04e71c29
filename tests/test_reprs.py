"""What a notebook shows of our objects: one readable line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.schema import Row, column
from jaynes_callbacks.sinks.dataset import DatasetSink


@dataclass(frozen=True, eq=False)
class NormRow(Row):
    """A row of an instrument of one's own."""

    norm: float = column("w", "Euclidean norm", curve=True)


def test_a_record_is_a_line() -> None:
    record = Record(name="fc.weight", step=3, n=640, gap=0.16342, best_family="gamma")
    assert repr(record).startswith("<Record weight fc.weight, step 3: n=640, gap=0.163,")
    assert len(repr(record)) < 120
    row = NormRow(kind="weight", name="fc", norm=2.0)
    assert repr(row) == "<NormRow weight fc, step 0: norm=2>"


def test_a_recorder_and_its_coverage_are_lines() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    recorder = Recorder(model)
    assert repr(recorder) == "<Recorder: magnitudes, scales of Sequential; no record yet>"
    with recorder:
        model(torch.randn(4, 16))
        recorder.snapshot(step=10)
    assert (
        repr(recorder)
        == "<Recorder: magnitudes, scales of Sequential; 2 streams, 3 rows to step 10>"
    )
    assert repr(recorder.coverage) == (
        "<Coverage: watching 1 weight (0.weight) and 1 activation (1); "
        "not 1: fewer than 2 dimensions (0.bias)>"
    )


def test_a_monitor_is_a_line(task: Any, loader: Any, make_trainer: Any, tmp_path: Path) -> None:
    monitor = EquilibriumMonitor(dirpath=tmp_path, sinks=[DatasetSink()])
    assert repr(monitor) == "<EquilibriumMonitor: magnitudes, scales; no record yet>"
    make_trainer(monitor, max_epochs=1).fit(task, loader)
    assert repr(monitor) == (
        "<EquilibriumMonitor: magnitudes, scales; 4 streams, 8 rows to step 6; "
        f"dataset {tmp_path}/jaynes>"
    )
