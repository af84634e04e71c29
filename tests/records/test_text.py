"""Tables for people: width, order, escaping, and nothing missing without a reason."""

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.records.text import shortened_names


def rows(number: int, **columns: object) -> Records:
    return Records(
        Record(name=f"layer{index}.weight", n=10**index, **columns) for index in range(number)
    )  # type: ignore[arg-type]


def test_a_table_has_a_row_for_each_record() -> None:
    lines = repr(rows(3, gap=0.1634, verdict="approaching")).split("\n")
    assert lines[0].split() == "kind name step n gap core (Gauss) best law verdict".split()
    assert [line.split()[1] for line in lines[1:]] == [f"layer{i}.weight" for i in range(3)]
    assert all("0.163" in line and line.endswith("approaching") for line in lines[1:])


def test_long_names_keep_both_ends_within_a_hundred_columns() -> None:
    name = "encoder.layers.0." + "attention." * 12 + "query.weight"
    record = Record(
        name=name, n=123_456_789, gap=0.2, q=-1.25, step=123_456, best_family="half_student_t",
        core_gap=0.161, core_gap_gaussian=0.163, scale_share=0.8, verdict="present from the start",
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
    plain = "too few different values for any fit; leave small layers out (min_size)"
    assert text.endswith(f"4 of 5: {plain}")


def test_reasons_are_in_plain_words() -> None:
    text = repr(rows(1, status="gamma: skewness of ln w outside (-2, 2); paper protocol: odd"))
    assert "1 of 1: no gamma: ln w is too lopsided for it; go by the other laws" in text
    assert "1 of 1: paper protocol: odd" in text


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


BERT = [
    f"bert.encoder.layer.{layer}.{part}.weight"
    for layer in range(12)
    for part in (
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    )
]  # fmt: skip


@pytest.mark.parametrize("room", [16, 22, 30, 45])
def test_shortened_names_are_all_different(room: int) -> None:
    short = shortened_names(BERT, room)
    assert len(set(short)) == len(BERT)
    assert max(map(len, short)) <= room
    # What tells layers apart is read off: the number and the last parts.
    assert all(f".{number // 6}." in name for number, name in enumerate(short))


def test_names_that_cannot_be_told_apart_are_numbered() -> None:
    names = [f"{'a' * 40}{letter}{'b' * 40}" for letter in "xyz"]
    short = shortened_names(names, 12)
    assert len(set(short)) == 3
    assert max(map(len, short)) <= 12
    assert shortened_names(["short", "names"], 12) == ["short", "names"]


def test_a_table_of_a_transformer_has_no_two_rows_alike() -> None:
    lines = repr(Records([Record(name=name, n=589824, gap=0.163) for name in BERT[:40]])).split(
        "\n"
    )
    assert max(map(len, lines)) <= 100
    assert len(set(lines)) == 41
