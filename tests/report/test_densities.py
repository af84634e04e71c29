import numpy as np
import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.instruments.verdict import rival_gaps
from jaynes_callbacks.report import Run
from jaynes_callbacks.report.densities import densities


def areas(edges: list[float], *thousandths: list[int]) -> list[float]:
    return [float(np.diff(edges) @ values) / 1000 for values in thousandths]


def test_each_density_and_each_law_has_the_area_one(run: Run) -> None:
    for record in run.end:
        drawn = densities([record], run.first)[record.key]
        shares = areas(drawn["edges"], drawn["data"], drawn["lognormal"], drawn["rival"])
        assert shares == pytest.approx([1, 1, 1], abs=0.03)
        assert areas(drawn["start_edges"], drawn["start"]) == pytest.approx([1], abs=0.02)
        gaps = rival_gaps(record)
        assert drawn["family"] == min(gaps, key=lambda name: gaps[name])


def test_the_lognormal_peaks_where_its_parameters_say(run: Run) -> None:
    record = run.end[0]
    drawn = densities([record], {})[record.key]
    peak = int(np.argmax(drawn["lognormal"]))
    assert drawn["edges"][peak] <= record.mu <= drawn["edges"][peak + 1]
    height = 1000 / (record.sigma * np.sqrt(2 * np.pi))
    assert drawn["lognormal"][peak] == pytest.approx(height, rel=0.01)
    assert "start" not in drawn


def test_batches_are_those_one_by_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    together = densities(run.end, run.first)
    monkeypatch.setattr("jaynes_callbacks.report.densities._BATCH", 1)
    assert densities(run.end, run.first) == together


def test_what_has_no_values_is_left_out(bare: Record, run: Run) -> None:
    assert list(densities(Records([bare, run.end[0]]), run.first)) == [run.end[0].key]
    assert densities([bare], {}) == {}
