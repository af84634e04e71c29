"""Energies of whole runs: one process, two ranks, resumed, beside other instruments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments.energy import Energy
from jaynes_callbacks.statistics.energy import EnergyUnknown
from tests.probes.training import Exact, train
from tests.test_life_cycle import Saving, Stateful

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]
INVARIANT = ("samples", "nonfinite_samples", "neurons", "dead_neurons", "sample_cv")


def _row(model: nn.Module, *batches: Tensor, **options: Any) -> Any:
    with Recorder(model, instruments=Energy(**options)) as recorder:
        for batch in batches:
            model(batch)
        (row,) = recorder.record()["energy"]
    return row


def test_a_row_is_that_of_all_forwards_since_the_last_record(generator: torch.Generator) -> None:
    batches = torch.randn(3, 40, 6, generator=generator)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU())
    row = _row(model, *batches)
    y = model(batches.flatten(0, 1)).detach().double()
    energy, mean = y.square().sum(1), y.square().mean(0)
    phi = (mean + model[0].bias.detach() * y.mean(0)) / 2
    assert (row.kind, row.name, row.shape, row.samples) == ("iota", "1", (9,), 120)
    assert row.energy == pytest.approx(energy.mean().item(), rel=1e-6)
    assert row.energy_std == pytest.approx(energy.std().item(), rel=1e-6)
    assert row.unit_energy == pytest.approx(energy.mean().item() / 9, rel=1e-6)
    assert row.phi_share == pytest.approx((phi.sum() / mean.sum()).item(), rel=1e-6)
    strongest, _ = phi.sort()
    assert row.phi_strong_share == pytest.approx((strongest[2:].sum() / phi.sum()).item(), rel=1e-6)
    difference = (mean[:, None] - mean).abs().sum() / (9 * 8)
    assert row.gini == pytest.approx((difference / (2 * mean.mean())).item(), rel=1e-6)
    assert row.status == "ok"


def test_laws_of_z(generator: torch.Generator) -> None:
    exponential = torch.empty(400, 20).exponential_(generator=generator)
    lognormal = torch.randn(400, 20, generator=generator).exp()
    # z·y of a leaky ReLU with slope 1 is z².
    for z2, own, other, expected in (
        (exponential, "exponential", "lognormal", 0.5),
        (lognormal, "lognormal", "exponential", 0.5205),
    ):
        row = _row(nn.Sequential(nn.LeakyReLU(1.0)), z2.sqrt())
        assert abs(getattr(row, f"z_gap_{own}")) < 0.006
        assert getattr(row, f"z_gap_{other}") > 0.05
        assert row.gini_values == pytest.approx(expected, abs=0.01)


def test_the_lognormals_gap_is_that_of_magnitudes(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 40), nn.GELU())
    with Recorder(model, instruments=["magnitudes", "energy"], kinds="iota") as recorder:
        model(torch.randn(400, 20, generator=generator))
        records = recorder.record()
    relu, gelu = records["energy"]
    of_y, of_z = records["magnitudes"]
    assert (of_y.variable, of_z.variable) == ("y", "z*y")
    # ln Z = 2 ln y: bins of Z are twice as fine in ln y.
    assert relu.z_gap_lognormal == pytest.approx(of_y.gap, abs=2e-3)
    assert abs(relu.z_gap_exponential - of_y.to_dict()["gap_exponential"]) > 0.05
    assert gelu.z_gap_lognormal == pytest.approx(of_z.gap, rel=1e-9)
    assert gelu.z_gap_exponential == pytest.approx(of_z.to_dict()["gap_exponential"], rel=1e-9)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_rescaled_neurons_change_the_energy(
    activation: type[nn.Module], generator: torch.Generator
) -> None:
    model = nn.Sequential(nn.Linear(20, 30), activation(), nn.Linear(30, 10)).double()
    x = torch.randn(200, 20, generator=generator).double()
    plain, before = _row(model, x), model(x)
    scales = torch.randn(30, generator=generator).exp().double()
    with torch.no_grad():
        model[0].weight *= scales[:, None]
        model[0].bias *= scales
        model[2].weight /= scales
    scaled = _row(model, x)
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-12)
    for name in INVARIANT:
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9), name
    for name in ("unit_energy", "gini", "z_gap_exponential"):
        assert abs(getattr(scaled, name) / getattr(plain, name) - 1) > 0.1, name
    assert set(INVARIANT) <= set(Energy.schema.invariant)


def test_maps_and_what_is_not_known(generator: torch.Generator) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3, bias=False), nn.SiLU(inplace=True), nn.BatchNorm2d(5), nn.ReLU()
    )
    with Recorder(model, instruments="energy") as recorder:
        model(torch.randn(9, 1, 8, 8, generator=generator))
        first, second = recorder.record()["energy"]
    assert (first.neurons, first.shape, first.samples) == (5, (5, 6, 6), 9)
    assert first.phi_share == pytest.approx(0.5)
    assert first.energy == pytest.approx(180 * first.unit_energy)
    assert first.phi_gini == pytest.approx(first.gini)
    assert np.isnan(second.phi_share)
    assert np.isnan(second.phi_strong_share)
    assert second.status == EnergyUnknown.NO_BIAS.reason
    assert 0 < second.gini < 1


def test_dead_neurons_and_those_beyond_the_most() -> None:
    model = nn.Sequential(nn.Linear(4, 3000), nn.ReLU())
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[0].bias, 1.0)
    with torch.no_grad():
        model[0].bias[::4] = -1e6
    row = _row(model, torch.rand(30, 4))
    # Every second neuron is taken, and every second of those is dead.
    assert (row.neurons, row.dead_neurons) == (1500, 750)
    assert row.top_half_share == pytest.approx(1.0)
    assert row.gini == pytest.approx(0.5, abs=1e-3)


def test_a_layer_without_energy_says_so() -> None:
    row = _row(nn.Sequential(nn.ReLU()), -torch.ones(5, 4))
    assert (row.dead_neurons, row.energy) == (4, 0.0)
    assert np.isnan([row.gini, row.sample_cv, row.z_gap_lognormal]).all()
    assert EnergyUnknown.NO_ENERGY.reason in row.status


@pytest.mark.parametrize("number", [0, -1, 2.0])
def test_a_number_of_values_that_is_none_raises(number: Any) -> None:
    with pytest.raises(ValueError, match="values_per_call must be a positive integer"):
        Energy(values_per_call=number)


def test_excluded_streams_and_silent_ones_have_no_row() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    with Recorder(model, instruments="energy", exclude="0") as recorder:
        model(torch.randn(5, 4))
        assert recorder.record()["energy"]["name"].tolist() == ["1"]
        assert len(recorder.record()["energy"]) == 0
    assert ("0", "excluded by pattern") in recorder.coverage.skipped


def test_a_model_without_activations_has_no_rows() -> None:
    with Recorder(model := nn.Linear(6, 4), instruments=["energy", "coalitions"]) as recorder:
        model(torch.ones(5, 6))
        assert [len(each) for each in recorder.record().values()] == [0, 0]


# Whole runs ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("unfitted")
def test_records_of_a_run_and_where_they_are_seen(
    task: Any, loader: DataLoader[Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = EquilibriumMonitor(instruments=["magnitudes", "energy"], every_n_steps=4)
    make_trainer(monitor).fit(task, loader)
    rows = monitor.history_of("energy")
    assert rows.step.unique().tolist() == [0, 4, 6, 8, 12]
    assert rows.name.unique().tolist() == ["act", "relu"]
    assert (rows.neurons == 32).all()
    # Only the forward of the step that is recorded is listened to.
    assert (rows.samples <= 16).all()
    stored = pd.read_parquet(tmp_path / "jaynes" / "_energy")
    pd.testing.assert_frame_equal(stored[list(rows.columns)], rows)


def _options() -> dict[str, Any]:
    return {"instruments": "energy"}


def _ddp(path: Path) -> None:
    train(path, Exact(), watch=_options(), devices=2, strategy="ddp")


def test_two_ranks_record_what_one_process_does(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_ddp, tmp_path)
    train(tmp_path / "alone", Exact(), watch=_options(), devices=1)
    alone = pd.read_parquet(tmp_path / "alone" / "0" / "jaynes" / "_energy")
    assert set(alone.neurons) == {7}
    assert (alone.energy > 0).all()
    together = pd.read_parquet(tmp_path / "0" / "jaynes" / "_energy")
    pd.testing.assert_frame_equal(
        together.drop(columns="run"), alone.drop(columns="run"), rtol=1e-9, atol=1e-9
    )


def test_training_is_the_same_to_the_bit(
    task: Any, loader: DataLoader[Any], make_trainer: MakeTrainer
) -> None:
    found = []
    for watched in (False, True):
        torch.manual_seed(7)
        model = type(task)()
        model.load_state_dict(task.state_dict())
        monitor = EquilibriumMonitor(instruments="energy", every_n_steps=2, sinks=[])
        make_trainer(*([monitor] if watched else [])).fit(model, loader)
        weights = nn.utils.parameters_to_vector(model.parameters()).detach()
        found.append((weights, torch.tensor(model.losses), torch.get_rng_state()))
        assert len(monitor.history_of("energy") if watched else [1]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("saved_at", [4])
def test_a_resumed_run_equals_the_uninterrupted_one(
    saved_at: int, task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(
        place: str, *callbacks: L.Callback, checkpoint: Path | None = None, **limits: int
    ) -> Any:
        monitor = EquilibriumMonitor(
            instruments="energy", sinks=[], dirpath=tmp_path / place, every_n_steps=5
        )
        model = type(task)()
        model.load_state_dict(task.state_dict())
        # Dropout would draw from the global state, which a checkpoint does not hold.
        model.drop.p = 0.0
        trainer = make_trainer(monitor, *callbacks, **{"max_epochs": 3, **limits})
        trainer.fit(model, Stateful(), ckpt_path=checkpoint)
        return monitor.history.drop(columns="run")

    whole = fit("whole")
    fit("parts", Saving(saved_at, tmp_path / "saved.ckpt"), max_steps=10)
    rest = fit("parts", checkpoint=tmp_path / "saved.ckpt")
    expected = whole[whole.step > saved_at].reset_index(drop=True)
    assert len(rest) >= 6
    pd.testing.assert_frame_equal(rest.reset_index(drop=True), expected, check_exact=True)


def test_an_open_recorder_keeps_its_sums_in_a_checkpoint(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    batches = torch.randn(2, 10, 6, generator=generator)
    whole = _row(model, *batches)
    first, second = Energy(), Energy()
    with Recorder(model, instruments=first):
        model(batches[0])
        state = first.state_dict()
    with Recorder(model, instruments=second) as recorder:
        second.load_state_dict(state)
        model(batches[1])
        (row,) = recorder.record()["energy"]
    assert row == whole
