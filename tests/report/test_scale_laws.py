"""The scales of several layers give one answer, whatever spread each layer has."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks import Recorder
from jaynes_callbacks.instruments.scale_row import SCALE
from jaynes_callbacks.records.parts import PartWriter
from jaynes_callbacks.report import Run
from jaynes_callbacks.report.page import page
from jaynes_callbacks.report.scale_laws import pooled_laws, read_pooled_laws

LAYERS, ROWS, COLUMNS = 3, 400, 256


def lognormal(layer: int) -> Tensor:
    return torch.exp((0.5 + layer / 2) * torch.randn(ROWS))


def gamma(layer: int) -> Tensor:
    return torch.distributions.Gamma(0.7 + layer, 1.0).sample((ROWS,)).clamp_min(1e-6)


def network(law: Callable[[int], Tensor] | None) -> nn.Sequential:
    """Gaussian weights whose rows are multiplied by values of a law; columns are left alone."""
    torch.manual_seed(3)
    layers = [nn.Linear(COLUMNS, ROWS, bias=False) for _ in range(LAYERS)]
    for number, layer in enumerate(layers):
        rows = law(number) if law else torch.ones(ROWS)
        nn.init.normal_(layer.weight)
        layer.weight.data.mul_(rows[:, None])
    return nn.Sequential(*layers)


def frame(law: Callable[[int], Tensor] | None):  # type: ignore[no-untyped-def]
    recorder = Recorder(network(law), instruments="scales")
    recorder.attach()
    try:
        return recorder.summarise([recorder.count(0, 0, ["scales"])])[0]["scales"]
    finally:
        recorder.detach()


@pytest.mark.parametrize(("law", "name"), [(lognormal, "lognormal"), (gamma, "gamma")])
def test_layers_of_one_law_and_different_spreads_agree(
    law: Callable[[int], Tensor], name: str
) -> None:
    (pooled,) = pooled_laws(frame(law))
    assert (pooled.what, pooled.layers, pooled.n) == ("rows", LAYERS, LAYERS * ROWS)
    assert pooled.best == name
    # The bias of a gap at n = 400 is below .006, and its error is about .01.
    assert pooled.gaps[name] < 0.02
    assert pooled.gaps[name] == min(pooled.gaps.values())
    rival = "lognormal" if name == "gamma" else pooled.rival
    assert pooled.gaps[rival] > 0.02


def test_gaps_are_weighted_by_the_number_of_scales() -> None:
    rows = frame(lognormal)
    own = rows.take((rows["kind"] == SCALE) & (rows["reliability"] >= 0.9))
    expected = np.average(own["core_gap"], weights=own["n"])
    (pooled,) = pooled_laws(rows)
    assert pooled.gap == pytest.approx(float(expected), rel=1e-12)
    assert sum(number for _, number in pooled.alone) == LAYERS


def test_scales_of_chance_alone_are_not_pooled() -> None:
    rows = frame(None)
    assert (rows["kind"] == SCALE).sum() == 2 * LAYERS
    assert pooled_laws(rows) == []


def test_the_report_says_it_and_how_many_are_left_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mixed = network(lognormal)
    nn.init.normal_(mixed[0].weight)
    recorder = Recorder(mixed, instruments=["magnitudes", "scales"])
    recorder.attach()
    found = recorder.summarise([recorder.count(0, 0, ["magnitudes", "scales"])])[0]
    recorder.detach()
    folder = tmp_path / "_scales"
    folder.mkdir()
    PartWriter(folder, "mine").write(found["scales"])
    (pooled,) = read_pooled_laws(folder)
    assert (pooled.layers, pooled.left_out) == (LAYERS - 1, 1)
    run = Run.measured_once("mine", found["magnitudes"])
    shown = page([Run(**{**run.__dict__, "instruments": {"scales": folder}})])
    assert "Law of the scales, pooled over layers" in shown
    assert "the scales of the rows of 1 more layer are left out" in shown
    assert "pooled over layers" not in page([run])


def test_a_run_without_scales_has_nothing_to_pool() -> None:
    assert read_pooled_laws(None) == []
