"""Exports read back by csv, json and pandas: every name is one cell, whatever is in it."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaynes_callbacks.records.exports import FORMATS, open_export, text_export
from jaynes_callbacks.records.frame import Frame
from tests.records.demo import DEMO, HOSTILE, LONE, SPELLED, Demo, demo, record
from tests.records.strategies import demos


def frames(rows: list[Demo]) -> list[Frame[Demo]]:
    """Rows in frames of two."""
    return [Frame.from_rows(DEMO, rows[place : place + 2]) for place in range(0, len(rows), 2)]


def text(form: str, rows: list[Demo]) -> str:
    file = io.StringIO()
    with text_export(file, form, DEMO) as export:
        for frame in frames(rows):
            export.write(frame)
    return file.getvalue()


def known(row: Demo) -> Demo:
    """The row without the keys that the schema does not name: an export's columns are fixed."""
    return row.replace(shares={key: part for key, part in row.shares.items() if key in "ab"})


@settings(max_examples=50)
@given(rows=st.lists(demos().map(known), max_size=5))
def test_csv_has_a_line_for_each_row(rows: list[Demo]) -> None:
    head, *lines = csv.reader(io.StringIO(text("csv", rows), newline=""))
    assert head == [name for name in DEMO.names if name not in ("codes", "counts")]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = dict(zip(head, line, strict=True))
        for name in ("run", "kind", "name", "note"):
            text_ = getattr(row, name)
            assert cells[name] == (f"'{text_}" if text_.startswith(tuple("=+-@\t\r'")) else text_)
        for name in ("step", "epoch", "size"):
            assert int(cells[name]) == getattr(row, name)
        assert cells["shape"] == "x".join(map(str, row.shape))
        value = float(cells["value"]) if cells["value"] else None
        assert value == (row.value if math.isfinite(row.value) else None)
        assert cells["share_a"] == (
            str(row.shares["a"]) if math.isfinite(row.shares.get("a", math.nan)) else ""
        )


@settings(max_examples=50)
@given(rows=st.lists(demos().map(known), max_size=5))
def test_json_is_a_list_of_the_rows(rows: list[Demo]) -> None:
    found: list[dict[str, Any]] = json.loads(text("json", rows))
    assert len(found) == len(rows)
    for each, row in zip(found, rows, strict=True):
        assert list(each) == list(DEMO.names)
        for name, value in each.items():
            expected = row.to_dict().get(name)
            if isinstance(expected, float) and not math.isfinite(expected):
                expected = None
            assert value == (
                list(expected) if isinstance(expected, tuple | np.ndarray) else expected
            )


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "'"])
def test_no_text_is_a_formula_of_a_spreadsheet(first: str) -> None:
    """The rule of OWASP on CSV injection; numbers below zero stay numbers."""
    name = f'{first}HYPERLINK("http://a.b")'
    row = demo(name=name, value=-0.5)
    (line,) = csv.DictReader(io.StringIO(text("csv", [row]), newline=""))
    assert (line["name"], line["value"]) == (f"'{name}", "-0.5")
    assert json.loads(text("json", [row]))[0]["name"] == name


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_json_is_whole_in_any_encoding(encoding: str) -> None:
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace")
    with text_export(file, "json", DEMO) as export:
        export.write(Frame.from_rows(DEMO, [demo(name="μ'é→")]))
    file.flush()
    assert json.loads(buffer.getvalue().decode(encoding))[0]["name"] == "μ'é→"


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    assert json.loads(text("json", [])) == []
    assert list(csv.reader([text("csv", [])])) != []
    with open_export(tmp_path / "x.parquet", "parquet", DEMO):
        pass
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 0


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", [*HOSTILE, LONE], ids=range(len(HOSTILE) + 1))
def test_any_name_in_any_file(form: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{form}"
    with open_export(path, form, DEMO) as export:
        export.write(Frame.from_rows(DEMO, [demo(name=name), demo(name="next")]))
    if form == "parquet":
        names = pd.read_parquet(path).name.tolist()
    elif form == "json":
        names = [row["name"] for row in json.loads(path.read_text("utf-8"))]
    else:
        with path.open(encoding="utf-8", newline="") as file:
            names = [row["name"] for row in csv.DictReader(file)]
    spelled = SPELLED if name == LONE and form != "json" else name
    if form == "csv" and name.startswith("="):
        spelled = f"'{name}"
    assert names == [spelled, "next"]


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_written_stands_in_the_file_even_if_the_block_ends_in_an_error(
    form: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{form}"

    def write_in_part() -> None:
        with open_export(path, form, DEMO) as export:
            export.write(record(1))
            assert not path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_in_part()
    readers: dict[str, Any] = {
        "csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet
    }  # fmt: skip
    assert readers[form](path).step.tolist() == [1, 1, 1]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="nowhere"),
        open_export(tmp_path / "nowhere" / "x.csv", "csv", DEMO),
    ):
        pass
