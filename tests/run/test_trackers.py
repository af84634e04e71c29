"""Curves of a loop: into what the user gives, or into the run that is active."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from jaynes_callbacks import watch
from jaynes_callbacks.run.trackers import active_loggers


def train(loggers: Any = None, **options: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, loggers=loggers, every_n_steps=2, **options):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(8, 16)).square().mean().backward()
            optimizer.step()


def test_a_summary_writer_gets_curves_charts_and_the_dataset(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    train(writer)
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("gap_weight/0.weight")] == [0, 2]
    tags = events.Tags()
    assert "ln_magnitude_weight/0.weight" in tags["histograms"]
    assert "equilibrium/gap_over_steps" in tags["images"]
    assert "custom_scalars__config__" in tags["tensors"]
    assert pd.read_parquet(tmp_path / "jaynes").step.unique().tolist() == [0, 2]


class Run:
    """A W&B run, as far as it is asked."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.axes: list[str] = []

    def define_metric(self, name: str, **_: Any) -> None:
        self.axes.append(name)

    def log(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)


def test_the_run_that_is_active_gets_curves_on_the_loop_s_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    shown = {"Image": lambda pixels: "image", "Table": lambda dataframe: len(dataframe)}
    module = SimpleNamespace(run=run, Histogram=lambda **_: "histogram", **shown)
    monkeypatch.setitem(sys.modules, "wandb", module)
    train(dirpath=tmp_path)
    curve = [row for row in run.rows if "gap_weight/0.weight" in row]
    assert [row["trainer/global_step"] for row in curve] == [0, 2]
    assert any(row.get("ln_magnitude_weight/0.weight") == "histogram" for row in run.rows)
    assert any(row.get("equilibrium/gap_over_steps") == ["image"] for row in run.rows)
    assert any(row.get("equilibrium/records") == 2 for row in run.rows)
    assert run.axes[0] == "trainer/global_step"
    assert "equilibrium/weight/gap_median" in run.summary

    before = len(run.rows)
    train((), dirpath=tmp_path / "none")
    assert len(run.rows) == before


def test_no_tracker_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert active_loggers() == ()
    assert "wandb" not in sys.modules


def test_a_run_without_a_place_gets_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train()
    (folder,) = (tmp_path / "jaynes_runs").iterdir()
    assert pd.read_parquet(folder / "jaynes").step.unique().tolist() == [0, 2]
