"""The page in a real browser: what a person would click, and what the browser complains of."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parts import PartWriter
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.report import Run, write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium or chrome")

#: What is left of a page: its own complaints, then what a script found out.
HARNESS = """
<script>
window.complaints = [];
window.onerror = (message) => complaints.push(message);
window.alert = () => complaints.push("an alert: something was not escaped");
</script>
"""
PROBE = """
<script>
(() => {{
  const $ = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const visible = () => all(".streams tbody tr[id]").filter((row) => !row.hidden);
  const shown = () => visible().map((row) => row.id.slice(3));
  const heading = (number) => all(".streams th button")[number];
  const say = (name, text) => {{
    const note = document.createElement("template-" + name);
    note.textContent = JSON.stringify(text);
    document.body.append(note);
  }};
  try {{
    say("found", (() => {{ {script} }})());
  }} catch (error) {{
    complaints.push(String(error));
  }}
  say("complaints", complaints);
}})();
</script>
"""

Probe = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class NormRow(Row):
    """A row of an instrument that exists in these tests only."""

    norm: float = column("w", "Euclidean norm", curve=True)


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Run the browser without a window on a page; what it prints."""
    profile = tmp_path_factory.mktemp("profile")
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    command = [CHROMIUM, *fixed, f"--user-data-dir={profile}", "--enable-logging=stderr"]

    def run(address: str, *options: str) -> str:
        done = subprocess.run(
            [*command, *options, address], capture_output=True, text=True, timeout=240, check=True
        )
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    try:
        run("data:text/html,hello", "--dump-dom")
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{CHROMIUM} does not run here: {error}")
    yield run
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def probe(browse: Callable[..., str], tmp_path: Path) -> Probe:
    """What a script finds out on a report, which must leave nothing to complain of."""

    def look(runs: list[Run], script: str, *options: str) -> Any:
        path = write_report(runs, tmp_path / "report.html")
        text = path.read_text()
        text = text.replace("<head>", "<head>" + HARNESS, 1)
        text = text.replace("</body>", PROBE.format(script=script) + "</body>")
        path.write_text(text)
        printed = browse(path.as_uri(), "--dump-dom", *options)
        notes = {
            name: json.loads(note.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
            for name, note in re.findall(r"<template-(\w+)>(.*?)</template-", printed)
        }
        assert notes["complaints"] == []
        return notes["found"]

    return look


@pytest.fixture
def many(
    snapshots: list[Records],
    invented: Callable[..., Record],
    with_values_of: Callable[..., Record],
) -> Run:
    """Twelve streams, with the counts of a real one."""
    counted = snapshots[0][0]
    start, end = (
        Records(
            with_values_of(
                invented(number, step, "emerged" if number < 3 else "approaching"), counted
            ).replace(gap=gap(number))
            for number in range(12)
        )
        for step, gap in ((0, lambda number: 0.2), (90, lambda number: 0.01 * (7 * number % 12)))
    )
    return Run("many", start + end, start, end)


def test_a_click_sorts_and_a_second_one_turns_it_around(many: Run, probe: Probe) -> None:
    script = "return [1, 2].map(() => { heading(2).click(); return shown(); });"
    order, turned = probe([many], script)
    gaps = [many.end[int(number)].gap for number in order]
    assert gaps == sorted(gaps)
    assert turned == order[::-1]


def test_what_is_unknown_is_sorted_last_either_way(many: Run, probe: Probe) -> None:
    rows = [*many.end[:-1], many.end[-1].replace(gap=float("nan"))]
    run = Run("torn", many.history, many.start, Records(rows))
    script = "return [1, 2].map(() => { heading(2).click(); return shown().at(-1); });"
    assert probe([run], script) == ["11", "11"]


def test_filters_by_name_kind_and_verdict(many: Run, probe: Probe) -> None:
    choose = (
        "const choose = (by, value) => { $('.by-' + by).value = value;"
        " $('.by-' + by).dispatchEvent(new Event('input', { bubbles: true })); };"
    )
    found = probe(
        [many],
        f"{choose} const found = [];"
        "choose('kind', 'weight'); found.push(shown());"
        "choose('verdict', 'emerged'); found.push(shown(), $('.shown').textContent);"
        "choose('kind', ''); choose('verdict', ''); choose('name', 'CKS.1'); found.push(shown());"
        "choose('name', ''); found.push(shown().length, $('.shown').textContent);"
        "return found;",
    )
    assert found == [
        ["1", "3", "5", "7", "9", "11"],
        ["1"],
        "1 of 12",
        ["1", "10", "11"],
        12,
        "",
    ]


@pytest.fixture
def with_norms(many: Run, tmp_path: Path) -> Run:
    """The same run with an instrument that the report does not know."""
    (folder := tmp_path / "_norms").mkdir()
    schema = Schema(NormRow, "norms", "Norms of matrices")
    writer = PartWriter(folder, "id")
    for step in (0, 90):
        rows = [
            NormRow(step=step, kind=kind, name=f"{kind}.{number}", norm=10.0 * (3 * number % 4))
            for kind in ("weight", "head")
            for number in range(4)
        ]
        writer.write(Frame.from_rows(schema, [*rows, NormRow(step=step, name="none")]))
    return replace(many, instruments={"norms": folder})


def test_the_table_of_another_instrument_is_sorted_and_filtered(
    with_norms: Run, probe: Probe
) -> None:
    script = (
        "const rows = () => all('.instrument tbody tr').filter((row) => !row.hidden)"
        ".map((row) => row.querySelector('.name').textContent);"
        "const choose = (by, value) => { const input = $('.instrument .by-' + by);"
        " input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); };"
        "const norm = all('.instrument th button').find((each) => each.textContent === 'norm');"
        "const found = [];"
        "norm.click(); found.push(rows().at(0), rows().at(-1));"
        "norm.click(); found.push(rows().at(0), rows().at(-1));"
        "choose('kind', 'head'); found.push(rows().length, $('.instrument .shown').textContent);"
        "choose('name', '.3'); found.push(rows(), visible().length);"
        "found.push($('.instrument tr:not([hidden]) polyline').getBBox().width > 100);"
        "return found;"
    )
    assert probe([with_norms], script) == [
        *("weight.0", "none", "weight.1", "none"),
        *(4, "4 of 9", ["head.3"], 12, True),
    ]


def test_a_click_on_a_name_draws_its_density_and_another_takes_it_away(
    many: Run, probe: Probe
) -> None:
    script = (
        "const open = all('.streams .open')[3]; const found = [all('svg.density').length];"
        "open.click(); found.push(all('svg.density').length);"
        "const [line, area] = [$('svg.density .lognormal[points]'), $('svg.density .area')];"
        "found.push(line.getAttribute('points').split(' ').length > 20);"
        "found.push(area.getBBox().width > 100);"
        "found.push(!line.getAttribute('points').includes('NaN'));"
        "open.click(); found.push(all('svg.density').length); return found;"
    )
    assert probe([many], script) == [0, 1, True, True, True, 0]


def test_names_stay_names(many: Run, probe: Probe) -> None:
    evil = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>"
    rows = Records(row.replace(name=evil) for row in many.end[:1])
    run = Run(evil, rows, rows, rows, {}, {"skipped": [(evil, evil)], "model": evil})
    script = "$('.open').click(); return [$('.open').textContent, all('img[src=x]').length];"
    assert probe([run], script) == [evil, 0]


def test_a_phone_reads_it_without_scrolling_sideways(many: Run, probe: Probe) -> None:
    script = (
        "const wide = all('header, section, .card, figure, img').filter("
        "(part) => part.getBoundingClientRect().right > innerWidth + 1);"
        "return [innerWidth, document.documentElement.scrollWidth, wide.length];"
    )
    long = "encoder.layers.11.self_attention.parametrizations.out_projection.weight.original0"
    rows = Records(row.replace(name=long + row.name) for row in many.end)
    # The window of a browser without one is 500 wide at the least.
    inner, scrolled, wide = probe([Run(long, rows, rows, rows)], script, "--window-size=500,900")
    assert scrolled <= inner
    assert wide == 0


def test_several_runs_are_compared_and_each_opens(many: Run, run: Run, probe: Probe) -> None:
    script = (
        "return [all('details.run').length, all('table.sortable').length, $('h1').textContent];"
    )
    assert probe([many, run], script) == [2, 3, "2 runs"]


@pytest.mark.painted
@pytest.mark.slow
def test_it_prints(many: Run, browse: Callable[..., str], tmp_path: Path) -> None:
    path = write_report([many], tmp_path / "report.html")
    browse(path.as_uri(), f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000
