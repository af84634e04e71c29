import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.report import Run, write_report
from jaynes_callbacks.report.answer import RULE, answer
from jaynes_callbacks.report.page import MOST_RUNS, page

EVIL = "<script>alert(1)</script>\"'&$x</table>"


@pytest.mark.painted
def test_the_page_says_what_was_found(run: Run) -> None:
    text = page([run])
    assert answer(run) in text
    assert RULE in text
    for record in run.end:
        assert record.name in text
        assert f"{record.gap:.3f}" in text
    assert text.count("<tr id=") == len(run.end)


def test_nothing_is_fetched(run: Run) -> None:
    """Every address is in the page itself, or a namespace."""
    text = page([run])
    addresses = re.findall(r"(?:src|srcset|href)=\"([^\"]*)\"", text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.findall(r"@import|url\(|fetch\(|XMLHttp|importScripts|<link|<iframe", text)
    assert set(re.findall(r"https?://[^\"' )]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_names_are_escaped(snapshots: list[Records]) -> None:
    evil = Records(row.replace(name=EVIL + row.name, run=EVIL) for row in snapshots[0])
    run = Run(
        EVIL,
        evil.without_counts(),
        evil,
        evil,
        {EVIL: EVIL},
        {"skipped": [(EVIL, EVIL)], "versions": {EVIL: EVIL}, "model": EVIL},
    )
    for text in (page([run]), page([run, run])):
        assert "alert(1)" in text
        assert "<script>alert" not in text
        assert '</table>"' not in text
        assert text.count("<script") == text.count("</script>")


def test_of_many_runs_only_the_comparison_is_shown(run: Run) -> None:
    few, many = page([run] * 2), page([run] * (MOST_RUNS + 1))
    assert few.count('class="sortable streams"') == 2
    assert many.count('class="sortable streams"') == 0
    assert "Only this comparison" in many


def test_a_run_that_goes_on_is_loaded_anew(run: Run) -> None:
    assert 'http-equiv="refresh" content="5"' in page([run], refresh=5)
    assert "refresh" not in page([run]).split("</head>")[0]


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        page([])


@pytest.mark.parametrize("records", [Records(), Records([Record(name="a", status="empty")])])
def test_a_run_without_figures_has_a_page(records: Records) -> None:
    assert "<h1>bare</h1>" in page([Run.measured_once("bare", records)])


@pytest.mark.painted
@pytest.mark.slow
def test_two_hundred_layers_and_fifty_epochs_stay_below_5_mb(
    snapshots: list[Records],
    invented: Callable[..., Record],
    with_values_of: Callable[..., Record],
    tmp_path: Path,
) -> None:
    counted = snapshots[0][0]
    ends = [
        Records(with_values_of(invented(number, step), counted) for number in range(200))
        for step in (0, 490)
    ]
    history = Records(invented(number, 10 * epoch) for epoch in range(50) for number in range(200))
    path = write_report([Run("large", history, *ends)], tmp_path / "report.html")
    assert path.stat().st_size < 5e6


def test_a_report_is_whole_or_not_at_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report([run], tmp_path / "report.html")
    before = path.read_text()

    def torn(self: Path, *arguments: object, **options: object) -> int:
        self.write_bytes(b"<html")
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(OSError, match="disk is full"):
        write_report([run, run], path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.glob("*.html*")] == ["report.html"]
