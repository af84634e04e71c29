"""The documentation: links lead somewhere, and the code of figures.md and loggers.md runs."""

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from jaynes_callbacks import analyse
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

HOME = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "experiments/*.md", "experiments/results/*/*.md")
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


def test_the_figures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = torch.Generator().manual_seed(0)
    records = analyse({"fc.weight": torch.randn(40, 50, generator=source)})
    sink = DatasetSink()
    sink.open(RunContext(directory=tmp_path / "lightning_logs" / "version_0"))
    for step in (0, 10):
        sink.write(Records(row.replace(step=step) for row in records), Records())
    (block,) = blocks("docs/figures.md")
    exec(compile(block, "docs/figures.md", "exec"), {})
    assert {path.name for path in tmp_path.glob("*.png")} == {"gap_map.png", "density.png"}


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
    names: dict[str, Any] = {}
    for block in blocks("docs/loggers.md"):
        exec(compile(block, "docs/loggers.md", "exec"), names)
    names["trainer"].fit(task, loader)
    events = EventAccumulator(names["logger"].log_dir).Reload()
    assert "equilibrium/weight/gap_median" in events.Tags()["scalars"]
    assert "equilibrium/gap_map" in events.Tags()["images"]
    assert "ln_magnitude_weight/first.weight" in events.Tags()["histograms"]
    assert names["monitor"] is not None
