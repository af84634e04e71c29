import math
from collections.abc import Callable

import numpy as np
import pytest

from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.report import Run, streams
from jaynes_callbacks.report.streams import headings, spark_heights, stream_rows


def spark(run: Run) -> str:
    """Points of the first stream's sparkline."""
    place = [heading.text for heading in headings(run)].index("over training")
    return stream_rows(run)[0].cells[place].spark


def test_a_row_says_what_the_record_says(run: Run) -> None:
    row = stream_rows(run)[0]
    record, start = run.end[0], run.start[0]
    assert len(row.cells) == len(headings(run))
    assert row.cells[0].text == record.name
    assert row.cells[2].text == f"{start.gap:.3f} → {record.gap:.3f}"
    assert row.cells[2].key == record.gap
    assert row.cells[-1].text == row.outcome == record.verdict


def test_the_sparkline_is_the_gap_over_the_steps(run: Run) -> None:
    points = [tuple(map(float, pair.split(","))) for pair in spark(run).split()]
    gaps = run.history.select(name=run.end[0].name)["gap"]
    assert [x for x, _ in points] == [0, 55, 110]
    assert [y for _, y in points] == pytest.approx(spark_heights(gaps), abs=0.06)


def test_a_long_history_is_thinned_and_ends_at_the_end(invented: Callable[..., Record]) -> None:
    rows = Records(invented(1, step).replace(gap=0.4 - step / 2800) for step in range(1000))
    run = Run("long", rows, rows[:1], rows[-1:])
    points = spark(run).split()
    assert 30 <= len(points) <= 60
    assert points[-1] == f"110,{spark_heights(rows['gap'])[-1]:.1f}"


@pytest.mark.parametrize(("gap", "height"), [(0.5, 0), (9, 0), (0.005, 24), (0, 24), (0.05, 12)])
def test_heights_stay_in_the_box(gap: float, height: float) -> None:
    assert spark_heights(np.array([gap])) == pytest.approx([height])


def test_what_is_not_known_is_a_dash_and_sorted_last(bare: Record) -> None:
    (row,) = stream_rows(Run.measured_once("bare", Records([bare])))
    assert row.cells[2].text == "–"
    assert row.cells[2].key == ""
    assert row.cells[3].text == "–"
    assert not any(cell.spark for cell in row.cells)


def test_a_gap_that_is_unknown_in_between_is_left_out(invented: Callable[..., Record]) -> None:
    rows = Records(
        invented(1, step).replace(gap=math.nan if step == 1 else 0.05) for step in range(4)
    )
    run = Run("torn", rows, rows[:1], rows[-1:])
    assert len(spark(run).split()) == 3


def test_a_column_that_tables_show_stands_before_the_verdict(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_FURTHER", (SCHEMA.by_name["log_std"],))
    for shown in (run, Run.measured_once("once", run.end)):
        *_, further, _verdict = headings(shown)
        assert further.text == SCHEMA.by_name["log_std"].heading
    for row, record in zip(stream_rows(run), run.end, strict=True):
        assert len(row.cells) == len(headings(run))
        assert row.cells[-2].text == f"{record.log_std:.3f}"
        assert row.cells[-2].key == record.log_std


@pytest.mark.parametrize("known", [True, False])
def test_cores_have_columns_where_they_were_measured(
    known: bool, invented: Callable[..., Record]
) -> None:
    record = invented(1, 0).replace(core_gap=0.16 if known else math.nan)
    run = Run.measured_once("once", Records([record]))
    (row,) = stream_rows(run)
    titles = [each.text for each in headings(run)]
    assert ("core (Gauss)" in titles, "scales" in titles) == (known, known)
    assert len(row.cells) == len(titles)
    if known:
        assert row.cells[titles.index("core (Gauss)")].text == "0.160"
