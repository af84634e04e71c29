from typing import Any

import numpy as np
import pytest
import torch

from jaynes_callbacks.figures.curves import fitted_parameters
from jaynes_callbacks.instruments.distribution import counts_of
from jaynes_callbacks.instruments.record import Record, Records, family_label
from jaynes_callbacks.instruments.verdict import rival_gaps
from jaynes_callbacks.report import Run
from jaynes_callbacks.report.densities import densities
from jaynes_callbacks.report.streams import best_rival
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    RIVALS,
    Family,
    Fit,
    fit_family,
    log_moments,
    occupied_bins,
)


def areas(edges: list[float], *thousandths: list[int]) -> list[float]:
    return [float(np.diff(edges) @ values) / 1000 for values in thousandths]


def of_version_01(records: Records) -> Records:
    """The same rows, without the columns of the rivals' parameters."""
    return Records(row.replace(fits={}) for row in records)


def test_each_density_and_each_law_has_the_area_one(run: Run) -> None:
    for record in run.end:
        drawn = densities(Records([record]), run.first)[record.key]
        shares = areas(drawn["edges"], drawn["data"], drawn["lognormal"], drawn["rival"])
        assert shares == pytest.approx([1, 1, 1], abs=0.03)
        assert areas(drawn["start_edges"], drawn["start"]) == pytest.approx([1], abs=0.02)
        gaps = rival_gaps(record)
        assert drawn["law"] == family_label(min(gaps, key=lambda name: gaps[name]))


def test_the_lognormal_peaks_where_its_parameters_say(run: Run) -> None:
    record = run.end[0]
    drawn = densities(Records([record]), {})[record.key]
    peak = int(np.argmax(drawn["lognormal"]))
    assert drawn["edges"][peak] <= record.mu <= drawn["edges"][peak + 1]
    height = 1000 / (record.sigma * np.sqrt(2 * np.pi))
    assert drawn["lognormal"][peak] == pytest.approx(height, rel=0.01)
    assert "start" not in drawn


def test_nothing_is_fitted_that_has_parameters(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a family was fitted")

    monkeypatch.setattr("jaynes_callbacks.figures.curves.fit_family", refuse)
    monkeypatch.setattr("jaynes_callbacks.statistics.fit.fit_family", refuse)
    drawn = densities(run.end, run.first)
    assert len(drawn) == len(run.end)
    assert all({"lognormal", "rival"} <= density.keys() for density in drawn.values())
    with pytest.raises(AssertionError, match="was fitted"):
        densities(of_version_01(run.end), run.first)


def test_the_parameters_of_records_are_those_of_a_fit(run: Run) -> None:
    occupied = occupied_bins(counts_of(run.end))
    moments, binned = log_moments(occupied), occupied.merged()
    for family in (LOGNORMAL, *RIVALS):
        fitted = fit_family(family, binned, moments).parameters
        kept = fitted_parameters(run.end, family)
        assert kept.isfinite().all()
        torch.testing.assert_close(kept, fitted, rtol=1e-9, atol=0)


def test_records_of_version_0_1_are_fitted_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fit(family: Family, *arguments: Any) -> Fit:
        calls.append(family.name)
        return fit_family(family, *arguments)

    monkeypatch.setattr("jaynes_callbacks.figures.curves.fit_family", fit)
    rows = Records([*of_version_01(run.end[:2]), *run.end[2:]])
    assert densities(rows, run.first) == densities(run.end, run.first)
    # Not of the lognormal, whose parameters were columns then already.
    wanted = {rival.name for row in run.end[:2] if (rival := best_rival(row)) is not None}
    assert sorted(calls) == sorted(wanted)


def test_batches_are_those_one_by_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    together = densities(run.end, run.first)
    monkeypatch.setattr("jaynes_callbacks.report.densities._BATCH", 1)
    assert densities(run.end, run.first) == together


def test_what_has_no_values_is_left_out(bare: Record, run: Run) -> None:
    assert list(densities(Records([bare, run.end[0]]), run.first)) == [run.end[0].key]
    assert densities(Records([bare]), {}) == {}
