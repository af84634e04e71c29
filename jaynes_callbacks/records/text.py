"""Tables for people: plain text in a terminal, HTML in a notebook; figures as text.

What is shown, under which heading and with how many decimals, is said by the schema.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaynes_callbacks.records.printable import printable
from jaynes_callbacks.records.schema import Column, ColumnType, Schema

__all__ = [
    "ROWS",
    "SHORTEST_NAME",
    "WIDTH",
    "align",
    "cell_text",
    "count_text",
    "counted",
    "html_table",
    "number_text",
    "shortened",
    "shortened_names",
    "text_table",
]

#: The text table is at most this wide; what does not fit of a name is left out in its middle.
WIDTH = 100
#: Rows that are printed; of more, the first and the last.
ROWS = 60
_NAME = "name"
#: A name is never made shorter than this.
SHORTEST_NAME = 8


def text_table(rows: Sequence[Any], schema: Schema[Any]) -> str:
    """Return aligned columns, at most 100 characters wide, with the schema's remarks below.

    Args:
        rows: a frame, or a list of rows of the schema.
        schema: says which columns are shown, and how.

    Example:
        >>> from jaynes_callbacks.records.schema import Row, Schema
        >>> print(text_table([Row(kind="weight", name="fc.weight", step=3)], Schema(Row)))
        kind    name       step
        weight  fc.weight     3
    """
    if not len(rows):
        return "no records"
    shown, cells = _cells(rows, schema)
    names = [each.name for each in shown]
    if _NAME in names:
        place = names.index(_NAME)
        others = sum(_width(column) + 2 for column in cells) - _width(cells[place]) - 2
        room = max(SHORTEST_NAME, WIDTH - others)
        cells[place] = shortened_names(cells[place], room)
    left = [number for number, each in enumerate(shown) if each.type is ColumnType.TEXT]
    lines = align(list(zip(*cells, strict=True)), left=left)
    if len(rows) > ROWS:
        lines.insert(1 + ROWS // 2, f"… {len(rows) - ROWS} more …")
    return "\n".join([*lines, *_remarks(rows, schema)])


def html_table(rows: Sequence[Any], schema: Schema[Any]) -> str:
    """Return the same table in HTML, every name and reason escaped."""
    _, cells = _cells(rows, schema)
    head, *body = zip(*cells, strict=True)
    lines = "".join(_html_row(row, "td") for row in body)
    left_out = len(rows) - len(body)
    notes = [f"{left_out} more rows are not shown"] if left_out else []
    foot = "".join(f"<p>{html.escape(note)}</p>" for note in [*notes, *schema.remarks(rows)])
    return f"<table><thead>{_html_row(head, 'th')}</thead><tbody>{lines}</tbody></table>{foot}"


def cell_text(row: Any, column: Column) -> str:
    """Return one cell as people read it."""
    if column.text is not None:
        return printable(column.text(row))
    value = getattr(row, column.name)
    if column.type is ColumnType.REAL:
        return number_text(value, column.digits)
    return printable(str(value))


def number_text(value: float, digits: int) -> str:
    """Return a number with so many decimals and no negative zero, or a dash where there is none.

    >>> number_text(-0.0001, 2), number_text(float("nan"), 2)
    ('0.00', '–')
    """
    return f"{value:z.{digits}f}" if math.isfinite(value) else "–"


def count_text(n: int) -> str:
    """Return a count with three digits and a unit.

    >>> count_text(960), count_text(32768), count_text(1048576)
    ('960', '32.8k', '1.05M')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, in the singular where it is one.

    >>> counted(1, "run"), counted(1200, "weight"), counted(0, "index", "indices")
    ('1 run', '1,200 weights', '0 indices')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def shortened(text: str, room: int) -> str:
    """Return a text of at most `room` characters; what does not fit is left out in its middle.

    >>> shortened("encoder.layer.weight", 10)
    'encod…ight'
    """
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}…{text[len(text) - end :]}"


def shortened_names(names: Sequence[str], room: int) -> list[str]:
    """Return dotted names of at most `room` characters, different names differently.

    What does not fit of a name is left out in its middle.  Where names are alike then, their parts
    are abbreviated from the beginning on instead, for numbers and ends tell most; where that is not
    enough, they are numbered.

    >>> shortened_names([f"encoder.layer.{n}.attention.query.weight" for n in (0, 1)], 28)
    ['e.l.0.attention.query.weight', 'e.l.1.attention.query.weight']
    """
    cut = [shortened(name, room) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    short: dict[str, str] = {}
    taken: dict[str, int] = {}
    for name in dict.fromkeys(names):
        found = shortened(_abbreviated(name, room), room)
        taken[found] = taken.get(found, 0) + 1
        mark = f"~{taken[found]}" if taken[found] > 1 else ""
        short[name] = f"{found[: room - len(mark)]}{mark}" if mark else found
    return [short[name] for name in names]


def _abbreviated(name: str, room: int) -> str:
    """Abbreviate as many parts of a dotted name as are needed, to their first letters."""
    parts = name.split(".")
    if len(parts) == 1:
        return name
    *parts, end = parts
    for place, part in enumerate(parts):
        if len(".".join([*parts, end])) <= room:
            break
        if not part.isdigit():
            parts[place] = part[:1]
    # The last part is mostly "weight", of every name.
    over = len(".".join([*parts, end])) - room
    if over > 0:
        end = end[: max(1, len(end) - over)]
    return ".".join([*parts, end])


def align(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Return lines of columns of equal width, two blanks between them.

    Args:
        rows: cells, the headings first.
        left: numbers of the columns that are flush left; the others are flush right.

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


def _remarks(rows: Sequence[Any], schema: Schema[Any]) -> list[str]:
    return [shortened(printable(line), WIDTH) for line in schema.remarks(rows)]


def _cells(rows: Sequence[Any], schema: Schema[Any]) -> tuple[list[Column], list[list[str]]]:
    """Return the columns that say anything, and heading and cells of each."""
    printed = list(rows)
    if len(rows) > ROWS:
        printed = [*rows[: ROWS // 2], *rows[len(rows) - ROWS // 2 :]]
    table = [
        (each, [each.heading, *(cell_text(row, each) for row in printed)])
        for each in schema.shown
        if each.name in schema.ahead or not _is_unknown(rows, each)
    ]
    # Texts at the end that no row has, such as verdicts where nothing was judged.
    while len(table) > 1 and table[-1][0].type is ColumnType.TEXT and not any(table[-1][1][1:]):
        table.pop()
    return [each for each, _ in table], [cells for _, cells in table]


def _is_unknown(rows: Sequence[Any], column: Column) -> bool:
    """Tell whether a column of figures is known in no row."""
    return column.type is ColumnType.REAL and not any(
        math.isfinite(getattr(row, column.name)) for row in rows
    )


def _html_row(row: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))
