"""Records as a table for people: plain text in a terminal, HTML in a notebook; figures as text."""

import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from jaynes_callbacks.statistics import FEWEST_WEIGHTS, GENERALIZED_GAMMA

if TYPE_CHECKING:
    from jaynes_callbacks.instruments.record import Record

__all__ = [
    "LEFT_OUT",
    "align",
    "count_text",
    "html_table",
    "number_text",
    "paper_text",
    "remarks",
    "shortened",
    "text_table",
    "tilt_text",
]

#: What the star beside a paper figure means.
LEFT_OUT = f"* the paper leaves out layers of fewer than {FEWEST_WEIGHTS:,} weights."

_HEADINGS = ("kind", "name", "step", "n", "gap", "best family", "q", "R² (Gauss)", "verdict")
_NAME = "name"
_LEFT = {"kind", _NAME, "best family", "verdict"}
#: The text table is at most this wide; what does not fit of a name is left out in its middle.
_WIDTH = 100
_SHORTEST_NAME = 8
_LARGEST_Q = GENERALIZED_GAMMA.parameters[2].high
#: Rows that are printed; of more, the first and the last.
_ROWS = 60


def text_table(records: Sequence["Record"]) -> str:
    """Aligned columns, at most 100 wide; reasons of missing figures below.

    >>> from jaynes_callbacks.instruments.record import Record
    >>> print(text_table([Record(name="fc.weight", n=640, gap=0.163, best_family="half_normal")]))
    kind    name       step    n    gap  best family  q  R² (Gauss)
    weight  fc.weight     0  640  0.163  half_normal  –       – (–)
    """
    if not records:
        return "no records"
    columns = _columns(records)
    others = sum(_width(column) + 2 for column in columns if column[0] != _NAME)
    room = max(_SHORTEST_NAME, _WIDTH - others)
    columns = [
        [shortened(cell, room) for cell in column] if column[0] == _NAME else column
        for column in columns
    ]
    left = [number for number, column in enumerate(columns) if column[0] in _LEFT]
    lines = align(list(zip(*columns, strict=True)), left=left)
    if len(records) > _ROWS:
        lines.insert(1 + _ROWS // 2, f"… {len(records) - _ROWS} more …")
    return "\n".join([*lines, *remarks(records)])


def html_table(records: Sequence["Record"]) -> str:
    """The same table in HTML, every name and reason escaped."""
    head, *body = zip(*_columns(records), strict=True)
    rows = "".join(_html_row(row, "td") for row in body)
    left_out = len(records) - len(body)
    notes = [f"{left_out} more rows are not shown"] if left_out else []
    foot = "".join(f"<p>{html.escape(note)}</p>" for note in [*notes, *remarks(records)])
    return f"<table><thead>{_html_row(head, 'th')}</thead><tbody>{rows}</tbody></table>{foot}"


def _html_row(row: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"


def _columns(records: Sequence["Record"]) -> list[list[str]]:
    """Heading and cells of each column; no verdicts where nothing was judged."""
    columns = [
        list(column) for column in zip(_HEADINGS, *map(_cells, _shown(records)), strict=True)
    ]
    return columns if any(columns[-1][1:]) else columns[:-1]


def _shown(records: Sequence["Record"]) -> list["Record"]:
    if len(records) <= _ROWS:
        return list(records)
    return [*records[: _ROWS // 2], *records[len(records) - _ROWS // 2 :]]


def _cells(record: "Record") -> tuple[str, ...]:
    return (
        record.kind,
        record.name,
        str(record.step),
        count_text(record.n),
        number_text(record.gap, 3),
        record.best_family,
        tilt_text(record.q),
        paper_text(record),
        record.verdict,
    )


def paper_text(record: "Record") -> str:
    """R² (that of Gaussian weights), with a star where the paper would have left the layer out.

    >>> from jaynes_callbacks.instruments.record import Record
    >>> paper_text(Record(n=5120, paper_r2=0.92, paper_r2_gaussian=0.9))
    '0.92 (0.90)*'
    """
    left_out = record.kind == "weight" and 0 < record.n < FEWEST_WEIGHTS
    star = "*" if left_out and math.isfinite(record.paper_r2) else ""
    pair = f"{number_text(record.paper_r2, 2)} ({number_text(record.paper_r2_gaussian, 2)})"
    return pair + star


def tilt_text(q: float) -> str:
    """Prentice's q, or that it is at its bound.

    >>> tilt_text(1.414), tilt_text(10.0), tilt_text(-10.0)
    ('1.41', '≥ 10', '≤ -10')
    """
    if abs(q) >= _LARGEST_Q:
        return f"≥ {_LARGEST_Q:.0f}" if q > 0 else f"≤ -{_LARGEST_Q:.0f}"
    return number_text(q, 2)


def number_text(value: float, digits: int) -> str:
    """With so many decimals and no negative zero, or a dash where there is none."""
    return f"{value:z.{digits}f}" if math.isfinite(value) else "–"


def count_text(n: int) -> str:
    """Three digits and a unit: 960, 32.8k, 1.05M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def shortened(name: str, room: int) -> str:
    """A text of at most `room` characters; what does not fit is left out in its middle.

    >>> shortened("encoder.layer.weight", 10)
    'encod…ight'
    """
    if len(name) <= room:
        return name
    end = (room - 1) // 2
    return f"{name[: room - 1 - end]}…{name[len(name) - end :]}"


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))


def align(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines of columns of equal width, two blanks between them.

    Args:
        rows: cells, the headings first.
        left: numbers of the columns that begin at their left; the others end at their right.

    >>> align([("name", "n"), ("fc", "640")], left=[0])
    ['name    n', 'fc    640']
    """
    widths = [_width(column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def remarks(records: Sequence["Record"]) -> list[str]:
    """What a star means; each reason of missing figures once, with how many rows it concerns."""
    numbers = Counter(record.status for record in records if record.status != "ok")
    reasons = [
        shortened(f"{number} of {len(records)}: {reason}", _WIDTH)
        for reason, number in numbers.items()
    ]
    starred = any(paper_text(record).endswith("*") for record in records)
    return [LEFT_OUT, *reasons] if starred else reasons
