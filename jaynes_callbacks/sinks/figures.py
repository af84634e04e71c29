"""Draws figures at the end of a run, and now and then, as PNG files and into loggers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaynes_callbacks.figures import (
    LIGHT,
    Look,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    log_density,
    microstructure_map,
    paper_view,
    statistics_map,
)
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.schedule import every, never
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.images import (
    Pixels,
    file_name,
    rendered,
    save,
    send_image,
    shows_images,
)
from jaynes_callbacks.sinks.place import figures_beside, place

__all__ = ["MAX_STREAMS", "OF_HISTORY", "OF_MOMENT", "FigureSink", "telling"]

#: Streams with figures of their own.
MAX_STREAMS = 8
#: Of the whole network: what is drawn of the history, and of the newest records.
OF_HISTORY: dict[str, Callable[..., Figure]] = {
    "gap_over_steps": gap_over_steps,
    "gap_map": gap_map,
    "laws_over_steps": laws_over_steps,
    "microstructure_map": microstructure_map,
}
OF_MOMENT: dict[str, Callable[..., Figure]] = {
    "statistics_map": statistics_map,
    "exponents_over_layers": exponents_over_layers,
}


class FigureSink:
    """Draws the whole network, and density and paper's view of the most telling streams.

    Of the network: gaps, laws and places in the microstructure map through training, statistics
    and exponents of the newest records.

    Files hold the newest state, ``<figure>-<kind>-<stream>.png`` beside the dataset; loggers that
    show images keep one for each time of drawing.

    Args:
        every_n_epochs: draw at the first record of every n-th epoch; None for at the end only.
        max_streams: streams with figures of their own, see `telling`.  Those drawn while training
            goes on are chosen once, so that each can be followed; at the end they are chosen anew.
        look: of the page.

    Raises:
        ValueError: if a number is out of range.

    Attributes:
        directory: where the files are, once opened; None for a run without files.
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        *,
        max_streams: int = MAX_STREAMS,
        look: Look = LIGHT,
    ) -> None:
        if max_streams < 0:
            raise ValueError(f"max_streams must be 0 or more, got {max_streams!r}")
        what = "figures_every_n_epochs"
        self._due = never if every_n_epochs is None else every(every_n_epochs, what=what)
        self._max_streams = max_streams
        self._look = look
        self.directory: Path | None = None
        self._loggers: list[Any] = []
        self._start: dict[tuple[str, str], Record] = {}
        self._followed: set[tuple[str, str]] = set()
        self._drawn_epoch = -1
        self._drawn: dict[str, int] = {}

    def open(self, context: RunContext) -> None:
        """Take the directory and the loggers."""
        dataset = place(context)
        self.directory = figures_beside(dataset) if dataset is not None else None
        self._loggers = list(context.loggers)
        self._start, self._followed, self._drawn_epoch, self._drawn = {}, set(), -1, {}

    def write(self, records: Records, history: Records) -> None:
        """Draw if it is time."""
        for record in records:
            self._start.setdefault(record.key, record)
        if not records or records[0].step == 0 or not self._is_due(records[0].epoch):
            return
        self._drawn_epoch = records[0].epoch
        self._followed = self._followed or {
            record.key for record in telling(records, self._start, self._max_streams)
        }
        followed = [record for record in records if record.key in self._followed]
        self._draw(followed, records, history)

    def close(self, start: Records, end: Records, history: Records) -> None:
        """Draw the last state against the first."""
        self._start |= start.by_stream()
        if end:
            self._draw(telling(end, self._start, self._max_streams), end, history)

    def _is_due(self, epoch: int) -> bool:
        return epoch != self._drawn_epoch and self._due(epoch + 1)

    def _draw(self, telling: Iterable[Record], records: Records, history: Records) -> None:
        """One figure after the other: none is kept once it is delivered, none is drawn twice."""
        if self.directory is None and not self._loggers:
            return
        step = history[-1].step if history else 0
        for tag, draw in self._figures(telling, records, history):
            if self._drawn.get(tag) == step:
                continue
            self._drawn[tag] = step
            pixels = rendered(draw())
            if self.directory is not None:
                save(pixels, self.directory / file_name(tag))
            self._loggers = sparing(self._loggers, _sender(tag, pixels, step))

    def _figures(
        self, telling: Iterable[Record], records: Records, history: Records
    ) -> Iterator[tuple[str, Callable[[], Figure]]]:
        for of_all, rows in ((OF_HISTORY, history), (OF_MOMENT, records)):
            for name, draw in of_all.items():
                yield f"equilibrium/{name}", partial(draw, rows, look=self._look)
        for record in telling:
            first = self._start.get(record.key)
            start = first if first is not None and first.step != record.step else None
            for name, draw in (("log_density", log_density), ("paper_view", paper_view)):
                tag = f"{name}_{record.kind}/{record.name}"
                yield tag, partial(draw, record, start, look=self._look)


def telling(records: Records, start: Mapping[tuple[str, str], Record], number: int) -> list[Record]:
    """The streams that tell most, in their own order.

    In turns, of each kind, the one whose gap changed most since the start and the one whose gap is
    greatest.

    Args:
        records: one snapshot.
        start: the first record of each stream.
        number: at most so many.
    """

    def change(record: Record) -> float:
        return abs(record.gap - start.get(record.key, record).gap)

    def gap(record: Record) -> float:
        return record.gap

    queues = (
        _in_turns(_ranked(rows, change), _ranked(rows, gap))
        for rows in (records.select(kind="weight"), records.select(kind="iota"))
    )
    chosen = {record.key for record in _in_turns(*queues)[:number]}
    return [record for record in records if record.key in chosen]


def _ranked(records: Records, figure: Callable[[Record], float]) -> list[Record]:
    """Greatest first, nan last."""
    return sorted(
        records, key=lambda record: (math.isnan(figure(record)), -np.nan_to_num(figure(record)))
    )


def _in_turns(*queues: list[Record]) -> list[Record]:
    """One of each queue, then the next of each, none twice."""
    mixed = chain.from_iterable(zip_longest(*queues))
    return list({record.key: record for record in mixed if record is not None}.values())


def _sender(tag: str, pixels: Pixels, step: int) -> Callable[[Any], None]:
    def send(logger: Any) -> None:
        if shows_images(logger):
            send_image(logger, tag, pixels, step)

    return send
