"""Histories of many streams, and what was drawn of them."""

import math
from collections.abc import Callable

import pytest

from jaynes_callbacks.instruments.record import Record, Records

NAN = math.nan


def course(name: str, gaps: list[float], kind: str = "weight") -> list[Record]:
    """One stream at steps 0, 10, …; its gamma's gap stays at a tenth."""
    return [
        Record(
            kind=kind,  # type: ignore[arg-type]
            name=name,
            step=10 * number,
            n=5000,
            gap=gap,
            rival_gaps={"gamma": 0.1, "half_normal": 0.3},
            best_family="" if math.isnan(gap) else "lognormal" if gap < 0.1 else "gamma",
            log_skew=-1.0 / (1 + number),
            log_kurtosis=2.0 / (1 + number),
        )
        for number, gap in enumerate(gaps)
    ]


@pytest.fixture(name="course")
def course_fixture() -> Callable[..., list[Record]]:
    """`course`, for tests: a conftest cannot be imported."""
    return course


@pytest.fixture
def history() -> Records:
    """Two weights, one of which reaches the lognormal, and an activation that never had a fit."""
    return Records(
        [
            *course("a.weight", [0.4, 0.2, 0.05]),
            *course("b.weight", [0.2, 0.2, 0.2]),
            *course("relu", [NAN] * 3, "iota"),
        ]
    )
