import math

import numpy as np
import pytest
import torch

from jaynes_callbacks import analyse
from jaynes_callbacks.figures import exponents_over_layers
from jaynes_callbacks.figures.exponents import LARGE_NETWORKS
from jaynes_callbacks.instruments.record import Record, Records

GENERATOR = torch.Generator().manual_seed(6)


def drawn(records: Records | list[Record], row: int) -> dict[str, np.ndarray]:
    axes = exponents_over_layers(records).axes[row]
    marks = {"o": "data", "D": "gaussian", "x": "likelihood"}
    return {
        marks[line.get_marker()]: np.asarray(line.get_ydata(), dtype=float)
        for line in axes.lines
        if line.get_marker() in marks
    }


def test_a_lognormal_layer_has_its_own_exponents_by_both_ways() -> None:
    """β = 1/(2σ²) and α = μ/σ² − 1 of w over its maximum (Eq. 13)."""
    sigma = 0.5
    weights = torch.randn(2000, 500, generator=GENERATOR).mul(sigma).exp()
    (record,) = analyse(weights)
    beta, alpha = drawn([record], 0), drawn([record], 1)
    assert beta["likelihood"] == pytest.approx(2.0, rel=0.01)
    assert beta["data"] == pytest.approx(2.0, rel=0.05)
    expected = -math.log(float(weights.max())) / sigma**2 - 1
    assert alpha["likelihood"] == pytest.approx(expected, rel=0.01)
    assert alpha["data"] == pytest.approx(expected, rel=0.05)
    assert abs(beta["gaussian"] - beta["data"]) > 0.3


def test_gaussian_layers_lie_on_what_chance_shows() -> None:
    records = analyse({str(n): torch.randn(300, 400, generator=GENERATOR) for n in range(4)})
    for row in (0, 1):
        found = drawn(records, row)
        np.testing.assert_allclose(found["data"], found["gaussian"], rtol=0.03)
    assert drawn(records, 0)["data"] == pytest.approx([1 / (2 * 0.63**2)] * 4, rel=0.05)


def test_the_band_holds_the_papers_networks() -> None:
    (record,) = analyse(torch.randn(300, 400, generator=GENERATOR))
    axes = exponents_over_layers([record]).axes[0]
    (band,) = [patch for patch in axes.patches if patch.get_height() > 0]
    betas = [1 / (2 * sigma**2) for _, sigma in LARGE_NETWORKS]
    assert band.get_y() == pytest.approx(min(betas))
    assert band.get_y() + band.get_height() == pytest.approx(max(betas))


def test_activations_have_names_of_their_own(snapshots: list[Records]) -> None:
    labels = [axes.get_ylabel() for axes in exponents_over_layers(snapshots[0]).axes]
    assert labels == ["β of weights", "α of weights", "ζ of activations", "η of activations"]


def test_gaussian_references_have_as_many_bins_as_the_stream() -> None:
    """The same half-normal values, counted as a weight's and as a neuron's."""
    (record,) = analyse(torch.randn(300, 400, generator=GENERATOR))
    neuron = record.replace(variable="y", name="neuron", paper_bins=1000)
    both, weight, iota = (
        drawn(rows, 1)["gaussian"] for rows in ([record, neuron], [record], [neuron])
    )
    assert both == pytest.approx([*weight, *iota], rel=1e-12)
    assert weight != pytest.approx(iota, rel=1e-6)


def test_only_weights_have_the_papers_table() -> None:
    (record,) = analyse(torch.randn(300, 400, generator=GENERATOR))
    figure = exponents_over_layers([record.replace(kind="gradient")])
    assert [axes.get_ylabel() for axes in figure.axes] == ["β of gradients", "α of gradients"]
    assert not figure.axes[0].patches


def test_a_layer_without_a_fit_is_left_out() -> None:
    (record,) = analyse(torch.randn(300, 400, generator=GENERATOR))
    found = drawn([record, Record(name="empty", n=0)], 0)
    assert np.isfinite(found["data"]).tolist() == [True, False]
