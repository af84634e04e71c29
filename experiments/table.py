"""The closing table: every stream, from start to end."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from jaynes_callbacks import Record, Records
from jaynes_callbacks.records.text import LEFT_OUT, count_text, number_text, paper_text, tilt_text

__all__ = ["CAPTION", "short_family", "stream_table"]

CAPTION = (
    "gap: nats to the best lognormal; 0 is arbitrage equilibrium, Gaussian weights have 0.163.\n"
    "R²: by the paper's protocol; in brackets what as many Gaussian weights score on average.\n"
    f"{LEFT_OUT}"
)
_KINDS = {"weight": "weights", "iota": "neurons (iota)"}
_STYLES = {
    "emerged": "bold green",
    "present from the start": "green",
    "approaching": "yellow",
    "undetermined": "dim",
}
#: Families whose names are too long for a narrow column.
_SHORT = {"generalized_gamma": "gen. gamma", "half_student_t": "Student t"}
#: From this many columns on, there is more space between and in columns.
_ROOMY = 100


def stream_table(start: Records, end: Records, *, width: int) -> Table:
    """One row per stream, under one heading per kind.

    Args:
        start: the first snapshot.
        end: the last one.
        width: of the terminal, in columns; the table fits 100 and, with few rows on two lines, 80.
    """
    with_q = any(math.isfinite(record.q) for record in end)
    roomy = width >= _ROOMY
    table = _empty_table("q" if with_q else "ln w\nskew", roomy=roomy)
    first = start.by_stream()
    for kind, heading in _KINDS.items():
        rows = [record for record in end if record.kind == kind]
        if rows:
            table.add_section()
            table.add_row(Text(heading, style="italic"))
        for record in rows:
            tilt = record.q if with_q else record.log_skew
            arrow = " → " if roomy else "→"
            table.add_row(*_cells(first.get(record.key, record), record, tilt, arrow))
    return table


def _empty_table(tilt: str, *, roomy: bool) -> Table:
    padding = (0, int(roomy), 0, 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    table.add_column("stream", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("gap in nats\nstart → end", justify="right", no_wrap=True)
    table.add_column("best\nfamily", no_wrap=True)
    table.add_column(tilt, justify="right", no_wrap=True)
    table.add_column("R²\n(Gaussian)", justify="right", no_wrap=True)
    # Wide enough for "undetermined", and for all verdicts where there is room.
    table.add_column("verdict", width=22 if roomy else 12)
    return table


def _cells(start: Record, end: Record, tilt: float, arrow: str) -> tuple[str | Text, ...]:
    return (
        Text(end.name, overflow="fold"),
        count_text(end.n),
        f"{number_text(start.gap, 3)}{arrow}{number_text(end.gap, 3)}",
        short_family(end.best_family),
        tilt_text(tilt),
        paper_text(end),
        Text(end.verdict, style=_STYLES.get(end.verdict, "")),
    )


def short_family(name: str) -> str:
    """A family's name as it fits a narrow column.

    >>> short_family("half_student_t"), short_family("half_normal")
    ('Student t', 'half-normal')
    """
    return _SHORT.get(name, name.replace("_", "-"))
