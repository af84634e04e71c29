"""Write runs as one HTML file: self-contained, every name escaped, no network."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment

from jaynes_callbacks._version import __version__
from jaynes_callbacks.instruments.record import (
    BANDS,
    LEFT_OUT,
    NEAR,
    OK,
    family_label,
    plain_reasons,
)
from jaynes_callbacks.instruments.scale_row import SCHEMA as SCALES
from jaynes_callbacks.instruments.verdict import VERDICTS
from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.records.stream import kind_label
from jaynes_callbacks.records.text import counted, number_text
from jaynes_callbacks.report.answer import RULE, RULE_OF_A_MOMENT, Kind, answer, kinds
from jaynes_callbacks.report.charts import Chart, charts
from jaynes_callbacks.report.compare import compare
from jaynes_callbacks.report.densities import Density, densities
from jaynes_callbacks.report.instrument_table import (
    InstrumentTable,
    Unreadable,
    read_instruments,
)
from jaynes_callbacks.report.names import named
from jaynes_callbacks.report.runs import Run
from jaynes_callbacks.report.scale_laws import RELIABLE, PooledLaw, read_pooled_laws
from jaynes_callbacks.report.streams import extremes, headings, spark_heights, stream_rows
from jaynes_callbacks.report.table import Heading, StreamRow

__all__ = ["MOST_RUNS", "page", "write_report"]

#: Most runs whose streams are shown; of more, only the comparison is.
MOST_RUNS = 8
#: Names that are listed of the parameters that are not watched for one reason.
_SHOWN_NAMES = 8


class Section(NamedTuple):
    """What the page shows of one run.

    Attributes:
        id: of the section's elements.
        name: of the run.
        answer: in a sentence or two.
        trained: whether the run has more than one record.
        kinds: overview of each kind of streams.
        charts: figures of the whole network.
        extremes: the streams nearest to equilibrium and the farthest, each with its gap.
        headings: of the table of all streams.
        rows: of the table of all streams.
        outcomes: words of the rows' last cells, best first.
        reasons: why figures are missing, and of how many streams.
        instruments: tables of the other instruments.
        unreadable: the other instruments that cannot be shown.
        scale_laws: of the scales of rows and of columns, pooled over layers.
        coverage: reasons why parameters are not watched, and their names.
        description: names and values of versions and parameters.
        densities: by the number of the row.
    """

    id: str
    name: str
    answer: str
    trained: bool
    kinds: Sequence[Kind]
    charts: Sequence[Chart]
    extremes: Sequence[tuple[str, Sequence[tuple[StreamRow, str]]]]
    headings: Sequence[Heading]
    rows: Sequence[StreamRow]
    outcomes: Sequence[str]
    reasons: Sequence[str]
    instruments: Sequence[InstrumentTable]
    unreadable: Sequence[Unreadable]
    scale_laws: Sequence[PooledLaw]
    coverage: Sequence[tuple[str, str]]
    description: Sequence[tuple[str, str]]
    densities: Mapping[str, Density]


def write_report(runs: Sequence[Run], path: str | Path, *, refresh: int = 0) -> Path:
    """Write the report of some runs: one HTML file, whole or not at all.

    Args:
        runs: from `read_run` or `Run.measured_once`; several runs are compared as well.
        path: of the file.
        refresh: seconds after which a browser loads the page anew; 0 for never.

    Returns:
        The path.

    Raises:
        ValueError: for no runs.
        OSError: if it cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from jaynes_callbacks.instruments.record import Record, Records
        >>> run = Run.measured_once("mine", Records([Record(name="fc.weight", gap=0.2, n=640)]))
        >>> with TemporaryDirectory() as folder:
        ...     text = write_report([run], Path(folder) / "report.html").read_text()
        >>> "0 of 1 streams are within 0.02 nats of a lognormal" in text
        True
    """
    path = Path(path)
    text = page(runs, refresh=refresh)
    put(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="replace"))
    return path


def page(runs: Sequence[Run], *, refresh: int = 0) -> str:
    """Return the report as text; see `write_report`."""
    if not runs:
        raise ValueError("a report needs at least one run, got none")
    runs = named(runs)
    shown = runs if len(runs) <= MOST_RUNS else []
    trained = any(run.is_trained for run in runs)
    template = _environment().from_string(_text("page.html"))
    return template.render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        version=__version__,
        style=_text("style.css"),
        script=_text("script.js"),
        trained=trained,
        rule=RULE if trained else RULE_OF_A_MOMENT,
        note=LEFT_OUT,
        limit=NEAR,
        reliable=RELIABLE,
        near=f"{spark_heights(np.array(NEAR)):.1f}",
        comparison=compare(runs) if len(runs) > 1 else None,
        runs=len(runs),
        left_out=len(runs) > MOST_RUNS,
        sections=[
            _section(f"r{number}", run, alone=len(runs) == 1) for number, run in enumerate(shown)
        ],
        refresh=refresh,
    )


def _section(identity: str, run: Run, *, alone: bool) -> Section:
    rows = stream_rows(run)
    outcomes = {row.outcome for row in rows}
    instruments, unreadable = read_instruments(run.instruments)
    return Section(
        identity,
        run.name,
        answer(run),
        run.is_trained,
        kinds(run),
        charts(run, all_of_them=alone),
        extremes(rows),
        headings(run),
        rows,
        [name for name in (*VERDICTS, *BANDS) if name in outcomes],
        _reasons(rows),
        instruments,
        unreadable,
        _scale_laws(run, unreadable),
        _coverage(run.description),
        _facts(run),
        _densities(run, rows),
    )


def _scale_laws(run: Run, unreadable: Sequence[Unreadable]) -> list[PooledLaw]:
    """Return the pooled laws of the scales, if the run has scales that can be read."""
    broken = {each.name for each in unreadable}
    name = SCALES.instrument
    return [] if name in broken else read_pooled_laws(run.instruments.get(name))


def _densities(run: Run, rows: Sequence[StreamRow]) -> dict[str, Density]:
    """Return what is drawn of each stream that has values, by the number of its row."""
    drawn = densities(run.end, run.first)
    keys = {str(row.number): (row.kind, row.name) for row in rows}
    return {number: drawn[key] for number, key in keys.items() if key in drawn}


def _reasons(rows: Sequence[StreamRow]) -> list[str]:
    numbers = Counter(
        reason
        for row in rows
        if row.status and row.status != OK
        for reason in plain_reasons(row.status)
    )
    return [
        f"{number} of {counted(len(rows), 'stream')}: {reason}."
        for reason, number in numbers.items()
    ]


def _coverage(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in description.get("skipped", ()):
        by_reason.setdefault(reason, []).append(name)
    return [(reason, _listed(names)) for reason, names in by_reason.items()]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return names and values of what the description holds, and then of the parameters."""
    facts: dict[str, Any] = {}
    for name in ("model", "parameters", "machine", "versions", "trainer"):
        value = run.description.get(name)
        facts |= value if isinstance(value, Mapping) else {name: value} if value is not None else {}
    facts |= run.parameters
    return [(str(name), str(value)) for name, value in facts.items()]


def _environment() -> Environment:
    # Everything is escaped but the style and the script, which come from this package.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value, digits=3: number_text(value, digits)
    environment.filters["key"] = lambda value: value if math.isfinite(value) else ""
    environment.filters["kind_label"] = kind_label
    environment.filters["family_label"] = family_label
    environment.filters["slug"] = lambda text: re.sub(r"[^a-z]+", "-", text.lower())
    return environment


def _text(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
