"""Make the table at the end of a run: every stream, from start to end."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from jaynes_callbacks import Record
from jaynes_callbacks.instruments.record import (
    LEFT_OUT,
    family_label,
    paper_text,
    tilt_text,
    verdict_text,
)
from jaynes_callbacks.instruments.scale_row import core_text, share_text
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import in_order, kind_label
from jaynes_callbacks.records.text import count_text, number_text

__all__ = ["CAPTION", "stream_table"]

CAPTION = (
    "gap: nats to the best lognormal; 0 is arbitrage equilibrium, Gaussian weights have 0.163.\n"
    "core: the gap without the scales of rows and columns (Gaussian weights); their share of the\n"
    "spread of ln w. Rescaling neurons, which changes no output, moves the gap and not the core.\n"
    "R²: by the paper's protocol; in brackets what as many Gaussian weights score on average.\n"
    f"{LEFT_OUT}"
)
#: Place of the cores among the columns.
_CORE = 3
_STYLES = {
    "emerged": "bold green",
    "present from the start": "green",
    "approaching": "yellow",
    "undetermined": "dim",
}
#: From this many columns on, there is room for the cores; and from so many, for space in columns.
_WIDE, _ROOMY = 100, 120


def stream_table(start: Frame[Record], end: Frame[Record], *, width: int) -> Table:
    """Return a table with a row per stream, under a heading per kind.

    Args:
        start: the first snapshot.
        end: the last one.
        width: of the terminal, in columns; the table fits 100 and, without the cores and with few
            rows on two lines, 80.
    """
    with_q = any(math.isfinite(record.q) for record in end)
    with_core = width >= _WIDE and any(math.isfinite(record.core_gap) for record in end)
    roomy = width >= (_ROOMY if with_core else _WIDE)
    table = _empty_table("q" if with_q else "ln w\nskew", roomy=roomy, with_core=with_core)
    first = start.by_stream()
    for kind in in_order(record.kind for record in end):
        table.add_section()
        table.add_row(Text(kind_label(kind), style="italic"))
        for record in end.select(kind=kind):
            tilt = record.q if with_q else record.log_skew
            arrow = " → " if roomy else "→"
            cells = _cells(first.get(record.key, record), record, tilt, arrow)
            core = (core_text(record), share_text(record)) if with_core else ()
            table.add_row(*cells[:_CORE], *core, *cells[_CORE:])
    return table


def _empty_table(tilt: str, *, roomy: bool, with_core: bool) -> Table:
    padding = (0, int(roomy), 0, 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    table.add_column("stream", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("gap in nats\nstart → end", justify="right", no_wrap=True)
    if with_core:
        table.add_column("core\n(Gauss)", justify="right", no_wrap=True)
        table.add_column("scales", justify="right", no_wrap=True)
    table.add_column("best\nfamily", no_wrap=True)
    table.add_column(tilt, justify="right", no_wrap=True)
    table.add_column("R²\n(Gauss)", justify="right", no_wrap=True)
    # Wide enough for "undetermined", and for all verdicts where there is room.
    table.add_column("verdict", width=22 if roomy else 12)
    return table


def _cells(start: Record, end: Record, tilt: float, arrow: str) -> tuple[str | Text, ...]:
    return (
        Text(end.name, overflow="fold"),
        count_text(end.n),
        f"{number_text(start.gap, 3)}{arrow}{number_text(end.gap, 3)}",
        family_label(end.best_family),
        tilt_text(tilt),
        paper_text(end),
        Text(verdict_text(end), style=_STYLES.get(end.verdict, "")),
    )
