"""The tables of instruments that the report has never heard of."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parts import PartWriter, read_parts
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.report import read_run
from jaynes_callbacks.report.answer import answer
from jaynes_callbacks.report.instrument_table import InstrumentTable, read_instruments
from jaynes_callbacks.report.page import page

EVIL = "<script>alert(1)</script>\"'&$x</table>{{ 7 * 7 }}"


@dataclass(frozen=True, eq=False)
class NormRow(Row):
    """Norms of a matrix."""

    norm: float = column("w", "Euclidean norm", label="‖W‖", digits=1, curve=True)
    ratio: float = column("1", "a curve that no table shows", curve=True, shown=False)
    rank: int = column("rows", "numerical rank", 0, shown=True)
    shape: tuple[int, ...] = column("", "of the matrix", (), shown=True)
    judged: str = column("", "a text that nobody wrote", "", shown=True)
    remark: str = column("", "a text", "", shown=True)
    hidden: float = column("1", "a figure that is not shown")


SCHEMA = Schema(NormRow, "norms", "Norms of matrices")


def rows(step: int, *names: str, **changes: Any) -> list[NormRow]:
    kinds = ("weight", "head")
    return [
        NormRow(
            run="mine",
            step=step,
            kind=kinds[number % 2],
            name=name,
            norm=100.0 / (step + number + 1),
            rank=number + 5,
            shape=(number + 5, 7),
            remark="as it should be",
            hidden=12345.678,
        ).replace(**changes)
        for number, name in enumerate(names)
    ]


def write(dataset: Path, *snapshots: list[NormRow], schema: Schema[NormRow] = SCHEMA) -> Path:
    folder = dataset / f"_{schema.instrument}"
    folder.mkdir()
    writer = PartWriter(folder, "id")
    for snapshot in snapshots:
        writer.write(Frame.from_rows(schema, snapshot))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> InstrumentTable:
    """Three streams at three steps; the last stream is there from the second on."""
    folder = write(
        tmp_path, rows(0, "a", "b"), rows(4, "a", "b", "late"), rows(9, "a", "b", "late")
    )
    ((found,), failures) = read_instruments({"norms": folder})
    assert not failures
    return found


def test_it_has_the_columns_that_the_schema_shows(table: InstrumentTable) -> None:
    assert table.title == "Norms of matrices"
    assert (table.records, table.steps, table.kinds) == (3, (0, 9), ["weight", "head"])
    headings = [(heading.text, heading.meaning) for heading in table.headings]
    # Kind and name are the first cell; a column of texts in which nothing stands is left out.
    assert headings == [
        ("stream", "the stream"),
        ("step", "when, in optimizer steps"),
        ("‖W‖", "Euclidean norm, in w"),
        ("rank", "numerical rank, in rows"),
        ("shape", "of the matrix"),
        ("remark", "a text"),
    ]
    assert all(len(row.cells) == len(headings) for row in table.rows)


def test_a_row_is_the_last_record_and_a_curve_starts_at_the_first(table: InstrumentTable) -> None:
    first, _, late = table.rows
    assert [cell.text for cell in first.cells] == [
        "a", "9", "100.0 → 10.0", "5", "(5, 7)", "as it should be",
    ]  # fmt: skip
    assert [cell.key for cell in first.cells] == [
        0, 9, pytest.approx(10.0), 5, "(5, 7)", "as it should be",
    ]  # fmt: skip
    assert late.cells[2].text == "14.3 → 8.3"


def test_a_curve_has_a_sparkline_over_the_steps(table: InstrumentTable) -> None:
    points = [tuple(map(float, pair.split(","))) for pair in table.rows[0].cells[2].spark.split()]
    assert [x for x, _ in points] == [0, 49, 110]
    # From the greatest value, at the top, to the least: 100, 20, 10.
    assert [y for _, y in points] == pytest.approx([0, 24 * 80 / 90, 24], abs=0.06)
    assert [bool(cell.spark) for cell in table.rows[0].cells] == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("norms", "spark", "text"),
    [
        ([1.0, math.nan, 1.0], "0,12.0 110,12.0", "1.0 → 1.0"),
        ([1e308, 0.0, -1e308], "0,0.0 49,12.0 110,24.0", None),
        ([math.nan] * 3, "", "–"),
        ([math.nan, 2.0, math.nan], "", "– → –"),
    ],
)
def test_values_of_any_size_or_none(
    norms: list[float], spark: str, text: str | None, tmp_path: Path
) -> None:
    steps = (0, 4, 9)
    written = [rows(step, "a", norm=norm) for step, norm in zip(steps, norms, strict=True)]
    ((found,), _) = read_instruments({"norms": write(tmp_path, *written)})
    cell = found.rows[0].cells[2]
    assert cell.spark == spark
    assert text is None or cell.text == text
    assert cell.key == (norms[-1] if math.isfinite(norms[-1]) else "")


def test_a_family_has_its_label(tmp_path: Path) -> None:
    written = rows(0, "a", remark="half_student_t")
    ((found,), _) = read_instruments({"norms": write(tmp_path, written)})
    assert found.rows[0].cells[-1] == ("Student t", "Student t", False, "")


def test_one_record_has_no_course(tmp_path: Path) -> None:
    ((found,), _) = read_instruments({"norms": write(tmp_path, rows(3, "a"))})
    assert (found.rows[0].cells[2].text, found.rows[0].cells[2].spark) == ("25.0", "")


def test_without_a_title_it_has_the_instruments_name(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(0, "a"), schema=Schema(NormRow, "norms"))
    assert read_instruments({"norms": folder})[0][0].title == "norms"


# On the page --------------------------------------------------------------------------------


@pytest.fixture
def dataset(write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with the main instrument's records, whose figures are left out of its page."""
    monkeypatch.setattr("jaynes_callbacks.report.page.charts", lambda run, all_of_them: [])
    return write_run("mine")


def test_the_page_has_a_section(dataset: Path) -> None:
    bare = page([read_run(dataset)])
    write(dataset, rows(0, "a", "b"), rows(9, "a", "b"))
    text = page([read_run(dataset)])
    assert "<h2>Norms of matrices</h2>" in text
    assert "2 streams, 2 records from step 0 to 9." in text
    assert '<th title="Euclidean norm, in w"><button>‖W‖</button></th>' in text
    assert "100.0 → 10.0" in text
    assert '<option value="head">heads</option>' in text
    assert text.count(">12345") == 0
    # A row and a curve each, in a table that is sorted and filtered as the main one.
    assert text.count("<tr data-kind=") - bare.count("<tr data-kind=") == 2
    assert text.count("<polyline") - bare.count("<polyline") == 2
    assert text.count('class="sortable') - bare.count('class="sortable') == 1
    assert text.count("<tr id=") == bare.count("<tr id=")


def test_hostile_names_are_escaped(dataset: Path) -> None:
    schema = Schema(NormRow, "norms", EVIL)
    folder = write(dataset, rows(0, EVIL, kind=EVIL, remark=EVIL), schema=schema)
    (part,) = folder.iterdir()
    found = pq.read_table(part)
    notes = {key: EVIL.encode() for key in (b"label", b"meaning", b"unit")}
    fields = [each.with_metadata({**each.metadata, **notes}) for each in found.schema]
    pq.write_table(found.cast(pa.schema(fields, found.schema.metadata)), part)
    text = page([read_run(dataset)])
    assert text.count("alert(1)") > 10
    # Counted: pytest explains a text that is found in a page of a megabyte for hours.
    assert text.count("<script>alert") == text.count('</table>"') == 0
    assert "49" not in re.findall(r"<h2>(.*?)</h2>", text)
    assert text.count("<script") == text.count("</script>")
    assert text.count("</table>") == text.count("<table")


def damage(part: Path, **about: str) -> None:
    """Say something else about a part's column of norms."""
    found = pq.read_table(part)
    notes = {key.encode(): value.encode() for key, value in about.items()}
    fields = [
        each.with_metadata({**each.metadata, **notes}) if each.name == "norm" else each
        for each in found.schema
    ]
    pq.write_table(found.cast(pa.schema(fields, found.schema.metadata)), part)


def replace_column(part: Path, name: str, values: pa.Array) -> None:
    found = pq.read_table(part)
    pq.write_table(found.set_column(found.schema.get_field_index(name), name, values), part)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no Parquet": lambda part: part.write_bytes(b"no"),
    "torn": lambda part: part.write_bytes(part.read_bytes()[:-100]),
    "torn within": lambda part: part.write_bytes(b"PAR1" + bytes(900) + part.read_bytes()[904:]),
    "no columns": lambda part: pq.write_table(pa.table({"a": [1]}), part),
    "digits": lambda part: damage(part, digits="many"),
    "steps are words": lambda part: replace_column(part, "step", pa.array(["one"])),
    "no value is known": lambda part: replace_column(part, "norm", pa.array([None], pa.null())),
    "description": lambda part: pq.write_table(
        pq.read_table(part).replace_schema_metadata({"jaynes_callbacks.instrument": "{"}), part
    ),
    "description is a list": lambda part: pq.write_table(
        pq.read_table(part).replace_schema_metadata(
            {"jaynes_callbacks.instrument": json.dumps(["norms"])}
        ),
        part,
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_instrument_is_a_sentence(how: str, dataset: Path) -> None:
    folder = write(dataset, rows(0, "a"))
    DAMAGES[how](next(folder.iterdir()))
    run = read_run(dataset)
    text = page([run])
    assert re.search(r"The records of norms cannot be shown: \S", text)
    assert answer(run) in text
    assert text.count("<tr id=") == len(run.end)
    assert text.count("<h2>Norms of matrices</h2>") == 0


@pytest.mark.parametrize(("digits", "text"), [("-1", "100"), ("99", "100." + 17 * "0")])
def test_decimals_are_within_what_can_be_read(digits: str, text: str, tmp_path: Path) -> None:
    folder = write(tmp_path, rows(0, "a"))
    damage(next(folder.iterdir()), digits=digits)
    ((table,), failures) = read_instruments({"norms": folder})
    assert not failures
    assert table.rows[0].cells[2].text == text


def test_parts_of_different_columns_are_one_table(dataset: Path) -> None:
    """A run that was resumed by a later version of an instrument has columns that came later."""
    folder = write(dataset, rows(0, "a"), rows(4, "a"))
    first, _ = sorted(folder.iterdir())
    pq.write_table(pq.read_table(first).drop_columns(["rank"]), first)
    # Where a part has no such column, its rows have the column's default.
    assert read_parts(folder)["rank"].tolist() == [0, 5]
    ((table,), _) = read_instruments({"norms": folder})
    assert [row.name for row in table.rows] == ["a"]
    assert "rank" in [heading.text for heading in table.headings]


def test_a_run_without_magnitudes_has_a_page(tmp_path: Path) -> None:
    (dataset := tmp_path / "mine" / "jaynes").mkdir(parents=True)
    write(dataset, rows(0, "a"), rows(4, "a"))
    text = page([read_run(dataset)])
    assert "No magnitudes were recorded." in text
    assert "<h2>Norms of matrices</h2>" in text


def test_of_many_runs_no_instrument_is_read(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(dataset)
    write(dataset, rows(0, "a"))
    monkeypatch.setattr("jaynes_callbacks.report.page.MOST_RUNS", 1)
    monkeypatch.setattr(
        "jaynes_callbacks.report.page.read_instruments", lambda folders: pytest.fail("was read")
    )
    assert "Only this comparison" in page([run, run])


def test_a_thousand_streams_are_thinned(tmp_path: Path) -> None:
    folder = tmp_path / "_norms"
    folder.mkdir()
    steps, streams = np.arange(100).repeat(1000), [f"layers.{i}" for i in range(1000)] * 100
    columns = {
        "step": steps,
        "kind": np.array(["weight"] * 100_000, dtype=object),
        "name": np.array(streams, dtype=object),
        "run": np.array([""] * 100_000, dtype=object),
        "epoch": steps,
        "norm": np.sqrt(steps + 1.0),
    }
    PartWriter(folder, "id").write(Frame(SCHEMA, columns))
    ((table,), _) = read_instruments({"norms": folder})
    assert (len(table.rows), table.records) == (1000, 100)
    assert all(len(row.cells[2].spark.split()) == 50 for row in table.rows)
