"""Neurons of whole runs: one process, two ranks, resumed, beside other instruments."""

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
from jaynes_callbacks.counts.log_powers import POWERS, add_log_powers_
from jaynes_callbacks.instruments.neurons import MOST_NEURONS, Neurons
from jaynes_callbacks.statistics.neurons import neuron_moments
from tests.probes.training import Exact, train
from tests.test_life_cycle import Saving, Stateful

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]
BOTH = ["magnitudes", "neurons"]


def _row(model: nn.Module, *batches: Tensor, **options: Any) -> Any:
    with Recorder(model, instruments=Neurons(**options)) as recorder:
        for batch in batches:
            model(batch)
        (row,) = recorder.record()["neurons"]
    return row


def test_a_row_is_that_of_all_forwards_since_the_last_record(generator: torch.Generator) -> None:
    batches = torch.randn(3, 40, 6, generator=generator)
    model = nn.Sequential(nn.ReLU())
    row = _row(model, *batches)
    logs = [np.log(own[own > 0]) for own in batches.flatten(0, 1).double().numpy().T]
    freedom = sum(len(own) - 1 for own in logs)
    within = sum(((own - own.mean()) ** 2).sum() for own in logs) / freedom
    assert (row.kind, row.name, row.variable, row.shape) == ("iota", "0", "y", (6,))
    assert (row.n, row.neurons, row.dead_neurons) == (sum(map(len, logs)), 6, 0)
    assert row.within_std == pytest.approx(np.sqrt(within), rel=1e-6)
    assert row.status == "ok"


def test_dead_neurons_and_those_beyond_the_most() -> None:
    model = nn.Sequential(nn.Linear(4, 3000), nn.ReLU())
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[0].bias, 1.0)
    with torch.no_grad():
        model[0].bias[::4] = -1e6
    row = _row(model, torch.rand(30, 4))
    # Every second neuron is taken, and every second of those is dead.
    assert (row.neurons, row.dead_neurons) == (1500, 750)
    assert MOST_NEURONS == 2048


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_rescaled_neurons_change_the_share_alone(
    activation: type[nn.Module], generator: torch.Generator
) -> None:
    model = nn.Sequential(nn.Linear(20, 30), activation(), nn.Linear(30, 10)).double()
    x = torch.randn(200, 20, generator=generator).double()
    plain, before = _row(model, x), model(x)
    scales = (2 * torch.randn(30, generator=generator)).exp().double()
    with torch.no_grad():
        model[0].weight *= scales[:, None]
        model[0].bias *= scales
        model[2].weight /= scales
    scaled = _row(model, x)
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-12)
    assert scaled.n == plain.n
    for name in ("within_std", "within_skew", "within_kurtosis"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), abs=1e-6), name
    assert scaled.neuron_share > plain.neuron_share + 0.3


def test_the_values_are_those_that_magnitudes_counts(generator: torch.Generator) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.SiLU(inplace=True), nn.Flatten(), nn.Linear(180, 7), nn.ReLU()
    )
    with Recorder(model, instruments=BOTH, kinds="iota") as recorder:
        for _ in range(2):
            model(torch.randn(9, 1, 8, 8, generator=generator))
        records = recorder.record()
    assert len(records["neurons"]) == 2
    for counted, row in zip(records["magnitudes"], records["neurons"], strict=True):
        assert (counted.name, counted.n, counted.variable) == (row.name, row.n, row.variable)
        if row.name == "1":
            # Most of its variance is within: the standard deviations are close.
            assert row.within_std == pytest.approx(counted.log_std, rel=0.1)


def test_only_so_many_values_are_taken(generator: torch.Generator) -> None:
    row = _row(
        nn.Sequential(nn.Tanh()), torch.randn(400, 10, generator=generator), values_per_call=500
    )
    assert (row.n, row.neurons) == (450, 10)


@pytest.mark.parametrize("number", [0, -1, 2.0])
def test_a_number_of_values_that_is_none_raises(number: Any) -> None:
    with pytest.raises(ValueError, match="values_per_call must be a positive integer"):
        Neurons(values_per_call=number)


def test_excluded_streams_and_silent_ones_have_no_row() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    with Recorder(model, instruments="neurons", exclude="0") as recorder:
        model(torch.randn(5, 4))
        assert recorder.record()["neurons"]["name"].tolist() == ["1"]
        assert len(recorder.record()["neurons"]) == 0
    assert ("0", "excluded by pattern") in recorder.coverage.skipped


# Whole runs ---------------------------------------------------------------------------------


def test_records_of_a_run_and_where_they_are_seen(
    task: Any, loader: DataLoader[Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = EquilibriumMonitor(instruments=BOTH, every_n_steps=4)
    make_trainer(monitor).fit(task, loader)
    rows = monitor.history_of("neurons")
    assert rows.step.unique().tolist() == [0, 4, 6, 8, 12]
    assert rows.name.unique().tolist() == ["act", "relu"]
    assert (rows.neurons == 32).all()
    counted = monitor.history.query("kind == 'iota'")
    assert rows.n.tolist() == counted.n.tolist()
    stored = pd.read_parquet(tmp_path / "jaynes" / "_neurons")
    pd.testing.assert_frame_equal(stored[list(rows.columns)], rows)
    assert {"step", "neuron_share", "within_skew"} <= set(stored.columns)


def _exact_options() -> dict[str, Any]:
    return {"instruments": "neurons"}


def _ddp(path: Path) -> None:
    train(path, Exact(), watch=_exact_options(), devices=2, strategy="ddp")


def test_two_ranks_record_what_one_process_does(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_ddp, tmp_path)
    train(tmp_path / "alone", Exact(), watch=_exact_options(), devices=1)
    alone = pd.read_parquet(tmp_path / "alone" / "0" / "jaynes" / "_neurons")
    # The first forward belongs to the record of the untouched network.
    assert alone.step.tolist() == [0, 2, 3]
    assert set(alone.neurons) == {7}
    assert alone.neuron_share.max() > 0
    # Sums of logarithms round, in an order that depends on the ranks.
    together = pd.read_parquet(tmp_path / "0" / "jaynes" / "_neurons")
    pd.testing.assert_frame_equal(
        together.drop(columns="run"), alone.drop(columns="run"), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("saved_at", [4, 8])
def test_a_resumed_run_equals_the_uninterrupted_one(
    saved_at: int, task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(
        place: str, *callbacks: L.Callback, checkpoint: Path | None = None, **limits: int
    ) -> Any:
        monitor = EquilibriumMonitor(
            instruments="neurons",
            sinks=[],
            dirpath=tmp_path / place,
            every_n_steps=5,
            iota_every_n_batches=2,
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


def test_a_state_is_what_a_table_of_the_same_values_is(generator: torch.Generator) -> None:
    x = torch.randn(50, 8, generator=generator)
    recorder = Recorder(model := nn.Sequential(nn.ReLU()), instruments="neurons")
    with recorder:
        model(x)
        moment = recorder.count(step=3)["neurons"]
    table = torch.zeros(1, MOST_NEURONS, POWERS, dtype=torch.float64)
    add_log_powers_(x.relu(), None, table, 0)
    assert torch.equal(moment.state["powers"], table)
    (row,) = recorder.summarise([{"neurons": moment}])[0]["neurons"]
    assert row.step == 3
    assert row.neuron_share == neuron_moments(table).share.item()
