from collections.abc import Callable
from dataclasses import replace

import pytest

from jaynes_callbacks.instruments.record import NEAR, Record, Records
from jaynes_callbacks.report import Run
from jaynes_callbacks.report.answer import answer, kinds


def trained(invented: Callable[..., Record], *verdicts: str) -> Run:
    start = Records(invented(number, 0) for number in range(len(verdicts)))
    end = Records(invented(number, 90, verdict) for number, verdict in enumerate(verdicts))
    return Run("mine", start + end, start, end)


@pytest.mark.parametrize(
    ("verdicts", "opening"),
    [
        (("emerged", "emerged"), "Yes: 2 of 2 streams reached"),
        (("emerged", "not emerging"), "In part: 1 of 2 streams reached"),
        (("approaching", "not emerging"), "No: none of 2 streams reached"),
        (("present from the start",) * 2, "It was there from the start: none of 2"),
        (("undetermined",), "It cannot be said: none of 1"),
        (("",), "It cannot be said"),
    ],
)
def test_the_answer_opens_with_a_word(
    verdicts: tuple[str, ...], opening: str, invented: Callable[..., Record]
) -> None:
    assert answer(trained(invented, *verdicts)).startswith(opening)


def test_every_stream_is_accounted_for(invented: Callable[..., Record]) -> None:
    verdicts = ("emerged", "present from the start", "approaching", "not emerging", "undetermined")
    said = answer(trained(invented, *verdicts))
    assert said == (
        "In part: 1 of 5 streams reached arbitrage equilibrium by training, 1 were there before "
        "training, 1 came nearer without reaching it, 1 did not come nearer, 1 have too few "
        "values, or none, to say; lognormal fits best most often (5 of 5)."
    )


def test_a_single_look_has_no_verdict(run: Run) -> None:
    said = answer(Run.measured_once("once", run.end))
    near = sum(row.gap < NEAR for row in run.end)
    assert said.startswith(f"{near} of {len(run.end)} streams are within")
    assert "training" not in said


def test_nothing_recorded() -> None:
    assert answer(Run.measured_once("empty", Records())) == "Nothing was recorded."


def test_kinds_are_summed_up_apart(run: Run) -> None:
    weight, iota = kinds(run)
    assert (weight.heading, weight.number) == ("weights", 2)
    assert (iota.heading, iota.number) == ("activations", 1)
    gaps = [row.gap for row in run.end if row.kind == "weight"]
    assert weight.end == pytest.approx(sum(gaps) / 2)
    assert weight.worst == max(gaps)
    assert weight.start == pytest.approx(0.163, abs=0.02)
    assert sum(weight.verdicts.values()) == sum(number for _, number in weight.families) == 2


@pytest.mark.parametrize(
    ("outcome", "note"),
    [
        ("running", "This run goes on, or was killed, after step 90."),
        ("interrupted", "It was interrupted after step 90."),
    ],
)
def test_a_run_that_has_not_finished_says_so(
    outcome: str, note: str, invented: Callable[..., Record]
) -> None:
    whole = trained(invented, "emerged")
    torn = replace(whole, description={"outcome": outcome})
    assert answer(torn).endswith(note)
    assert answer(replace(whole, description={"outcome": "finished"})) == answer(whole)
