from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.report import Run, read_run
from jaynes_callbacks.report.compare import compare
from jaynes_callbacks.report.names import last_attempts, named
from jaynes_callbacks.report.page import page

Make = Callable[..., Run]


@pytest.fixture
def make() -> Make:
    def run(place: str | None, outcome: str = "finished", stream: str = "fc", **given: Any) -> Run:
        rows = Records([Record(name=stream, step=step, gap=0.1) for step in (0, 9)])
        start, end = rows[:1], rows[1:]
        description = {"outcome": outcome, "watched": [{"kind": "weight", "name": stream}]}
        found = None if place is None else Path(place)
        return Run("version_0", rows, start, end, given, {}, description, {}, found)

    return run


def names(*runs: Run) -> list[str]:
    return [run.name for run in named(runs)]


def test_runs_of_a_sweep_are_named_by_their_conditions(make: Make) -> None:
    places = [f"/sweep/{number}/lightning_logs/version_0/jaynes" for number in range(3)]
    by_rate = [make(p, **{"opt.lr": lr}) for p, lr in zip(places, (0.1, 0.01, 3e-3), strict=True)]
    assert names(*by_rate) == ["lr=0.1", "lr=0.01", "lr=0.003"]
    repeated = [make(p, lr=lr) for p, lr in zip(places, (0.1, 0.1, 0.003), strict=True)]
    assert names(*repeated) == ["lr=0.1, 0", "lr=0.1, 1", "lr=0.003"]


def test_runs_of_which_nothing_is_known_are_named_by_their_paths(make: Make) -> None:
    places = ("/runs/lr=0.1/lightning_logs/version_0/jaynes", "/runs/lr=1/logs/version_0/jaynes")
    assert names(*map(make, places)) == ["lr=0.1", "lr=1"]
    assert names(make("/runs/a/jaynes"), make("/runs/a/jaynes-1")) == ["jaynes", "jaynes-1"]
    assert names(make(None), make(None)) == ["version_0 (1)", "version_0 (2)"]
    assert names(make(places[0])) == ["version_0"]


def test_no_two_headings_of_a_report_are_alike(make: Make) -> None:
    runs = [make(f"/sweep/lr={lr}/version_0/jaynes") for lr in (0.1, 0.003)]
    text = page(runs)
    assert ">lr=0.003</" in text.replace("\n", "")
    assert "version_0" not in text


def test_the_last_attempt_in_a_folder_counts(make: Make) -> None:
    first, second = make("/a/jaynes"), make("/a/jaynes-1")
    assert last_attempts([first, second]) == [second]
    broken = make("/a/jaynes-10", "interrupted")
    assert last_attempts([broken, first, second]) == [second]
    # Another run, another model beside it, and runs of which nothing is known are no attempts.
    others = [make("/b/jaynes"), make("/a/jaynes-2", stream="other"), make(None), make(None)]
    assert last_attempts([first, *others, second]) == [*others, second]


def test_an_earlier_attempt_is_no_repetition(make: Make) -> None:
    found = compare([make("/a/jaynes", lr=1), make("/a/jaynes-1", lr=1), make("/b/jaynes", lr=2)])
    assert [(each.values, each.runs) for each in found.conditions] == [(("1",), 1), (("2",), 1)]
    assert (found.earlier, found.unfinished) == (1, 0)


def test_a_run_is_named_by_the_telling_part_of_its_path(write_run: Callable[..., Path]) -> None:
    rows = [Records([Record(name="fc", run="version_0", step=step)]) for step in (0, 1)]
    dataset = write_run("lr=0.1/lightning_logs/version_0", rows)
    assert read_run(dataset).name == "lr=0.1/version_0"
