"""Format the tables of `experiments.instrument_correlations`: 100 columns, and Markdown."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from jaynes_callbacks.records.text import counted

__all__ = ["CAPTION", "markdown", "terminal_tables"]

CAPTION = (
    "ρ: Spearman's. Changes: of differences between successive records in a run, mean over\n"
    "conditions ± half the 95 % interval; chance: the same with a run of another condition.\n"
    "Nearest: the curve of another instrument whose changes go with these the most, and the\n"
    "most that those of other conditions do. Ends: the last values, between runs, with the\n"
    "accuracy and the share of it kept under corruption, pruning and rounding, [95 % interval];\n"
    "pooled is confounded by the conditions. *: the interval leaves out 0, as 1 in 20 does."
)
_Rows = Sequence[tuple[str, Sequence[str]]]


def terminal_tables(tables: Mapping[str, pd.DataFrame], *, number: int) -> list[Table]:
    """Return the tables for a terminal, at most 100 columns wide.

    Args:
        tables: by name, as `instrument_correlations.main` makes them.
        number: of runs.
    """
    shown = []
    for title, headings, rows in _shown(tables):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.title, table.title_justify = f"{title} ({counted(number, 'run')})", "left"
        table.add_column("curve", overflow="fold", max_width=30)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        before = ""
        for curve, cells in rows:
            instrument, _, rest = curve.partition("/")
            if instrument != before:
                table.add_section()
                table.add_row(Text(instrument, style="italic"))
                before = instrument
            table.add_row(Text(rest.replace("/", " ")), *map(Text, cells))
        shown.append(table)
    return shown


def markdown(tables: Mapping[str, pd.DataFrame], folders: Iterable[Path], *, number: int) -> str:
    """Return the tables as Markdown, with the command that made them.

    Args:
        tables: by name, as `instrument_correlations.main` makes them.
        folders: the runs', as named on the command line.
        number: of runs.
    """
    command = shlex.join(
        ["python", "-m", "experiments.instrument_correlations", *map(str, folders)]
    )
    parts = [f"`{command}`: {counted(number, 'run')}.\n"]
    for title, headings, rows in _shown(tables):
        lines = [["curve", *(heading.replace("\n", " ") for heading in headings)]]
        lines += [["---"] * len(lines[0])]
        lines += [[f"`{curve}`", *cells] for curve, cells in rows]
        parts += [f"## {title}\n", *(f"| {' | '.join(line)} |" for line in lines), ""]
    return "\n".join([*parts, *(f"{line}  " for line in CAPTION.splitlines()), ""])


def _shown(
    tables: Mapping[str, pd.DataFrame],
) -> list[tuple[str, Sequence[str], _Rows]]:
    """Return title, headings and rows of cells of each table that people read."""
    course = tables["course"]
    measures = [
        str(name) for name in course if f"{name} ±" in course and not str(name).endswith(", course")
    ]
    rows = [
        (
            str(row["curve"]),
            [*(_mean_text(row[name], row[f"{name} ±"]) for name in measures), _nearest_text(row)],
        )
        for row in course.to_dict("records")
    ]
    headings = [name.replace(", ", "\n") for name in measures]
    shown: list[tuple[str, Sequence[str], _Rows]] = [
        (
            "Over the course of runs",
            [*headings, "nearest of another\ninstrument (by chance)"],
            rows,
        ),
    ]
    for name in ("ends, within condition", "ends, pooled"):
        shown.append((name[0].upper() + name[1:], *_ends(tables[name])))
    # Of few runs there is no correlation between them.
    return [each for each in shown if each[-1]]


def _ends(table: pd.DataFrame) -> tuple[Sequence[str], _Rows]:
    headings = [str(each) for each in table["outcome"].unique()]
    cells: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        text = _interval_text(row["rho"], row["low"], row["high"])
        cells.setdefault(str(row["curve"]), {})[row["outcome"]] = text
    rows = [(curve, [of.get(each, "") for each in headings]) for curve, of in cells.items()]
    return headings, rows


def _mean_text(mean: float, half: float) -> str:
    if not math.isfinite(mean):
        return ""
    mark = "*" if math.isfinite(half) and abs(mean) > half else ""
    return f"{_short(mean)}±{abs(half):.2f}".replace("±0.", "±.").replace("±nan", "") + mark


def _interval_text(rho: float, low: float, high: float) -> str:
    if not math.isfinite(low):
        return _short(rho)
    return f"{_short(rho)} [{_short(low)},{_short(high)}]{'*' if low > 0 or high < 0 else ''}"


def _nearest_text(row: Mapping[object, object]) -> str:
    name, rho = row.get("nearest"), row.get("rho")
    if not isinstance(name, str) or not isinstance(rho, float):
        return ""
    chance = row.get("chance")
    told = f" (.{round(100 * chance):02d})" if isinstance(chance, float) and chance < 1 else ""
    return f"{name.replace('/', ' ')} {_short(rho)}{told}"


def _short(number: float) -> str:
    """Return a correlation with its sign and two decimals, as ``+.83``."""
    return f"{number:+.2f}".replace("0.", ".", 1)
