"""Curves of a loop: into what the user gives, or into the run that is active."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from jaynes_callbacks import watch
from tests.sinks.run_files import File

pytestmark = pytest.mark.usefixtures("unfitted")


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


@pytest.mark.fitted
def test_the_run_that_is_active_gets_curves_on_the_loop_s_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    run = wandb.init(mode="offline", dir=tmp_path, project="loops")
    train(dirpath=tmp_path)
    train((), dirpath=tmp_path / "none")
    run.finish()
    file = File(tmp_path)
    curve = [row for row in file.rows if "gap_weight/0.weight" in row]
    assert [row["trainer/global_step"] for row in curve] == [0, 2]
    assert "equilibrium/weight/gap_median" in file.summary
    assert len(pd.read_parquet(tmp_path / "none" / "jaynes").step.unique()) == 2


def test_what_is_no_tracker_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"expected a logger with log_metrics.*got 3"):
        train(loggers=3)


def test_a_run_without_a_place_gets_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train()
    (folder,) = (tmp_path / "jaynes_runs").iterdir()
    assert pd.read_parquet(folder / "jaynes").step.unique().tolist() == [0, 2]
