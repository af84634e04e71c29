"""Format a study's tables: for a terminal of 100 columns, and in Markdown."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.summaries.tables import CAPTION, PAPERS_LOWEST, VERDICTS, Study, layers, relation
from jaynes_callbacks.instruments.record import NEAR
from jaynes_callbacks.records.stream import IOTA, in_order, kind_label
from jaynes_callbacks.records.text import number_text

__all__ = ["layers_markdown", "markdown", "terminal_table"]


def terminal_table(rows: pd.DataFrame) -> Table:
    """Return a study's summary as a table at most 100 columns wide.

    Args:
        rows: of `tables.summary`.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("condition", overflow="fold", max_width=36)
    for heading in ("runs", "gap: start\n→ end ± sd", "E/P/A/N"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("best\nfamily", no_wrap=True)
    for heading in ("R²\n(Gaussian)", "test\naccuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, of_kind in _by_kind(rows):
        table.add_section()
        table.add_row(Text(kind_label(kind), style="italic"))
        for row in of_kind.to_dict("records"):
            table.add_row(*_cells(row))
    return table


def _by_kind(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Group the rows by kind, in the order in which kinds are shown."""
    return [(kind, rows[rows["kind"] == kind]) for kind in in_order(rows["kind"])]


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return (
        str(row["condition"]),
        str(row["runs"]),
        f"{number_text(row['gap_start'], 3)} → {_with_sd(row, 'gap_end')}".replace(" ± ", "±"),
        "/".join(f"{100 * row[verdict]:.0f}" for verdict in VERDICTS),
        str(row["families"]).split(",")[0].rsplit(" ", 1)[0],
        f"{number_text(row['r2'], 2)} ({number_text(row['r2_gaussian'], 2)})",
        _with_sd(row, "accuracy", percent=True).replace(" ± ", "±"),
    )


def markdown(
    made: Study, rows: pd.DataFrame, folders: Iterable[Path], figures: Sequence[Path]
) -> str:
    """Return the summary as Markdown: the command, every table, the paper's R² alone, figures.

    Args:
        made: the study.
        rows: of `tables.summary`.
        folders: the runs', as named on the command line.
        figures: drawn of them, relative to the page.
    """
    command = shlex.join(["python", "-m", "experiments.summarise", *map(str, folders)])
    seeds = ", ".join(map(str, sorted(made.runs["seed"].unique())))
    head = (
        f"`{command}`: {len(made.runs)} runs of {made.runs['condition'].nunique()} conditions, "
        f"seeds {seeds}; {made.runs['seconds'].sum() / 60:.0f} minutes of training; "
        f"{len(made.streams)} streams, {made.left_out} left out.\n"
    )
    parts = [head]
    for kind, of_kind in _by_kind(rows):
        parts += [f"## {kind_label(kind)}\n", _table(_summary_cells(of_kind)), ""]
    parts += [*(f"{line}  " for line in CAPTION.splitlines()), ""]
    parts += ["## By the paper's R² alone\n", _table(_paper_cells(rows)), ""]
    parts += [_relation_lines(made), ""]
    parts += [f"![{figure.stem.replace('_', ' ')}]({figure})\n" for figure in figures]
    return "\n".join(parts)


def layers_markdown(made: Study) -> str:
    """Return the page of every layer of every condition.

    Args:
        made: the study.
    """
    return f"# Layer by layer\n\n{_table(_layer_cells(made))}\n"


def _summary_cells(rows: pd.DataFrame) -> list[dict[str, str]]:
    cells = []
    for row in rows.to_dict("records"):
        one = {
            "condition": row["condition"],
            "runs": str(row["runs"]),
            "streams": str(row["streams"]),
            "gap at the start": _with_sd(row, "gap_start"),
            "gap at the end": _with_sd(row, "gap_end"),
            "E/P/A/N %": "/".join(f"{100 * row[verdict]:.0f}" for verdict in VERDICTS),
            "best families": row["families"],
            "R² (Gaussian)": f"{number_text(row['r2'], 3)} ({number_text(row['r2_gaussian'], 3)})",
            "test accuracy %": _with_sd(row, "accuracy", percent=True),
        }
        if row["kind"] == IOTA:
            one["Z: lognormal, exponential"] = (
                f"{number_text(row['z_lognormal'], 3)}, {number_text(row['z_exponential'], 3)}"
            )
        cells.append(one)
    return cells


def _paper_cells(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Return what R² alone would conclude, beside the gap and the verdicts."""
    passes, near = f"R² ≥ {PAPERS_LOWEST} at the", f"gap < {NEAR} at the"
    return [
        {
            "kind": kind_label(row["kind"]),
            "condition": row["condition"],
            f"{passes} start, %": f"{100 * row['r2_passes_start']:.0f}",
            f"{passes} end, %": f"{100 * row['r2_passes_end']:.0f}",
            f"{near} start, %": f"{100 * row['near_start']:.0f}",
            f"{near} end, %": f"{100 * row['near_end']:.0f}",
            "emerged, %": f"{100 * row['emerged']:.0f}",
        }
        for row in rows.to_dict("records")
    ]


def _layer_cells(made: Study) -> list[dict[str, str]]:
    return [
        {
            "condition": row["condition"],
            "stream": row["name"],
            "n": f"{row['n']:.0f}",
            "gap at the start": number_text(row["gap_start"], 3),
            "gap at the end": _with_sd(row, "gap_end"),
            "q": number_text(row["q"], 2),
            "moved": number_text(row["moved"], 2),
            "verdicts": row["verdicts"],
            "best families": row["families"],
        }
        for row in layers(made).to_dict("records")
    ]


def _relation_lines(made: Study) -> str:
    return "\n".join(
        f"Spearman's ρ of test accuracy and median gap of {kind_label(row['kind'])}, over "
        f"{row['runs']} runs: {number_text(row['spearman'], 2)}."
        for row in relation(made).to_dict("records")
    )


def _table(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return "none"
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_sd(row: Mapping[Any, Any], name: str, *, percent: bool = False) -> str:
    factor, digits = (100, 1) if percent else (1, 3)
    mean, deviation = (row[key] * factor for key in (name, f"{name}_sd"))
    spread = f" ± {deviation:.{digits}f}" if math.isfinite(deviation) else ""
    return f"{number_text(mean, digits)}{spread}"
