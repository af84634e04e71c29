"""Tables for people: width, order, escaping, and nothing missing without a reason."""

import pytest

from jaynes_callbacks.instruments.record import Record, Records


def rows(number: int, **columns: object) -> Records:
    return Records(
        Record(name=f"layer{index}.weight", n=10**index, **columns) for index in range(number)
    )  # type: ignore[arg-type]


def test_a_table_has_a_row_for_each_record() -> None:
    lines = repr(rows(3, gap=0.1634, verdict="approaching")).split("\n")
    assert lines[0].split() == "kind name step n gap ± se best family q R² (Gauss) verdict".split()
    assert [line.split()[1] for line in lines[1:]] == [f"layer{i}.weight" for i in range(3)]
    assert all("0.163" in line and line.endswith("approaching") for line in lines[1:])


def test_long_names_keep_both_ends_within_a_hundred_columns() -> None:
    name = "encoder.layers.0." + "attention." * 12 + "query.weight"
    record = Record(
        name=name, n=123_456_789, gap=0.2, q=-1.25, step=123_456, best_family="half_student_t",
        paper_r2=0.95, paper_r2_gaussian=0.96, verdict="present from the start",
    )  # fmt: skip
    lines = repr(Records([record])).split("\n")
    assert max(map(len, lines)) <= 100
    assert "enc" in lines[1]
    assert "ght " in lines[1]
    assert "…" in lines[1]
    assert "123M" in lines[1]


def test_many_rows_show_the_first_and_the_last() -> None:
    lines = repr(Records(Record(name=f"w{index}") for index in range(100))).split("\n")
    assert len(lines) == 62
    assert "w0" in lines[1]
    assert lines[31] == "… 40 more …"
    assert "w99" in lines[-1]


def test_reasons_of_missing_figures_stand_below_once() -> None:
    text = repr(rows(4, status="too few occupied bins") + rows(1))
    assert text.endswith("4 of 5: too few occupied bins")


def test_no_verdict_no_column() -> None:
    assert "verdict" not in repr(rows(2))


def test_empty() -> None:
    assert repr(Records()) == "no records"
    assert "<td>" not in Records()._repr_html_()


@pytest.mark.parametrize("column", ["name", "status"])
def test_html_is_escaped(column: str) -> None:
    text = Records([Record(**{column: "<script>alert(1)</script>"})])._repr_html_()  # type: ignore[arg-type]
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
