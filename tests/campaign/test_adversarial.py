"""Counts nobody hopes to see: no exception, no warning, and no nan without a reason."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE
from jaynes_callbacks.instruments.distribution import Tallied, summarise
from jaynes_callbacks.instruments.record import SCHEMA, Record
from jaynes_callbacks.instruments.scale_row import LENT
from jaynes_callbacks.instruments.tally import Tally, tally_of_counts
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.statistics import (
    FAMILIES,
    Status,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
)

LAST = FIRST_NONFINITE - 1
ROWS: dict[str, dict[int, int]] = {
    "empty": {},
    "all zero": {0: 10**6},
    "all infinite": {FIRST_NONFINITE: 100},
    "all nan": {CODES - 1: 100},
    "one value": {2000: 1},
    "one bin": {2000: 10**6},
    "1e15 in a bin": {2000: 10**15},
    "two bins": {2000: 500, 2001: 500},
    "two bins far apart": {100: 1, 4000: 1},
    "1e15 against one": {2000: 10**15, 2001: 1, 2040: 1},
    "three bins": {1999: 1, 2000: 10**9, 2001: 1},
    "lowest code": {1: 1000},
    "highest code": {LAST: 1000},
    "both ends": {1: 1000, LAST: 1000},
    "subnormals": dict.fromkeys(range(1, 16), 100),
    "top octave": dict.fromkeys(range(LAST - 15, LAST + 1), 100),
    "every code once": dict.fromkeys(range(1, FIRST_NONFINITE), 1),
    "bimodal": {**{1500 + i: 1000 for i in range(20)}, **{2300 + i: 1000 for i in range(20)}},
    "comb": {1900 + 4 * i: 1000 for i in range(40)},
    "pruned": {0: 900_000, **{2000 + i: 100_000 >> i for i in range(16)}},
    "spike and tail": {2000: 10**9, **dict.fromkeys(range(1000, 1900, 10), 1)},
    "rising wall": {2000 + i: 2**i for i in range(40)},
    "falling wall": {2000 + i: 2 ** (40 - i) for i in range(40)},
}


def _row(occupied: dict[int, int]) -> Tensor:
    counts = torch.zeros(CODES, dtype=torch.int64)
    for code, number in occupied.items():
        counts[code] = number
    return counts


def _assert_reasons(counts: Tensor) -> None:
    """Numbers where the status promises them, nan elsewhere; all rows in one batch."""
    binned = occupied_bins(counts)
    moments = log_moments(binned)
    for family in FAMILIES:
        fit = fit_family(family, binned, moments)
        promised = (fit.status == Status.CONVERGED) | (fit.status == Status.AT_BOUND)
        has_numbers = fit.parameters.isfinite().all(-1)
        assert torch.equal(has_numbers, promised), (family.name, fit.status.tolist())
        assert torch.equal(gap(binned, fit).isfinite(), promised), family.name
        if math.isinf(family.skew_limit):
            assert Status.SKEW_OUT_OF_RANGE not in fit.status.tolist(), family.name


def _tally(counts: Tensor, kind: str) -> Tally:
    tally = tally_of_counts(counts)
    if kind == "weight":
        tally.linear[:, ::7] = counts[:, 1:FIRST_NONFINITE].sum(-1, keepdim=True) // 15
    return tally


def _records(counts: Tensor, kind: Any) -> list[Record]:
    streams = [Stream(kind, str(row), (4, 4)) for row in range(len(counts))]
    return list(summarise([Tallied(streams, _tally(counts, kind))])[0])


#: Columns and whose status explains them; all others are the lognormal's, or of the counts.
_EXPLAINED_BY = {
    "q": "generalized_gamma",
    "gap_tilted": "tilted",
    "gap_censored": "censored",
    "paper_r2": "paper protocol",
    "paper_mu": "paper protocol",
    "paper_sigma": "paper protocol",
    "paper_amplitude": "paper protocol",
    "paper_r2_gaussian": "Gaussian reference",
    **{
        f"fit_{family.name}_{parameter.name}": family.name
        for family in FAMILIES
        for parameter in family.parameters
    },
}


_UNKNOWN = {
    "moved",
    "gap_change_se",
    "gap_closed",
    *(name for field in LENT for name in SCHEMA.columns_of(field)),
}


def _unexplained(record: Record) -> list[str]:
    """Columns without a number and without a reason.

    What compares with a first record, and what `scales` lends, cannot be known here.
    """
    reasons = [] if record.status == "ok" else record.status.split("; ")
    explained = {reason.partition(":")[0] for reason in reasons if ": " in reason}
    if any(": " not in reason for reason in reasons):
        return []
    return [
        name
        for name, value in record.to_dict(counts=False).items()
        if name not in _UNKNOWN
        and isinstance(value, float)
        and not math.isfinite(value)
        and _EXPLAINED_BY.get(name, name.removeprefix("gap_").removeprefix("vuong_z_"))
        not in explained
    ]


@pytest.fixture(scope="module")
def adversaries() -> Tensor:
    return torch.stack([_row(occupied) for occupied in ROWS.values()])


def test_every_fit_ends_with_numbers_or_a_reason(adversaries: Tensor) -> None:
    _assert_reasons(adversaries)


def _outcome(counts: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Status and gap of every row, by the family's name."""
    binned = occupied_bins(counts)
    fits = {family.name: fit_family(family, binned, log_moments(binned)) for family in FAMILIES}
    return {name: (fit.status, gap(binned, fit)) for name, fit in fits.items()}


@pytest.fixture(scope="module")
def together(adversaries: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    return _outcome(adversaries)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.sampled(4)
def test_alone_as_in_a_batch(
    name: str, adversaries: Tensor, together: dict[str, tuple[Tensor, Tensor]]
) -> None:
    """A neighbour's misery is not contagious: the same status and figures alone."""
    row = list(ROWS).index(name)
    for family, (status, found) in _outcome(adversaries[row : row + 1]).items():
        of_many, gaps = together[family]
        assert of_many[row] == status[0], family
        torch.testing.assert_close(gaps[row], found[0], rtol=1e-6, atol=1e-8, equal_nan=True)


@pytest.mark.parametrize("kind", ["weight", "iota"])
@pytest.mark.sampled(2)
def test_records_explain_their_gaps(kind: str, adversaries: Tensor) -> None:
    for name, record in zip(ROWS, _records(adversaries, kind), strict=True):
        assert not _unexplained(record), (name, record.status)
        if record.n == 0:
            assert record.status != "ok", name


def _assert_explained(counts: Tensor) -> None:
    _assert_reasons(counts)
    for record in _records(counts, "iota"):
        assert not _unexplained(record), record.status


@pytest.mark.parametrize(
    "number",
    [5, pytest.param(20, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.slow)],
)
def test_random_counts(number: int, generator: torch.Generator) -> None:
    """Rows of few to many occupied codes, of one to 1e15 values each."""
    counts = torch.zeros(number, CODES, dtype=torch.int64)
    for row in counts:
        occupied = int(torch.randint(1, 40, (), generator=generator))
        code = torch.randint(CODES, (occupied,), generator=generator)
        row[code] = (10 ** (15 * torch.rand(occupied, generator=generator))).long()
    _assert_explained(counts)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.dictionaries(st.integers(0, CODES - 1), st.integers(1, 10**15), max_size=30),
        min_size=1,
        max_size=4,
    )
)
def test_any_counts(rows: list[dict[int, int]]) -> None:
    _assert_explained(torch.stack([_row(occupied) for occupied in rows]))
