import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from experiments.build import Parts
from experiments.closing import report, tensorboard_command
from jaynes_callbacks import EquilibriumMonitor, Record, Records


def parts(monitors: list[Any], loggers: list[Any] | None = None) -> Any:
    trainer = SimpleNamespace(loggers=loggers or [])
    return SimpleNamespace(monitors=monitors, trainer=trainer)


def monitor(directory: Path | None, *verdicts: str) -> Any:
    records = Records(
        Record(name=f"fc{i}.weight", n=100, gap=0.1, verdict=verdict)
        for i, verdict in enumerate(verdicts)
    )
    parts = sorted(directory.glob("jaynes*/part-*.parquet")) if directory else []
    dataset = parts[-1].parent if parts else None
    return SimpleNamespace(start=records, end=records, dataset=dataset, coverage="nothing [x]")


def said(parts: Any, metrics: dict[str, float] | None = None) -> str:
    buffer = io.StringIO()
    report(Console(file=buffer, width=100), metrics or {}, parts)
    return buffer.getvalue()


def test_verdicts_are_counted() -> None:
    text = said(parts([monitor(None, "approaching", "not emerging", "approaching")]))
    assert "Verdict on 3 streams: 2 approaching, 1 not emerging." in text


def test_a_monitor_that_recorded_nothing_says_why() -> None:
    assert said(parts([monitor(None)])) == "Nothing was recorded: nothing [x]\n\n"


def test_what_was_not_written_is_not_promised(tmp_path: Path) -> None:
    (tmp_path / "jaynes").mkdir()
    assert "dataset" not in said(parts([monitor(tmp_path, "emerged")]))
    (tmp_path / "jaynes" / "part-000000000000.parquet").touch()
    text = said(parts([monitor(tmp_path, "emerged")]))
    assert f"dataset     {tmp_path / 'jaynes'}\n" in text
    assert "figures" not in text


def test_long_paths_stay_on_one_line(tmp_path: Path) -> None:
    long = tmp_path / ("very_long_name_" * 10) / "jaynes"
    long.mkdir(parents=True)
    (long / "part-000000000000.parquet").touch()
    assert f"dataset     {long}\n" in said(parts([monitor(long.parent, "emerged")]))


def test_only_what_was_scored_is_shown() -> None:
    assert said(parts([]), {"val/accuracy": 0.9712}) == "accuracy    validation 97.1%\n"
    both = {"test/accuracy": 0.5, "val/accuracy": 1.0, "val/loss": 3.0}
    assert said(parts([]), both) == "accuracy    validation 100.0%, test 50.0%\n"
    assert said(parts([]), {"score": 1.0}) == ""


def test_tensorboard_is_offered_for_its_logger_only(tmp_path: Path) -> None:
    csv = CSVLogger(tmp_path)
    assert said(parts([], [csv])) == ""
    board = TensorBoardLogger(tmp_path, name="board", version="")
    assert f"--logdir {tmp_path}/board" in said(parts([], [csv, board]))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment below the working directory."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "tensorboard").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return programs


def test_the_command_works_without_activating_the_environment(environment: Path) -> None:
    folder = environment.parents[1] / "outputs" / "run"
    assert tensorboard_command(folder) == ".venv/bin/tensorboard --logdir outputs/run"


def test_the_command_is_short_in_an_activated_environment(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert tensorboard_command(Path("/data/my run")) == "tensorboard --logdir '/data/my run'"


def test_the_monitors_of_a_run_are_found() -> None:
    watching: Any = EquilibriumMonitor(sinks=())
    trainer: Any = SimpleNamespace(callbacks=[object(), watching])
    assert Parts(None, None, trainer).monitors == [watching]  # type: ignore[arg-type]
