"""Print the end of a run: the table of streams, the scores, and where the files are."""

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from rich.console import Console

from experiments.build import Parts
from experiments.table import CAPTION, stream_table
from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.record import verdict_text
from jaynes_callbacks.records.text import counted
from jaynes_callbacks.sinks.dataset import figures_beside

__all__ = ["report", "tensorboard_command"]


def report(console: Console, metrics: Mapping[str, float], parts: Parts) -> None:
    """Print one table per monitor, the scores, and where dataset, figures and curves are.

    Args:
        console: where to.
        metrics: what was logged, by name.
        parts: the run's, after fitting.
    """
    for monitor in parts.monitors:
        _watched(console, monitor)
    _line(console, "accuracy", _accuracies(metrics))
    for monitor in parts.monitors:
        for what, folder in _folders(monitor.dataset):
            _line(console, what, _shown(folder))
    for monitor in parts.monitors:
        if monitor.dataset is not None:
            _line(console, "report", f"{_program('jaynes')} report {_shown(monitor.dataset)}")
    _line(console, "TensorBoard", _tensorboard(parts.trainer.loggers))


def _watched(console: Console, monitor: EquilibriumMonitor) -> None:
    if not monitor.end:
        console.print(f"Nothing was recorded: {monitor.coverage}\n", highlight=False, markup=False)
        return
    console.print(stream_table(monitor.start, monitor.end, width=console.width))
    console.print(f"\n{CAPTION}", highlight=False)
    verdicts = Counter(verdict_text(record) for record in monitor.end)
    streams = counted(len(monitor.end), "stream")
    verdict = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
    console.print(f"Verdict on {streams}: {verdict}.\n", highlight=False)


def _accuracies(metrics: Mapping[str, float]) -> str:
    scores = (("validation", "val/accuracy"), ("test", "test/accuracy"))
    return ", ".join(f"{name} {metrics[key]:.1%}" for name, key in scores if key in metrics)


def _folders(dataset: Path | None) -> list[tuple[str, Path]]:
    """Return the folders of a run's dataset and of its figures, if they were written."""
    if dataset is None:
        return []
    figures = figures_beside(dataset)
    return [("dataset", dataset), *([("figures", figures)] if any(figures.glob("*.png")) else [])]


def _tensorboard(loggers: list[Logger]) -> str:
    folders = [Path(one.log_dir) for one in loggers if isinstance(one, TensorBoardLogger)]
    return tensorboard_command(folders[0]) if folders else ""


def tensorboard_command(folder: Path) -> str:
    """Return the command that opens TensorBoard on a folder, quoted for this shell.

    Args:
        folder: where the logger writes.
    """
    return f"{_program('tensorboard')} --logdir {_shown(folder)}"


def _program(name: str) -> str:
    """Return how to call the program beside this Python: by name if the shell finds it."""
    installed = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(installed) else _shown(installed)


def _shown(path: Path) -> str:
    """Return a path relative to the working directory if it lies below it, quoted if needed."""
    working = Path.cwd()
    return shlex.quote(str(path.relative_to(working) if path.is_relative_to(working) else path))


def _line(console: Console, what: str, text: str) -> None:
    if text:
        console.print(f"{what:<11} {text}", highlight=False, markup=False, soft_wrap=True)
