import io
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.table import CAPTION, stream_table
from jaynes_callbacks import Record, Records

NAN = float("nan")


def rows(*rows: Record) -> Records:
    return Records(rows)


def record(name: str, **values: object) -> Record:
    filled = Record(
        name=name,
        n=262144,
        gap=0.277,
        best_family="half_normal",
        log_skew=-1.875,
        paper_r2=0.974,
        paper_r2_gaussian=0.968,
        verdict="approaching",
    )
    return replace(filled, **values)


START = rows(record("fc.weight", gap=0.423), record("relu", kind="iota", gap=0.16))
END = rows(record("fc.weight"), record("relu", kind="iota", n=1_050_000, verdict="emerged"))


def shown(start: Records, end: Records, width: int = 100, **options: object) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, **options)  # type: ignore[arg-type]
    console.print(stream_table(start, end, width=width))
    return buffer.getvalue()


def line_of(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(name)).split()


def test_a_row_says_where_a_stream_came_from_and_went() -> None:
    expected = "fc.weight 262k 0.423 → 0.277 half-normal -1.88 0.97 (0.97) approaching"
    assert line_of(shown(START, END), "fc.weight") == expected.split()


def test_streams_stand_under_their_kind() -> None:
    lines = [line.split()[0] for line in shown(START, END).splitlines() if line.strip()]
    assert lines[-4:] == ["weights", "fc.weight", "activations", "relu"]


def test_a_kind_without_streams_has_no_heading() -> None:
    assert "activations" not in shown(START, END.select(kind="weight"))


def test_q_stands_where_it_was_measured() -> None:
    measured = rows(record("fc.weight", q=1.414))
    text = shown(START, measured)
    assert "skew" not in text
    assert line_of(text, "fc.weight")[6] == "1.41"


def test_what_could_not_be_measured_is_a_dash() -> None:
    empty = rows(
        record("fc.weight", n=0, gap=NAN, log_skew=NAN, paper_r2=NAN, paper_r2_gaussian=NAN)
    )
    assert line_of(shown(START, empty), "fc.weight")[1:8] == "0 0.423 → – half-normal – –".split()


def test_a_stream_without_a_start_starts_where_it_is() -> None:
    assert "0.277 → 0.277" in shown(Records(), END)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (32768, "32.8k"),
        (1_048_576, "1.05M"),
        (7 * 10**9, "7G"),
    ],
)
def test_counts_are_short(n: int, text: str) -> None:
    assert line_of(shown(START, rows(record("fc.weight", n=n))), "fc.weight")[1] == text


def test_cores_stand_beside_the_gap_where_there_is_room() -> None:
    measured = rows(record("fc.weight", core_gap=0.1612, core_gap_gaussian=0.163, scale_share=0.81))
    expected = "fc.weight 262k 0.423→0.277 0.161 (0.163) 81 % half-normal -1.88".split()
    assert line_of(shown(START, measured), "fc.weight")[: len(expected)] == expected
    assert "0.161" not in shown(START, measured, width=80)
    assert "core" not in shown(START, END)


LONG = "encoder.layers.11.self_attention.out_proj.weight"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_the_terminal_and_loses_nothing(width: int) -> None:
    many = rows(
        record("net.hidden1.weight", core_gap=0.16, core_gap_gaussian=0.163, scale_share=0.8),
        record(LONG, verdict="present from the start"),
        record("net.relu1", kind="iota", verdict="undetermined", best_family="generalized_gamma"),
    )
    text = shown(many, many, width)
    assert max(len(line) for line in text.splitlines()) <= width
    first_column = "".join(line[: len(LONG)].split(" ")[0] for line in text.splitlines())
    flat = "".join(text.split()) + first_column
    for needed in (
        "net.hidden1.weight",
        "undetermined",
        "approaching",
        "0.277→0.277",
        "(0.97)",
        LONG,
    ):
        assert needed in flat
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_usual_names_stand_on_one_line(width: int) -> None:
    end = rows(record("net.hidden1.weight", n=32768, verdict="not emerging"))
    text = shown(START, end, width)
    line = next(line for line in text.splitlines() if line.startswith("net.hidden1.weight"))
    assert line.rstrip().endswith("not emerging")


def test_colour_only_where_a_terminal_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    green = "\x1b[1;32m"
    assert green in shown(START, END, force_terminal=True, color_system="256")
    assert "\x1b" not in shown(START, END)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32m" not in shown(START, END, force_terminal=True, color_system="256")


def test_markup_in_names_is_shown_as_it_is() -> None:
    assert "[bold]weight" in shown(START, rows(record("[bold]weight")))


def test_the_caption_fits_a_terminal_of_100() -> None:
    assert max(len(line) for line in CAPTION.splitlines()) <= 100
