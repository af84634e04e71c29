import contextlib
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.schedule import Cadence, at, describe, every, log_spaced, never, schedule_of


def steps(schedule: Callable[[int], bool], until: int) -> list[int]:
    return [step for step in range(until) if schedule(step)]


def divides(interval: int, step: int) -> bool:
    return step % interval == 0


class Own:
    def __call__(self, step: int) -> bool:
        return step == 5


def test_every() -> None:
    assert steps(every(4), 10) == [0, 4, 8]


def test_never() -> None:
    assert steps(never, 10) == []


def test_at() -> None:
    assert steps(at([7, 3, 3]), 10) == [3, 7]
    assert steps(at(range(2, 5)), 10) == [2, 3, 4]


def test_log_spaced() -> None:
    assert steps(log_spaced(1), 20_000) == [1, 10, 100, 1_000, 10_000]
    assert steps(log_spaced(), 200) == [
        *(1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100, 126, 158)
    ]
    # Every power of ten, however far: a sum of logarithms would have drifted by then.
    assert all(log_spaced(7)(10**power) for power in range(40))
    assert log_spaced(100)(10**30)


@given(power=st.integers(0, 300), per_decade=st.integers(1, 60))
def test_log_spaced_steps_are_rounded_powers(power: int, per_decade: int) -> None:
    # The oracle: the p-th root of 10**k by bisection, in exact fractions.
    low, high = 1, 10 ** (power // per_decade + 1)
    while low < high:
        middle = (low + high) // 2
        if Fraction(2 * middle + 1, 2) ** per_decade > 10**power:
            high = middle
        else:
            low = middle + 1
    assert log_spaced(per_decade)(low)


@pytest.mark.parametrize("interval", [0, -1, 1.5, True, "2", None])
def test_wrong_intervals_are_named(interval: object) -> None:
    with pytest.raises(
        ValueError, match=f"every_n_steps must be a positive integer, got {interval!r}"
    ):
        every(interval, what="every_n_steps")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log_spaced(0), "per_decade must be an integer from 1 to 100, got 0"),
        (lambda: log_spaced(101), "per_decade must be .* got 101"),
        (lambda: log_spaced(2.0), "per_decade must be .* got 2.0"),  # type: ignore[arg-type]
        (lambda: at([]), "steps must be integers from 0 on, got none"),
        (lambda: at([3, -1, 2.5]), r"steps must be .* got \[-1, 2.5\]"),  # type: ignore[list-item]
        (lambda: at("12"), r"steps must be .* got \['1', '2'\]"),  # type: ignore[arg-type]
        (lambda: schedule_of("often", what="x"), "x must be a positive .*log_spaced.* got 'often'"),  # type: ignore[arg-type]
        (lambda: schedule_of(lambda: True, what="x"), "x must take one argument"),  # type: ignore[arg-type, misc]
    ],
)
def test_wrong_schedules_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [log_spaced, every, at, Own])
@pytest.mark.parametrize("what", ["every_n_steps", "every_n_epochs"])
def test_what_makes_a_schedule_is_none(make: Any, what: str) -> None:
    """Parentheses forgotten: it would answer a schedule, which is true, at every step."""
    with pytest.raises(ValueError, match=rf"{what} must be a schedule, got {make.__name__}, which"):
        EquilibriumMonitor(**{what: make}, sinks=[])
    with pytest.raises(ValueError, match=r"call it, as in log_spaced\(\)"):
        Cadence(every_n_steps=log_spaced)  # type: ignore[arg-type]


def test_a_configuration_that_names_log_spaced_without_calling_it_is_refused() -> None:
    from hydra.utils import instantiate

    target = {"_target_": "jaynes_callbacks.EquilibriumMonitor", "sinks": []}
    method = "jaynes_callbacks.schedule.log_spaced"
    named = {"_target_": "hydra.utils.get_method", "path": method}
    with pytest.raises(Exception, match="every_n_steps must be a schedule, got log_spaced"):
        instantiate({**target, "every_n_steps": named})
    called = instantiate({**target, "every_n_steps": {"_target_": method, "per_decade": 4}})
    assert "every_n_steps=log_spaced(per_decade=4)" in called.state_key


def test_an_answer_that_is_a_schedule_makes_no_step_due() -> None:
    schedule = schedule_of(lambda step: log_spaced(), what="every_n_steps")  # type: ignore[arg-type, return-value]
    with pytest.warns(UserWarning, match="every_n_steps failed at step 1: .*call that instead"):
        assert not schedule(1)


def test_what_an_argument_stands_for() -> None:
    assert schedule_of(None, what="x") is never
    assert schedule_of(3, what="x") == every(3)
    assert schedule_of(at([1]), what="x") == at([1])
    own = Own()
    assert steps(schedule_of(own, what="x"), 20) == steps(own, 20)


@pytest.mark.parametrize("schedule", [every(3), log_spaced(5), at([2, 1]), partial(divides, 2)])
def test_schedules_can_be_pickled(schedule: Callable[[int], bool]) -> None:
    again = pickle.loads(pickle.dumps(schedule))
    assert steps(again, 50) == steps(schedule, 50)
    assert describe(again) == describe(schedule)


def test_descriptions_hold_no_address() -> None:
    assert describe(every(3)) == "every(3)"
    assert describe(log_spaced(5)) == "log_spaced(per_decade=5)"
    assert describe(at([3, 1])) == "at([1, 3])"
    assert describe(None) == "None"
    assert describe(7) == "7"
    assert describe(divides) == f"{__name__}.divides"
    assert describe(partial(divides, 2)) == f"partial({__name__}.divides, 2)"
    assert describe(Own()) == f"{__name__}.Own"
    assert describe(Own().__call__) == f"{__name__}.Own.__call__"


PROGRAM = """
import functools
from jaynes_callbacks.run.monitor import Monitor
from jaynes_callbacks.schedule import log_spaced, at
def own(step): return True
for schedule in (log_spaced(3), at([4, 2]), own, functools.partial(own)):
    print(Monitor(every_n_steps=schedule, sinks=[]).state_key)
"""


def test_the_state_key_is_the_same_in_every_process() -> None:
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(PROGRAM, {"__name__": "__main__"})
    keys = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    assert here.getvalue() == keys
    assert len(set(keys.splitlines())) == 4
    assert "every_n_steps=log_spaced(per_decade=3)" in keys
    assert "0x" not in keys


def test_a_monitor_takes_schedules() -> None:
    make = EquilibriumMonitor
    keys = {make(every_n_steps=each, sinks=[]).state_key for each in (None, 3, log_spaced(), Own())}
    assert len(keys) == 4


def test_a_schedule_that_fails_amid_training_is_said_once() -> None:
    schedule = schedule_of(lambda step: 1 // (step - 3) > 0, what="every_n_steps")
    with pytest.warns(
        UserWarning, match="every_n_steps failed at step 3: ZeroDivisionError"
    ) as said:
        assert [step for step in (3, 4, 3, 5) if schedule(step)] == [4]
    assert len(said) == 1
