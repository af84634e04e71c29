import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks import analyse
from jaynes_callbacks.counts.grid import FIRST_NONFINITE
from jaynes_callbacks.instruments.record import Record, band, is_by_scale
from jaynes_callbacks.instruments.verdict import (
    FEWEST_VALUES,
    in_words,
    is_cut_off,
    is_on_grid,
    rival_gaps,
    verdict,
    verdict_2,
)
from jaynes_callbacks.statistics import FAMILIES, LOGNORMAL, RIVALS, RIVALS_2, Family

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


# Version 2 --------------------------------------------------------------------------------


def _end_2(gap: float, se: float = 0.001, **rivals: float) -> Record:
    """A record of which no figure is missing."""
    known = {family.name: 0.3 for family in FAMILIES if family is not LOGNORMAL}
    return _end(gap, se).replace(rival_gaps={**known, **rivals})


@pytest.mark.parametrize(
    ("start", "end", "before", "expected"),
    [
        (START, _end_2(0.01), (), "emerged"),
        (START, _end_2(0.01, exponential=0.005), (), "approaching"),
        (START, _end_2(0.01, generalized_gamma=0.001), (), "emerged"),
        (START, _end_2(0.02), (), "approaching"),
        (START, _end_2(0.162), (), "not emerging"),
        (START.replace(gap=0.019), _end_2(0.001), (), "present from the start"),
        # A missing figure is no evidence.
        (START, _end_2(0.01, exponential=math.nan), (), "undetermined"),
        (START, _end(0.01), (), "undetermined"),
        (START, _end_2(0.01, se=math.nan), (), "undetermined"),
        (START.replace(gap_se=math.nan), _end_2(0.01), (), "undetermined"),
        (START, _end_2(math.nan), (0.01, 0.01), "undetermined"),
        (START.replace(n=FEWEST_VALUES - 1), _end_2(0.01), (), "undetermined"),
        (START, _end_2(0.01).replace(n=FEWEST_VALUES - 1), (), "undetermined"),
        # The median of the last three.
        (START, _end_2(0.01), (0.03, 0.04), "approaching"),
        (START, _end_2(0.04), (0.01, 0.012), "emerged"),
        (START, _end_2(0.01), (0.01, 0.04, 0.04), "approaching"),
        (START, _end_2(0.01), (0.04, 0.01, 0.04), "emerged"),
        (START, _end_2(0.01), (0.012, math.nan), "emerged"),
        (START, _end_2(0.01), (math.nan, 0.012), "emerged"),
        (START, _end_2(0.01), (math.nan, math.nan), "emerged"),
        # A fall of less than 0.003 is none, however small its error.
        (START, _end_2(0.1605, se=1e-6), (), "not emerging"),
        (START.replace(gap_se=1e-6), _end_2(0.1605, se=1e-6), (), "not emerging"),
        (START.replace(gap_se=1e-6), _end_2(0.1595, se=1e-6), (), "approaching"),
        # The error of the change itself, where it is known.
        (START, _end_2(0.1595).replace(gap_change_se=0.0005), (), "approaching"),
        (START, _end_2(0.15).replace(gap_change_se=0.01), (), "not emerging"),
    ],
)
def test_the_rule_of_version_2(
    start: Record, end: Record, before: Sequence[float], expected: str
) -> None:
    assert verdict_2(start, end, before) == expected


@pytest.mark.parametrize("family", RIVALS_2, ids=lambda family: family.name)
def test_any_rival_may_keep_version_2_from_emerged(family: Family) -> None:
    end = _end_2(0.01, **{family.name: 0.005})
    assert verdict_2(START, end) == "approaching"
    # Version 1 knows only its own.
    assert verdict(START, end) == ("approaching" if family in RIVALS else "emerged")
    assert rival_gaps(end, RIVALS_2)[family.name] == 0.005


# Values of which no smooth law is true -----------------------------------------------------


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def _pruned(values: Tensor, share: float, *, at_random: bool) -> Tensor:
    sizes = torch.rand_like(values) if at_random else values.abs()
    return values * (sizes > sizes.quantile(share))


def _quantised(bits: int, *, by_row: bool = False) -> Tensor:
    values, levels = _normal(256, 256), 2 ** (bits - 1) - 1
    largest = values.abs().amax(1, keepdim=True) if by_row else values.abs().max()
    return (values / largest * levels).round() / levels * largest


SMOOTH: dict[str, Callable[[], Tensor]] = {
    "Gaussian": lambda: _normal(256, 256),
    "few Gaussian": lambda: _normal(40, 50),
    "bfloat16": lambda: _normal(256, 256).bfloat16(),
    "float16": lambda: _normal(256, 256).half(),
    "uniform": lambda: torch.rand(256, 256) - 0.5,
    "lognormal": lambda: (2 * _normal(256, 256)).exp(),
    "narrow": lambda: 1 + 0.05 * _normal(256, 256),
    "pruned at random": lambda: _pruned(_normal(256, 256), 0.6, at_random=True),
    "pruned nearly all": lambda: _pruned(_normal(256, 256), 0.95, at_random=True),
    "uniform, pruned at random": lambda: _pruned(torch.rand(256, 256), 0.5, at_random=True),
    "with infinities": lambda: _normal(256, 256).masked_fill(_normal(256, 256) > 1.5, math.inf),
}
ON_GRID: dict[str, Callable[[], Tensor]] = {
    "int8": lambda: _quantised(8),
    "int4": lambda: _quantised(4),
    "int8, half pruned": lambda: _pruned(_quantised(8), 0.5, at_random=True),
    "signs": lambda: _normal(256, 256).sign(),
    "float8": lambda: _normal(256, 256).to(torch.float8_e4m3fn),
}
CUT_OFF: dict[str, Callable[[], Tensor]] = {
    "half": lambda: _pruned(_normal(256, 256), 0.5, at_random=False),
    "nine in ten": lambda: _pruned(_normal(256, 256), 0.9, at_random=False),
    "Laplace": lambda: _pruned(-torch.rand(256, 256).log(), 0.3, at_random=False),
    "lognormal": lambda: _pruned(_normal(256, 256).exp(), 0.8, at_random=False),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def _record(values: Tensor) -> Record:
    (record,) = analyse(values.float())
    return record


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.sampled(3)
def test_of_a_smooth_law_no_values_lie_on_a_grid_nor_are_cut_off(name: str) -> None:
    record = _record(SMOOTH[name]())
    assert not is_on_grid(record)
    assert not is_cut_off(record)


@pytest.mark.parametrize("name", ON_GRID)
@pytest.mark.sampled(2)
def test_values_on_a_coarse_grid(name: str) -> None:
    record = _record(ON_GRID[name]())
    assert is_on_grid(record)
    assert verdict_2(START, _of_values(record)) == "undetermined"
    assert verdict_2(START, _of_values(_record(_normal(256, 256)))) == "emerged"


@pytest.mark.parametrize("name", CUT_OFF)
@pytest.mark.sampled(2)
def test_values_that_are_cut_off(name: str) -> None:
    record = _record(CUT_OFF[name]())
    assert is_cut_off(record)
    assert verdict_2(START, _of_values(record)) == "undetermined"


def _of_values(record: Record) -> Record:
    """A record that would have emerged but for its counts."""
    return _end_2(0.01).replace(
        n=record.n, zeros=record.zeros, codes=record.codes, counts=record.counts
    )


def test_of_no_counts_nothing_is_said(bare: Record) -> None:
    assert not is_on_grid(bare)
    assert not is_cut_off(bare)
    only_zeros = bare.replace(zeros=5000, codes=np.array([0]), counts=np.array([5000]))
    assert not is_on_grid(only_zeros)
    assert not is_cut_off(only_zeros)
    infinite = bare.replace(codes=np.array([FIRST_NONFINITE]), counts=np.array([5000]))
    assert not is_on_grid(infinite)


# In words -----------------------------------------------------------------------------------

#: What a rescaled Gaussian layer has.
SCALED: dict[str, Any] = {
    "verdict": "emerged",
    "gap": 0.0023,
    "best_family": "lognormal",
    "scale_share": 0.78,
    "core_gap": 0.161,
    "core_gap_gaussian": 0.162,
    "core_gap_se": 0.001,
    "core_best_family": "half_student_t",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"verdict": "approaching"}, True),
        ({"verdict": "present from the start"}, True),
        ({"verdict": "not emerging"}, False),
        ({"verdict": "undetermined"}, False),
        ({"verdict": ""}, False),
        ({"core_gap": 0.019}, False),
        ({"core_gap": 0.02}, True),
        ({"core_gap": math.nan}, False),
        ({"scale_share": 0.19}, False),
        ({"scale_share": math.nan}, False),
    ],
)
def test_when_a_verdict_is_by_scale(changes: dict[str, Any], expected: bool) -> None:
    assert is_by_scale(Record(**{**SCALED, **changes})) == expected


SAID = "78 % of the spread of ln|w| is rows and columns; the core is"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, f"emerged by scale: {SAID} Gaussian (0.161, Gaussian 0.162)"),
        (
            {"gap_closed": 0.986},
            f"emerged by scale: {SAID} Gaussian (0.161, Gaussian 0.162); 99 % of the gap closed",
        ),
        (
            {"core_gap": 0.1},
            f"emerged by scale: {SAID} Student t (0.100, Gaussian 0.162)",
        ),
        (
            {"core_gap": 0.12, "core_gap_se": 0.03},
            f"emerged by scale: {SAID} Gaussian (0.120, Gaussian 0.162)",
        ),
        (
            {"core_gap": 0.01, "core_best_family": "lognormal"},
            f"emerged: {SAID} lognormal (0.010, Gaussian 0.162)",
        ),
        (
            {"core_gap": 0.01, "core_best_family": "", "core_gap_se": math.nan},
            f"emerged: {SAID} of no known law (0.010, Gaussian 0.162)",
        ),
        ({"core_gap": math.nan}, "emerged"),
        (
            {
                "verdict": "approaching",
                "best_family": "half_student_t",
                "rival_gaps": {"half_student_t": 0.001},
                "fits": {"half_student_t_dof": 5.2},
                "gap_closed": 0.5,
                "scale_share": 0.1,
                "core_gap": math.nan,
            },
            "approaching: nearest law Student t, ν 5.2 (0.001); 50 % of the gap closed",
        ),
        (
            {"verdict": "not emerging", "gap_closed": 0.5, "core_gap": math.nan},
            "not emerging",
        ),
        (
            {"core_gap": math.nan, "gap": 0.1, "gap_censored": 0.019},
            "emerged: lognormal but for the smallest 5 %",
        ),
        ({"core_gap": math.nan, "gap": 0.1, "gap_censored": 0.021}, "emerged"),
        ({"core_gap": math.nan, "gap": 0.002, "gap_censored": 0.0}, "emerged"),
        ({"core_gap": math.nan, "start_step": 500}, "emerged: since step 500"),
        ({"verdict": ""}, ""),
    ],
)
def test_in_words(changes: dict[str, Any], expected: str) -> None:
    assert in_words(Record(**{**SCALED, **changes})) == expected
