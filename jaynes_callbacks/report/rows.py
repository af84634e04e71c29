"""The table of all streams: what stands in each row, as text and as the number that it sorts by."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.verdict import band, rival_gaps
from jaynes_callbacks.records.text import count_text, number_text, paper_text, tilt_text
from jaynes_callbacks.report.runs import Run

__all__ = ["COLUMNS", "Cell", "Row", "law", "spark_height", "stream_rows"]

#: Heading of each column and what it says.
COLUMNS = (
    ("stream", "qualified name; weights, or the place of an activation"),
    ("values", "finite and non-zero"),
    ("gap", "nats to the best lognormal, at the start and at the end; 0 is equilibrium"),
    ("over training", "the gap at every record, on a logarithmic scale from 0.005 to 0.5"),
    ("best rival", "law that comes nearest besides the lognormal, and its gap"),
    ("q", "tilt: 0 lognormal, 1 exponential, 1.41 Gaussian, large: uniform"),
    ("R² (Gauss)", "by the paper's protocol; in brackets what Gaussian weights score"),
    ("verdict", "by the rule above"),
)
_LAWS = {"half_student_t": "Student t", "generalized_gamma": "generalized gamma"}
#: Box of a sparkline and the gaps at its top and bottom.
_WIDTH, _HEIGHT = 110, 24
_TOP, _BOTTOM = 0.5, 5e-3
#: Points of a sparkline at the most.
_POINTS = 60


class Cell(NamedTuple):
    """One cell: what is read, and what is sorted by."""

    text: str
    key: float | str


class Row(NamedTuple):
    """One stream.

    Attributes:
        number: place in the network's order.
        kind: ``weight`` or ``iota``.
        name: of the stream.
        cells: one for each column.
        spark: points of the gap over the steps, in the sparkline's box; empty for one record.
        band: of the gap at the end.
        status: why something is missing; ``ok`` if nothing is.
    """

    number: int
    kind: str
    name: str
    cells: Sequence[Cell]
    spark: str
    band: str
    status: str


def stream_rows(run: Run) -> list[Row]:
    """One row per stream, in the network's order."""
    return [_row(number, record, run) for number, record in enumerate(run.end)]


def spark_height(gap: float) -> float:
    """Where a gap lies in the sparkline's box, from its top."""
    share = math.log(_TOP / min(max(gap, _BOTTOM), _TOP)) / math.log(_TOP / _BOTTOM)
    return _HEIGHT * share


def law(name: str) -> str:
    """A family's name as people write it.

    >>> law("half_student_t"), law("half_normal")
    ('Student t', 'half-normal')
    """
    return _LAWS.get(name, name.replace("_", "-"))


def _row(number: int, record: Record, run: Run) -> Row:
    start = run.first.get(record.key, record)
    gaps = rival_gaps(record)
    rival = min(gaps, key=lambda name: gaps[name], default="")
    nearest = gaps.get(rival, math.nan)
    change = f"{number_text(start.gap, 3)} → " if start.step != record.step else ""
    rows = run.by_stream[record.key]
    cells = (
        Cell(record.name, number),
        Cell(count_text(record.n), record.n),
        Cell(f"{change}{number_text(record.gap, 3)}", _key(record.gap)),
        Cell("", _key(record.gap - start.gap)),
        Cell(f"{law(rival)} {number_text(nearest, 3)}" if rival else "–", law(rival)),
        Cell(tilt_text(record.q), _key(record.q)),
        Cell(paper_text(record), _key(record.paper_r2)),
        Cell(record.verdict or band(record.gap), record.verdict or band(record.gap)),
    )
    spark = _spark(rows) if run.is_trained else ""
    return Row(number, record.kind, record.name, cells, spark, band(record.gap), record.status)


def _key(value: float) -> float | str:
    """What is not known is sorted last."""
    return value if math.isfinite(value) else ""


def _spark(rows: Sequence[Record]) -> str:
    """Points of a polyline, over the steps."""
    known = [(row.step, row.gap) for row in rows if row.gap > 0 or row.gap <= 0]
    stride = max(1, -(-len(known) // _POINTS))
    known = known[::-1][::stride][::-1]
    if len(known) < 2:
        return ""
    first, last = known[0][0], known[-1][0]
    points = [
        f"{_WIDTH * (step - first) / (last - first):.0f},{spark_height(gap):.1f}"
        for step, gap in known
    ]
    return " ".join(points)
