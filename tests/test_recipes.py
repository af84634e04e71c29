"""The Python blocks of docs/recipes.md and README.md, run as they stand."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from jaynes_callbacks import analyse
from jaynes_callbacks.sinks.figures import FigureSink

HOME = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (HOME / page).read_text(), re.DOTALL | re.MULTILINE)


def _quiet_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = L.Trainer

    def quiet(**options: Any) -> L.Trainer:
        silent = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        silent |= {"enable_progress_bar": False, "enable_model_summary": False}
        return plain(**{**silent, "max_epochs": 1, **options})

    monkeypatch.setattr(L, "Trainer", quiet)
    # Figures have tests of their own, and take most of the time here.
    monkeypatch.setattr(FigureSink, "close", lambda *_: None)


def _run(page: str, names: dict[str, Any], first: int = 0) -> None:
    for number, block in enumerate(blocks(page)[first:], start=first):
        if "with Recorder(" in block and "model" in names:
            names["untouched"] = copy.deepcopy(names["model"])
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.slow
def test_the_recipes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _quiet_trainer(monkeypatch)
    assert len(blocks("docs/recipes.md")) >= 8
    with warnings.catch_warnings():
        # Each block begins a run in the same directory: the second goes to jaynes-1, and says so.
        warnings.filterwarnings("ignore", message=".* holds another run's records")
        _run("docs/recipes.md", {"__name__": "recipes"})
    assert (tmp_path / "runs" / "plain" / "jaynes" / "part-000000000005.parquet").exists()


class Anything(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.net(batch)

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def updated(
    model: L.LightningModule, optimizer: torch.optim.Optimizer, batch: torch.Tensor
) -> None:
    """One optimizer step, as a reader's own loop takes it."""
    model.training_step(batch).backward()
    optimizer.step()
    model.zero_grad()


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _quiet_trainer(monkeypatch)
    data: DataLoader[Any] = DataLoader(torch.randn(32, 16), 8)  # type: ignore[arg-type]
    model = Anything()
    script, *_ = blocks("README.md")
    assert len(script.splitlines()) < 25
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(script, "README.md, block 0", "exec"), names)
    assert names["monitor"].history.step.unique().tolist() == [0, 10, 20, 30]
    names |= {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "data": data,
        "batches": [*data] * 25,  # the block looks at every hundredth
        "train": updated,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* holds another run's records")
        _run("README.md", names, first=1)
    monitor: Any = names["monitor"]
    assert monitor.history.step.unique().tolist() == [0, 4]
    of_gradients = monitor.history_of("gradients")
    assert of_gradients.kind.unique().tolist() == ["gradient", "update"]
    assert of_gradients.step.unique().tolist() == [1, 2, 3, 4]
    assert (tmp_path / "jaynes-1" / "_gradients" / "part-000000000001.parquet").exists()
    watched: Any = names["watched"]
    assert watched.history.step.unique().tolist() == [0, 100]
    assert set(watched.history.kind) == {"weight", "iota"}
    recorder: Any = names["recorder"]
    assert recorder.history.step.unique().tolist() == [0, 100]
    (untouched,) = analyse({"net.0.weight": names["untouched"].net[0].weight.detach()})
    start, end = recorder.records.select(name="net.0.weight")
    assert start.counts.tolist() == untouched.counts.tolist()
    assert start.moved == 0
    assert end.moved > 0.001
    assert (tmp_path / "runs" / "plain" / "jaynes" / "part-000000000100.parquet").exists()


@pytest.mark.slow
def test_the_page_of_loops_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FigureSink, "close", lambda *_: None)
    first, *others = blocks("docs/loops.md")
    assert len(first.splitlines()) < 25
    names: dict[str, Any] = {"__name__": "loops"}
    for block in (first, *others):
        exec(compile(block, "docs/loops.md", "exec"), names)
    (run,) = (tmp_path / "jaynes_runs").iterdir()
    assert len(list((run / "jaynes").glob("part-*.parquet"))) == 19
