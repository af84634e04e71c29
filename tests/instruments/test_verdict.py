import math

import pytest

from jaynes_callbacks.instruments.record import Record, band
from jaynes_callbacks.instruments.verdict import FEWEST_VALUES, rival_gaps, verdict

START = Record(n=50_000, gap=0.163, gap_se=0.001)


def _end(gap: float, se: float = 0.001, **rivals: float) -> Record:
    return Record(n=50_000, gap=gap, gap_se=se, rival_gaps=rivals)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (START, _end(0.01, exponential=0.05), "emerged"),
        (START, _end(0.01, exponential=0.005), "approaching"),
        (START, _end(0.02, exponential=0.05), "approaching"),
        (START, _end(0.01, generalized_gamma=0.001, exponential=0.05), "emerged"),
        (START, _end(0.01, exponential=math.nan), "emerged"),
        (START, _end(0.162), "not emerging"),
        (START, _end(0.15, se=0.01), "not emerging"),
        (START, _end(0.30), "not emerging"),
        (START.replace(gap=0.019), _end(0.001), "present from the start"),
        (START.replace(gap=0.019), _end(0.2), "present from the start"),
        (START, _end(math.nan), "undetermined"),
        (START.replace(gap=math.nan), _end(0.01), "undetermined"),
        (START.replace(n=FEWEST_VALUES - 1), _end(0.01), "undetermined"),
        (START, _end(0.01).replace(n=FEWEST_VALUES - 1), "undetermined"),
        (START.replace(n=FEWEST_VALUES), _end(0.01), "emerged"),
    ],
)
def test_the_rule(start: Record, end: Record, expected: str) -> None:
    assert verdict(start, end) == expected


def test_a_family_that_contains_the_lognormal_is_no_rival() -> None:
    end = _end(0.1, generalized_gamma=0.0, weibull=0.2, uniform=math.nan)
    assert rival_gaps(end) == {"weibull": 0.2}


@pytest.mark.parametrize(
    ("gap", "name"),
    [
        (-0.0001, "lognormal-like"),
        (0.003, "near"),
        (0.02, "far"),
        (0.08, "no"),
        (math.nan, "undetermined"),
    ],
)
def test_bands(gap: float, name: str) -> None:
    assert band(gap) == name
