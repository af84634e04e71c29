"""Draws figures at the end of a run, or now and then, as PNG files and into loggers."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jaynes_callbacks.record import Record, Records
from jaynes_callbacks.schedule import every, never
from jaynes_callbacks.sink import RunContext, sparing
from jaynes_callbacks.sinks.figures import gap_over_steps, log_density, paper_view

__all__ = ["DIRECTORY", "FigureSink"]

#: Name of the figures' directory below the run's; beside the dataset, which holds parts only.
DIRECTORY = "jaynes-figures"


class FigureSink:
    """Draws the paper's view and the density of ln w of some streams, and the gap of all.

    Args:
        every_n_epochs: draw at records of every n-th epoch; None for at the end only.
        max_streams: streams with figures of their own: those whose gap changed most.
    """

    def __init__(self, every_n_epochs: int | None = None, max_streams: int = 8) -> None:
        what = "figures_every_n_epochs"
        self._due = never if every_n_epochs is None else every(every_n_epochs, what=what)
        self._max_streams = max_streams
        self._directory: Path | None = None
        self._loggers: list[Any] = []
        self._start: dict[tuple[str, str], Record] = {}
        self._drawn_epoch = -1

    def open(self, context: RunContext) -> None:
        """Take the directory and the loggers that show images."""
        self._directory = context.directory and context.directory / DIRECTORY
        self._loggers = [logger for logger in context.loggers if _shows_images(logger)]
        self._start, self._drawn_epoch = {}, -1

    def write(self, records: Records, history: Records) -> None:
        """Draw if it is time."""
        for record in records:
            self._start.setdefault(record.key, record)
        epoch = records[0].epoch if records else 0
        if epoch != self._drawn_epoch and epoch > 0 and self._due(epoch):
            self._drawn_epoch = epoch
            self._draw(records, history)

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Draw the last state against the first."""
        self._start |= start.by_stream()
        if end:
            self._draw(end, history)

    def _draw(self, records: Records, history: Records) -> None:
        for name, figure in self._figures(records, history):
            if self._directory is not None:
                self._directory.mkdir(parents=True, exist_ok=True)
                figure.savefig(self._directory / f"{_file_name(name)}.png")
            step = records[0].step
            self._loggers = sparing(
                self._loggers,
                lambda logger: _show(logger, name, figure, step),  # noqa: B023
            )

    def _figures(self, records: Records, history: Records) -> Iterator[tuple[str, Figure]]:
        yield "gap_over_steps", gap_over_steps(history)
        for record in self._most_changed(records):
            first = self._start.get(record.key)
            start = first if first is not None and first.step != record.step else None
            yield f"log_density/{record.kind}/{record.name}", log_density(record, start)
            yield f"paper_view/{record.kind}/{record.name}", paper_view(record, start)

    def _most_changed(self, records: Records) -> list[Record]:
        def change(record: Record) -> float:
            first = self._start.get(record.key, record)
            moved = abs(first.gap - record.gap)
            return moved if moved == moved else -1.0

        return sorted(records, key=change, reverse=True)[: self._max_streams]


def _file_name(name: str) -> str:
    """A stream's name as a file's: harmless characters only, and no two alike."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80]
    if plain == name:
        return name
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _shows_images(logger: Any) -> bool:
    return hasattr(logger, "log_image") or hasattr(_experiment(logger), "add_figure")


def _experiment(logger: Any) -> Any:
    return getattr(logger, "experiment", None)


def _show(logger: Any, name: str, figure: Figure, step: int) -> None:
    experiment = _experiment(logger)
    if hasattr(experiment, "add_figure"):
        experiment.add_figure(name, figure, global_step=step, close=False)
    else:
        logger.log_image(key=name, images=[figure], step=step)
