"""The table of all streams of the main instrument: each row as text and as figures to sort by."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from jaynes_callbacks.instruments.record import (
    SCHEMA,
    Record,
    band,
    family_label,
    paper_text,
    tilt_text,
    verdict_text,
)
from jaynes_callbacks.instruments.scale_row import core_text, share_text
from jaynes_callbacks.instruments.verdict import in_words, rival_gaps
from jaynes_callbacks.records.schema import Array, Column
from jaynes_callbacks.records.text import cell_text, count_text, number_text
from jaynes_callbacks.report.runs import Run
from jaynes_callbacks.report.table import (
    SPARK_HEIGHT,
    Cell,
    Heading,
    StreamRow,
    sort_key,
    sparkline,
)

__all__ = ["Rival", "best_rival", "extremes", "headings", "spark_heights", "stream_rows"]

_Item = TypeVar("_Item")

_HEADINGS = (
    Heading("stream", "qualified name; weights, or the place of an activation"),
    Heading("values", "finite and non-zero"),
    Heading("gap", "nats to the best lognormal, at the start and at the end; 0 is equilibrium"),
    Heading("over training", "the gap at every record, on a logarithmic scale from 0.005 to 0.5"),
    Heading(
        "core (Gauss)",
        "gap of the core, which the scales of rows and columns cannot move; in brackets that of "
        "Gaussian weights of this shape",
    ),
    Heading("scales", "share of the variance of ln w that is scales of rows and columns"),
    Heading("best rival", "law that comes nearest besides the lognormal, and its gap"),
    Heading("q", "tilt: 0 lognormal, 1 exponential, 1.41 Gaussian, large: uniform"),
    Heading("R² (Gauss)", "by the paper's protocol; in brackets what Gaussian weights score"),
    Heading("verdict", "by the rule above"),
)
#: Places among the headings of the gap, of its sparkline, and of what is known of cores.
_GAP, _OVER_TRAINING, _OF_CORES = 2, 3, (4, 5)
#: Columns that tables for people show besides those that have a heading above; before the verdict.
_FURTHER: tuple[Column, ...] = tuple(each for each in SCHEMA.shown if each.name not in SCHEMA.ahead)
#: Gaps at the top and at the bottom of a sparkline, in nats.
_TOP, _BOTTOM = 0.5, 5e-3
#: Streams that are named at either end of the order by gaps.
_EXTREMES = 3


class Rival(NamedTuple):
    """The rival law that comes nearest to a stream's values.

    Attributes:
        name: of the family.
        gap: in nats.
    """

    name: str
    gap: float


def headings(run: Run) -> list[Heading]:
    """Return the headings of the table.

    A run of a single record has no course and no verdict, but the band of the gap; cores have no
    columns where none was measured.
    """
    further = [Heading(each.heading, each.meaning) for each in _FURTHER]
    *kept, verdict = _HEADINGS
    outcome = verdict if run.is_trained else verdict._replace(text="band")
    return [*_without(kept, _missing(run)), *further, outcome]


def stream_rows(run: Run) -> list[StreamRow]:
    """Return a row for each stream, in the network's order, with a cell for each heading."""
    heights, missing = spark_heights(run.history["gap"]), _missing(run)
    return [_row(number, record, run, heights, missing) for number, record in enumerate(run.end)]


def _missing(run: Run) -> set[int]:
    """Return the places of the headings that a run has nothing for."""
    missing = set() if run.is_trained else {_OVER_TRAINING}
    return missing if np.isfinite(run.end["core_gap"]).any() else missing | set(_OF_CORES)


def _without(items: Sequence[_Item], places: Collection[int]) -> list[_Item]:
    return [each for place, each in enumerate(items) if place not in places]


def spark_heights(gaps: Array) -> Array:
    """Return how far below the top of a sparkline's box gaps lie, on a logarithmic scale.

    >>> spark_heights(np.array([0.5, 0.05, 0.005, 0.0])).tolist()
    [0.0, 12.0, 24.0, 24.0]
    """
    share = np.log(_TOP / np.clip(gaps, _BOTTOM, _TOP)) / math.log(_TOP / _BOTTOM)
    heights: Array = SPARK_HEIGHT * share
    return heights


def best_rival(record: Record) -> Rival | None:
    """Return the rival law with the smallest gap; None where no rival could be fitted."""
    pairs = [Rival(name, gap) for name, gap in rival_gaps(record).items()]
    return min(pairs, key=lambda rival: rival.gap, default=None)


def extremes(rows: Sequence[StreamRow]) -> list[tuple[str, list[tuple[StreamRow, str]]]]:
    """Return the rows with the smallest and with the greatest gaps, each with its gap as text.

    Returns:
        Nothing where there are too few rows to choose from.
    """
    known = [row for row in rows if isinstance(row.cells[_GAP].key, float)]
    if len(known) <= 2 * _EXTREMES:
        return []
    ranked = sorted(known, key=lambda row: row.cells[_GAP].key)
    ends = {"Nearest": ranked[:_EXTREMES], "Farthest": ranked[: -_EXTREMES - 1 : -1]}
    return [
        (heading, [(row, row.cells[_GAP].text) for row in chosen])
        for heading, chosen in ends.items()
    ]


def _row(
    number: int, record: Record, run: Run, heights: Array, missing: Collection[int]
) -> StreamRow:
    start = run.first.get(record.key, record)
    rival = best_rival(record)
    change = f"{number_text(start.gap, 3)} → " if start.step != record.step else ""
    outcome = record.verdict or band(record.gap)
    spark = _spark(record, run, heights) if run.is_trained else ""
    cells = (
        Cell(record.name, number),
        Cell(count_text(record.n), record.n, is_number=True),
        Cell(f"{change}{number_text(record.gap, 3)}", sort_key(record.gap), is_number=True),
        Cell("", sort_key(record.gap - start.gap), spark=spark),
        Cell(core_text(record), sort_key(record.core_gap), is_number=True),
        Cell(share_text(record), sort_key(record.scale_share), is_number=True),
        _rival_cell(rival),
        Cell(tilt_text(record.q), sort_key(record.q), is_number=True),
        Cell(paper_text(record), sort_key(record.paper_r2), is_number=True),
    )
    shown = (
        *_without(cells, missing),
        *(_further_cell(each, record) for each in _FURTHER),
        Cell(verdict_text(record) or outcome, outcome),
    )
    words = in_words(record)
    return StreamRow(number, record.kind, record.name, shown, outcome, record.status, words)


def _further_cell(column: Column, record: Record) -> Cell:
    value, text = getattr(record, column.name), cell_text(record, column)
    if isinstance(value, int | float):
        return Cell(text, sort_key(value), is_number=True)
    return Cell(text, text)


def _rival_cell(rival: Rival | None) -> Cell:
    if rival is None:
        return Cell("–", "")
    label = family_label(rival.name)
    return Cell(f"{label} {number_text(rival.gap, 3)}", label)


def _spark(record: Record, run: Run, heights: Array) -> str:
    """Return the sparkline of a stream's gaps, without those that are unknown."""
    rows = run.rows_by_stream[record.key]
    rows = rows[~np.isnan(heights[rows])]
    return sparkline(run.history["step"][rows], heights[rows])
