"""The last words of a run: scores, the table of streams, where everything is."""

import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from experiments.build import Parts
from experiments.table import CAPTION, stream_table
from jaynes_callbacks import EquilibriumMonitor

__all__ = ["report"]


def report(console: Console, directory: Path, metrics: Mapping[str, float], parts: Parts) -> None:
    """Print scores, one table per monitor, and where dataset, figures and curves are.

    Args:
        console: where to.
        directory: the run's folder.
        metrics: what was logged, by name.
        parts: the run's, after fitting.
    """
    for monitor in parts.monitors:
        _watched(console, monitor)
    _line(console, "accuracy", _accuracies(metrics))
    for what, place in _places(directory):
        _line(console, what, place)
    for logger in parts.trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            _line(console, "TensorBoard", tensorboard_command(Path(logger.log_dir)))


def _watched(console: Console, monitor: EquilibriumMonitor) -> None:
    start, end = monitor.start, monitor.end
    if not end:
        console.print(f"Nothing was recorded.\n{monitor.coverage}", highlight=False)
        return
    console.print(stream_table(start, end))
    console.print(CAPTION, highlight=False)
    verdicts = Counter(record.verdict for record in end)
    counted = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
    console.print(f"Of {len(end)} streams: {counted}.\n", highlight=False)


def _accuracies(metrics: Mapping[str, float]) -> str:
    scores = (("validation", "val/accuracy"), ("test", "test/accuracy"))
    return ", ".join(f"{name} {metrics[key]:.1%}" for name, key in scores if key in metrics)


def _places(directory: Path) -> list[tuple[str, str]]:
    """Dataset and figures, as far as they were written."""
    dataset = directory / "jaynes"
    figures = dataset / "figures"
    parts = len(list(dataset.glob("part-*.parquet")))
    drawn = len(list(figures.glob("*.png")))
    found = (
        ("dataset", dataset, parts, f"({parts} snapshots; pandas.read_parquet reads the folder)"),
        ("figures", figures, drawn, f"({drawn} images)"),
    )
    return [(what, f"{_shown(path)}  {note}") for what, path, number, note in found if number]


def tensorboard_command(folder: Path) -> str:
    """What opens TensorBoard on a folder, as one pastes it into this shell."""
    beside = Path(sys.executable).with_name("tensorboard")
    on_path = shutil.which("tensorboard")
    if on_path is not None and Path(on_path).resolve() == beside.resolve():
        return f"tensorboard --logdir {_shown(folder)}"
    return f"{_shown(beside)} --logdir {_shown(folder)}"


def _shown(path: Path) -> str:
    """Relative to the working directory where it lies below it, quoted where it must be."""
    import shlex

    working = Path.cwd()
    return shlex.quote(str(path.relative_to(working) if path.is_relative_to(working) else path))


def _line(console: Console, what: str, text: str) -> None:
    if text:
        console.print(f"[bold]{what:<12}[/bold]", end="", highlight=False)
        console.print(text, highlight=False, soft_wrap=True, markup=False)
