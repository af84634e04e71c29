"""The documentation: links lead somewhere, and the code of figures.md and loggers.md runs."""

import importlib.util
import re
import runpy
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from jaynes_callbacks import analyse
from jaynes_callbacks.instruments.gradients import UPDATE, Gradients
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

HOME = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/*/*.md",
        "experiments/*.md",
        "experiments/*/*.md",
        "experiments/results/*/*.md",
    )
    for page in HOME.glob(pattern)
)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (HOME / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith(("http", "#")):
            assert (page.parent / link.split("#")[0]).exists(), link


def test_every_picture_is_shown_on_a_page() -> None:
    shown = "".join(page.read_text() for page in PAGES)
    for picture in (HOME / "docs" / "images").iterdir():
        assert f"images/{picture.name}" in shown, picture.name
        assert picture.stat().st_size < 150_000, picture.name


def test_the_page_of_columns_is_that_of_the_schemas() -> None:
    page = runpy.run_path(str(HOME / "docs" / "columns.py"))["page"]()
    assert (HOME / "docs" / "columns.md").read_text() == page, "run: python docs/columns.py"
    assert "| `gap` | nats |" in page
    assert "## Gradients and updates" in page


def test_the_figures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = torch.Generator().manual_seed(0)
    records = analyse({"fc.weight": torch.randn(40, 50, generator=source)})
    schema = Gradients.schema
    updates = Frame(schema, records.replaced(kind=np.array([UPDATE], dtype=object)).columns)
    sink = DatasetSink()
    sink.open(RunContext(directory=tmp_path / "lightning_logs" / "version_0"))
    for step in (0, 10):
        for frame in (records, updates):
            sink.write(frame.replaced(step=np.array([step])), Records())
    names: dict[str, Any] = {}
    for block in blocks("docs/figures.md"):
        assert "assert " in block, "a block asserts what it shows"
        exec(compile(block, "docs/figures.md", "exec"), names)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"gap_map.png", "density.png", "gradients.png"}


def test_a_rescaled_network_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("docs/symmetry.md")
    exec(compile(block, "docs/symmetry.md", "exec"), {"__name__": "symmetry"})
    found = capsys.readouterr().out
    page = (HOME / "docs/symmetry.md").read_text()
    (shown,) = re.findall(r"^It prints.*?^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    number = r"\d[\d.]*(?:e[+-]\d+)?"
    assert re.sub(number, "#", found) == re.sub(number, "#", shown)
    ours, theirs = ([float(each) for each in re.findall(number, text)] for text in (found, shown))
    # The last digit shown may be another machine's.
    assert ours == pytest.approx(theirs, rel=0.04, abs=2e-3)


def test_the_loggers_get_what_they_can_show(
    task: Any, loader: DataLoader[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    plain = L.Trainer
    quiet = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
    }
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    monkeypatch.setattr(L, "Trainer", lambda **options: plain(**{**quiet, **options}))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    names: dict[str, Any] = {}
    for block in blocks("docs/loggers.md"):
        for tracker in re.findall(r"^import (mlflow|trackio)$", block, re.MULTILINE):
            pytest.importorskip(tracker)
        exec(compile(block, "docs/loggers.md", "exec"), names)
    names["mlflow"].end_run()
    names["trackio"].finish()
    names["trainer"].fit(task, loader)
    events = EventAccumulator(names["logger"].log_dir).Reload()
    assert "equilibrium/weight/gap_median" in events.Tags()["scalars"]
    assert "equilibrium/gap_map" in events.Tags()["images"]
    assert "ln_magnitude_weight/first.weight" in events.Tags()["histograms"]
    assert names["monitor"] is not None


def test_the_changelog_names_modules_that_there_are() -> None:
    table = re.findall(r"^  \| `(.*) \|$", (HOME / "CHANGELOG.md").read_text(), re.MULTILINE)
    now = [name for row in table for name in re.findall(r"`([\w.]+)`", row.split(" | ")[1])]
    modules = [name for name in now if "." in name]
    assert len(modules) >= 17
    for name in modules:
        assert importlib.util.find_spec(name) is not None, name
