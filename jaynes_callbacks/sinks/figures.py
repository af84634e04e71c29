"""Draws figures at the end of a run, and now and then, as PNG files and into trackers."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

from jaynes_callbacks.figures import (
    LIGHT,
    Look,
    Pixels,
    coalition_map,
    columns_over_steps,
    exponents_over_layers,
    gap_map,
    gap_over_steps,
    laws_over_steps,
    log_density,
    microstructure_map,
    paper_view,
    rendered,
    statistics_map,
)
from jaynes_callbacks.figures.inputs import as_frame
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import in_order
from jaynes_callbacks.schedule import every, never
from jaynes_callbacks.sinks.base import RunContext, sparing
from jaynes_callbacks.sinks.dataset import figures_beside, place
from jaynes_callbacks.sinks.trackers import Ability, Tracker

__all__ = [
    "MAX_STREAMS",
    "OF_HISTORY",
    "OF_INSTRUMENT",
    "OF_MOMENT",
    "FigureSink",
    "choose_streams",
]

#: Streams with figures of their own.
MAX_STREAMS = 8
#: Figures of the whole network: of the history, and of the newest records.
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
#: A figure of the newest records of another instrument, by the instrument's name.
OF_INSTRUMENT: dict[str, Callable[..., Figure]] = {"coalitions": coalition_map}
_LONGEST_FILE_NAME = 80
_WHAT = "figures"

#: A figure's tag, and what draws it.
_Drawing = tuple[str, Callable[[], Figure]]


class FigureSink:
    """Draws the whole network, density and paper's view of some streams, and other instruments.

    Of the main instrument: gaps, laws and places in the microstructure map through training;
    statistics and exponents of the newest records; and for the streams of `choose_streams` their
    distributions against the start.  Of any other instrument: its curves through training, at the
    end, and a figure of its own if it has one (`OF_INSTRUMENT`).

    Files hold the newest state: ``<figure>-<kind>-<stream>.png`` in a directory beside the dataset.
    Trackers that can show images keep one for each time of drawing.

    Args:
        every_n_epochs: draw at the first record of every n-th epoch; None for at the end only.
        max_streams: most streams with figures of their own, see `choose_streams`.  While training
            goes on they are chosen once, so that each can be followed; at the end they are chosen
            anew.
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
        self._trackers: list[Tracker] = []
        self._start: dict[tuple[str, str], Record] = {}
        self._followed: set[tuple[str, str]] = set()
        self._drawn_epoch = -1
        self._drawn: dict[str, int] = {}

    def open(self, context: RunContext) -> None:
        """Take the directory, and the trackers that can show images."""
        dataset = place(context)
        self.directory = figures_beside(dataset) if dataset is not None else None
        self._trackers = context.trackers_with(Ability.IMAGES, what=_WHAT)
        self._start, self._followed, self._drawn_epoch, self._drawn = {}, set(), -1, {}

    def write(self, records: Frame[Any], history: Sequence[Any]) -> None:
        """Draw the main instrument if it is time."""
        if not len(records) or not records.schema.main or not self._has_destination:
            return
        rows = list(records)
        for record in rows:
            self._start.setdefault(record.key, record)
        if rows[0].step == 0 or not self._is_due(rows[0].epoch):
            return
        self._drawn_epoch = rows[0].epoch
        self._followed = self._followed or {
            record.key for record in choose_streams(rows, self._start, self._max_streams)
        }
        followed = [record for record in rows if record.key in self._followed]
        self._draw(followed, rows, history)

    def close(self, start: Frame[Any], end: Frame[Any], history: Sequence[Any]) -> None:
        """Draw the last state against the first; of other instruments their curves."""
        if not len(end) or not self._has_destination:
            return
        if not end.schema.main:
            table = as_frame(history, end.schema)
            self._deliver(table, self._of_other(table, end))
            return
        self._start |= start.by_stream()
        rows = list(end)
        self._draw(choose_streams(rows, self._start, self._max_streams), rows, history)

    @property
    def _has_destination(self) -> bool:
        return self.directory is not None or bool(self._trackers)

    def _is_due(self, epoch: int) -> bool:
        return epoch != self._drawn_epoch and self._due(epoch + 1)

    def _draw(
        self, chosen: Iterable[Record], records: Sequence[Record], history: Sequence[Any]
    ) -> None:
        """Draw all figures of the main instrument."""
        # A history reads what is old from files: once is enough for all figures.
        table = as_frame(history)
        self._deliver(table, self._of_magnitudes(chosen, records, table))

    def _deliver(self, table: Frame[Any], drawings: Iterable[_Drawing]) -> None:
        """Draw one figure after the other, each once a step; none is kept when it is delivered."""
        step = int(table["step"][-1]) if len(table) else 0
        for tag, draw in drawings:
            if self._drawn.get(tag) == step:
                continue
            self._drawn[tag] = step
            pixels = rendered(draw())
            if self.directory is not None:
                save(pixels, self.directory / file_name(tag))
            self._show(tag, pixels, step)

    def _show(self, tag: str, pixels: Pixels, step: int) -> None:
        self._trackers = sparing(
            self._trackers, lambda tracker: tracker.log_image(tag, pixels, step), _WHAT
        )

    def _of_magnitudes(
        self, chosen: Iterable[Record], records: Sequence[Record], table: Frame[Any]
    ) -> Iterator[_Drawing]:
        """Yield the figures of the whole network, then those of the chosen streams."""
        of_network: tuple[tuple[Mapping[str, Callable[..., Figure]], Sequence[Any]], ...] = (
            (OF_HISTORY, table),
            (OF_MOMENT, records),
        )
        for of_all, rows in of_network:
            for name, draw in of_all.items():
                yield f"equilibrium/{name}", partial(draw, rows, look=self._look)
        for record in chosen:
            first = self._start.get(record.key)
            start = first if first is not None and first.step != record.step else None
            for name, draw in (("log_density", log_density), ("paper_view", paper_view)):
                tag = f"{name}_{record.kind}/{record.name}"
                yield tag, partial(draw, record, start, look=self._look)

    def _of_other(self, table: Frame[Any], end: Frame[Any]) -> Iterator[_Drawing]:
        """Yield the figures of an instrument: of its curves, and of its last records."""
        name = table.schema.instrument
        if table.schema.curves:
            yield f"{name}/over_steps", partial(columns_over_steps, table, look=self._look)
        if name in OF_INSTRUMENT:
            yield f"figures/{name}", partial(OF_INSTRUMENT[name], end, look=self._look)


def choose_streams(
    records: Sequence[Record], start: Mapping[tuple[str, str], Record], number: int
) -> list[Record]:
    """Choose the streams that get figures of their own, in the order of the records.

    Kinds take turns; within a kind, the stream whose gap changed most since the start and the one
    whose gap is greatest take turns.

    Args:
        records: one record of each stream.
        start: the first record of each stream.
        number: most streams to choose.
    """

    def change(record: Record) -> float:
        return abs(record.gap - start.get(record.key, record).gap)

    def gap(record: Record) -> float:
        return record.gap

    by_kind = {
        kind: [record for record in records if record.kind == kind]
        for kind in in_order(record.kind for record in records)
    }
    queues = (_in_turns(_ranked(rows, change), _ranked(rows, gap)) for rows in by_kind.values())
    chosen = {record.key for record in _in_turns(*queues)[:number]}
    return [record for record in records if record.key in chosen]


def _ranked(records: Sequence[Record], figure: Callable[[Record], float]) -> list[Record]:
    """Return the records by a figure of each, greatest first, nan last."""
    return sorted(
        records, key=lambda record: (math.isnan(figure(record)), -np.nan_to_num(figure(record)))
    )


def _in_turns(*queues: list[Record]) -> list[Record]:
    """Return the first of each queue, then the second of each and so on, none twice."""
    mixed = chain.from_iterable(zip_longest(*queues))
    return list({record.key: record for record in mixed if record is not None}.values())


# Files -----------------------------------------------------------------------------------


def save(pixels: Pixels, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, lambda temporary: imsave(temporary, pixels, format="png"))


def file_name(tag: str) -> str:
    """Return a file name of harmless characters that differs from any other tag's.

    It differs also on file systems that take capital and small letters as the same.

    >>> file_name("log_density_weight/net.0.weight")
    'log_density_weight-net.0.weight.png'
    >>> file_name("log_density_weight/../../Net")
    'log_density_weight-..-..-Net-7ab149.png'
    """
    plain = tag.replace("/", "-", 1)
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", plain)[:_LONGEST_FILE_NAME]
    if safe == plain and plain == plain.lower():
        return f"{safe}.png"
    return f"{safe}-{sha256(tag.encode(errors='surrogatepass')).hexdigest()[:6]}.png"
