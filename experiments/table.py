"""The closing table: every stream, from start to end."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from jaynes_callbacks import Record, Records

__all__ = ["CAPTION", "stream_table"]

CAPTION = (
    "gap: nats per weight (neuron) to the best lognormal; 0 is arbitrage equilibrium, random "
    "Gaussian weights have 0.163.  R²: of the paper's protocol; in brackets what random Gaussian "
    "weights of the same max/rms score."
)
_HEADINGS = {"weight": "weights |w|", "iota": "neurons, iota Z = z·y"}
_STYLES = {
    "emerged": "bold green",
    "present from the start": "green",
    "approaching": "yellow",
    "undetermined": "dim",
}


def stream_table(start: Records, end: Records) -> Table:
    """One row per stream, under one heading per kind.

    Args:
        start: the first snapshot.
        end: the last one.

    Returns:
        A table that fits 100 columns, and 80 with some rows on two lines.
    """
    tilt = "q" if any(math.isfinite(record.q) for record in end) else "skew"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stream", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("gap: start → end", justify="right", no_wrap=True)
    table.add_column("best family", overflow="fold")
    table.add_column("q" if tilt == "q" else "skew of ln w", justify="right")
    table.add_column("R² (Gauss)", justify="right")
    table.add_column("verdict")
    first = start.by_stream()
    for kind, heading in _HEADINGS.items():
        rows = [record for record in end if record.kind == kind]
        if rows:
            table.add_row(Text(heading, style="italic"))
        for record in rows:
            table.add_row(*_cells(first.get(record.key, record), record, tilt))
        table.add_section()
    return table


def _cells(start: Record, end: Record, tilt: str) -> tuple[str | Text, ...]:
    return (
        end.name,
        _count(end.n),
        f"{_number(start.gap, 3)} → {_number(end.gap, 3)}",
        end.best_family.replace("_", "-"),
        _number(end.q if tilt == "q" else end.log_skew, 2),
        f"{_number(end.paper_r2, 2)} ({_number(end.paper_r2_gaussian, 2)})",
        Text(end.verdict, style=_STYLES.get(end.verdict, "")),
    )


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _count(n: int) -> str:
    """Three digits and a unit: 960, 32.8k, 1.05M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)
