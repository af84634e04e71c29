"""Coalitions of whole runs: one process, two ranks, resumed, and what has no maps."""

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
from jaynes_callbacks.instruments.coalitions import Coalitions
from jaynes_callbacks.probes import coalitions
from jaynes_callbacks.probes.coalitions import NO_MAPS, SIDE
from jaynes_callbacks.statistics.coalitions import (
    gibbs,
    neighbourhoods,
    place_contributions,
    shuffled,
    strong,
    unit_maps,
    winning,
)
from tests.instruments.test_no_sync import Refusing
from tests.probes.training import Exact, train
from tests.test_life_cycle import Saving, Stateful

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]


def _net(activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 5, 3), activation or nn.ReLU())


def _row(model: nn.Module, *batches: Tensor, **options: Any) -> Any:
    with Recorder(model, instruments=Coalitions(**options)) as recorder:
        for batch in batches:
            model(batch)
        (row,) = recorder.record()["coalitions"]
    return row


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()])
def test_a_row_is_that_of_all_maps_since_the_last_record(
    activation: nn.Module, generator: torch.Generator
) -> None:
    model = _net(activation)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, -30.0
    batches = torch.randn(2, 6, 1, 9, 8, generator=generator)
    row = _row(model, *batches, alpha=0.5, beta=2.0)
    maps = model(batches.flatten(0, 1)).detach().double().flatten(0, 1)
    plays = maps.square().sum((1, 2)) > 0
    assert (row.kind, row.name, row.shape) == ("iota", "1", (5, 7, 6))
    assert (row.maps, row.dead_maps) == (60, 12)
    x = unit_maps(maps[plays])
    flags = strong(place_contributions(x, 0.5, 2.0))
    assert row.strong == pytest.approx(flags.double().mean().item())
    for size in (2, 3):
        share = winning(flags, size).double().mean().item()
        assert getattr(row, f"winning_{size}") == pytest.approx(share)
        expected = share / shuffled(flags, size).mean().item()
        assert getattr(row, f"cohesion_{size}") == pytest.approx(expected)
        # Of each call 1024 are enumerated.
        law = gibbs(neighbourhoods(x, size, 10**9), size, 0.5, 2.0)
        assert getattr(row, f"entropy_{size}") == pytest.approx(law.entropy.mean().item(), rel=0.2)
    assert row.status == "ok"


def test_few_neighbourhoods_are_all_enumerated(generator: torch.Generator) -> None:
    model, x = _net(), torch.randn(2, 1, 8, 8, generator=generator)
    row = _row(model, x)
    maps = unit_maps(model(x).detach().double().flatten(0, 1))
    for size in (2, 3):
        chosen = neighbourhoods(maps, size, 10**9)
        law = gibbs(chosen[(chosen != 0).any(-1)], size)
        silent = (chosen == 0).all(-1).double().mean().item()
        assert getattr(row, f"silent_{size}") == pytest.approx(silent, abs=1e-12)
        for name, values in (
            ("energy", law.grand),
            ("entropy", law.entropy),
            ("total_correlation", law.total_correlation),
            ("all_on", law.all_on),
        ):
            assert getattr(row, f"{name}_{size}") == pytest.approx(values.mean().item()), name


def test_independent_places_do_not_stand_together(generator: torch.Generator) -> None:
    noise = torch.randn(60, 8, 16, 16, generator=generator)
    smooth = nn.functional.avg_pool2d(noise, 5, 1)
    relu = nn.Sequential(nn.ReLU())
    alone = _row(relu, noise, beta=0.0)
    assert alone.strong == pytest.approx(0.375, abs=0.005)
    assert alone.cohesion_2 == pytest.approx(1.0, abs=0.05)
    assert alone.winning_2 == pytest.approx(0.375**4, rel=0.05)
    assert alone.total_correlation_3 == pytest.approx(0, abs=1e-12)
    # With β the neighbours of a place are part of its own φ.
    row, together = (_row(relu, x) for x in (noise, smooth))
    assert row.cohesion_2 == pytest.approx(1.53, abs=0.06)
    assert row.cohesion_3 == pytest.approx(2.6, abs=0.5)
    assert together.cohesion_3 > 30


def test_silent_neighbourhoods_are_counted_and_left_out() -> None:
    x = torch.zeros(2, 1, 12, 12)
    x[0, 0, 5:7, 5:7] = 1
    row = _row(nn.Sequential(nn.ReLU()), x)
    # A block of 2 x 2 touches 9 of 121 neighbourhoods of 2 x 2, and 16 of 100 of 3 x 3.
    assert (row.maps, row.dead_maps) == (2, 1)
    assert row.silent_2 == pytest.approx(112 / 121)
    assert row.silent_3 == pytest.approx(0.84)
    chosen = neighbourhoods(unit_maps(x[:1, 0].double()), 3, 10**6)
    active = gibbs(chosen[(chosen != 0).any(-1)], 3)
    assert row.entropy_3 == pytest.approx(active.entropy.mean().item())
    assert abs(row.entropy_3 - gibbs(chosen, 3).entropy.mean().item()) > 0.05


def test_rescaled_neurons_change_nothing(generator: torch.Generator) -> None:
    model, x = _net().double(), torch.randn(6, 1, 9, 9, generator=generator).double()
    plain = _row(model, x)
    with torch.no_grad():
        scales = torch.randn(5, generator=generator).exp().double()
        model[0].weight *= scales[:, None, None, None]
        model[0].bias *= scales
    scaled = _row(model, x)
    for name in Coalitions.schema.invariant:
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9), name
    assert np.array_equal(scaled.picture, plain.picture)


def test_the_picture_shows_the_first_sample_of_the_last_call(generator: torch.Generator) -> None:
    model, batches = _net(), torch.randn(2, 3, 1, 9, 8, generator=generator)
    row = _row(model, *batches)
    # Every second of five channels.
    x = unit_maps(model(batches[1])[0, ::2].detach().double())
    flags = strong(place_contributions(x))
    assert row.picture_shape == (3, 7, 6)
    levels = row.picture.reshape(row.picture_shape)
    assert np.array_equal(levels > 0, flags.numpy())
    wins = winning(flags, 2)
    for channel, top, left in zip(*np.nonzero(wins.numpy()), strict=True):
        assert (levels[channel, top : top + 2, left : left + 2] >= 2).all()
    assert set(levels.flatten().tolist()) <= {0, 1, 2, 3}


def test_of_large_maps_the_picture_is_the_middle() -> None:
    x = torch.zeros(1, 1, 40, 50)
    x[0, 0, 19:22, 24:27] = 1
    row = _row(nn.Sequential(nn.ReLU()), x)
    levels = row.picture.reshape(row.picture_shape)
    assert levels.shape == (1, SIDE, SIDE)
    assert np.array_equal(np.argwhere(levels[0] == 3)[[0, -1]], [[15, 15], [17, 17]])
    assert (levels > 0).sum() == 9


def test_only_so_many_values_are_read(generator: torch.Generator) -> None:
    x = torch.randn(9, 1, 8, 8, generator=generator)
    assert _row(_net(), x, values_per_call=500).maps == 12
    assert _row(_net(), x, values_per_call=1).maps == 1


def test_what_has_no_maps_is_named(generator: torch.Generator) -> None:
    model = nn.Sequential(_net(), nn.Flatten(), nn.Linear(180, 7), nn.ReLU())
    with Recorder(model, instruments="coalitions") as recorder:
        for _ in range(2):
            model(torch.randn(3, 1, 8, 8, generator=generator))
        assert recorder.record()["coalitions"]["name"].tolist() == ["0.1"]
    assert recorder.coverage.skipped.count(("3", NO_MAPS)) == 1


@pytest.mark.parametrize(
    ("x", "reason", "missing"),
    [
        (-torch.ones(2, 1, 6, 6), "zero or not finite", "strong winning_2 winning_3 energy_2"),
        (torch.ones(2, 1, 2, 6), "smaller than 3 x 3", "winning_3 entropy_3"),
        (torch.eye(6)[None, None].triu(0), "too few strong places", "cohesion_3"),
        (torch.full((2, 1, 6, 6), torch.inf), "zero or not finite", "strong winning_3"),
    ],
    ids=["dead", "small", "few", "not finite"],
)
def test_what_is_not_known_says_why(x: Tensor, reason: str, missing: str) -> None:
    row = _row(nn.Sequential(nn.ReLU()), x)
    assert reason in row.status
    assert np.isnan([getattr(row, name) for name in missing.split()]).all()


@pytest.mark.parametrize(
    ("options", "what"),
    [({"values_per_call": 0}, "values_per_call"), ({"alpha": float("nan")}, "must be finite")],
)
def test_wrong_arguments_raise(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Coalitions(**options)


def test_parts_of_maps_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalitions, "is_sharded_along", lambda tensor, along: along == 1)
    with Recorder(model := _net(), instruments="coalitions") as recorder:
        with pytest.warns(UserWarning, match="spread over ranks"):
            model(torch.ones(2, 1, 8, 8))
        assert len(recorder.record()["coalitions"]) == 0


def test_compiled_models_are_named(generator: torch.Generator) -> None:
    model = _net()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with Recorder(model, instruments="coalitions") as recorder:
        compiled(torch.randn(3, 1, 8, 8, generator=generator))
        assert len(recorder.record()["coalitions"]) == 0
    assert ("1", "not read inside compiled models") in recorder.coverage.skipped


def test_collecting_waits_for_nothing(generator: torch.Generator) -> None:
    recorder = Recorder(model := _net(), instruments="coalitions")
    recorder.attach()
    collected = []
    for step in range(2):
        recorder.open()
        x = torch.randn(4, 1, 8, 8, generator=generator)
        with Refusing():
            model(x)
        recorder.close()
        with Refusing():
            collected.append(recorder.count(step))
    assert [len(each["coalitions"]) for each in recorder.summarise(collected)] == [1, 1]
    recorder.detach()


def test_neither_other_instruments_nor_autocast_change_it(generator: torch.Generator) -> None:
    model, x = _net(), torch.randn(4, 1, 8, 8, generator=generator)
    model = nn.Sequential(model, nn.Conv2d(5, 3, 2), nn.ReLU())
    found = []
    for names in (["neurons", "energy", "coalitions"], ["coalitions"], ["neurons", "energy"]):
        with Recorder(model, instruments=names) as recorder:
            model(x)
            found.append(recorder.record())
    assert list(found[0]["coalitions"]) == list(found[1]["coalitions"])
    for name in ("neurons", "energy"):
        assert list(found[0][name]) == list(found[2][name])
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        Recorder(model, instruments="coalitions") as recorder,
    ):
        y = model[0](x)
        (row,) = recorder.record()["coalitions"]
    assert y.dtype == torch.bfloat16
    law = gibbs(neighbourhoods(unit_maps(y.detach().double().flatten(0, 1)), 3, 10**9), 3)
    assert row.entropy_3 == pytest.approx(law.entropy.mean().item(), rel=1e-3)


# Whole runs ---------------------------------------------------------------------------------


class MapTask(L.LightningModule):
    """Maps, normalised and not, then features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.net = nn.Sequential(
            *(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(96, 12), nn.ReLU(), nn.Linear(12, 4)),
        )
        self.losses: list[float] = []

    def training_step(self, batch: Any) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.mark.usefixtures("unfitted")
def test_records_of_a_run_and_where_they_are_seen(
    loader: DataLoader[Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = EquilibriumMonitor(instruments=["magnitudes", "coalitions"], every_n_steps=3)
    make_trainer(monitor).fit(MapTask(), loader)
    rows = monitor.history_of("coalitions")
    assert rows.name.unique().tolist() == ["net.2", "net.5"]
    assert rows.step.unique().tolist() == [0, 3, 6, 9, 12]
    stored = pd.read_parquet(tmp_path / "jaynes" / "_coalitions")
    pd.testing.assert_frame_equal(stored[list(rows.columns)], rows)
    shapes = [tuple(each) for each in stored.picture_shape[-2:]]
    assert shapes == [(4, 4, 4), (3, 4, 4)]
    assert [len(each) for each in stored.picture[-2:]] == [64, 48]
    assert (tmp_path / "jaynes-figures" / "figures-coalitions.png").exists()
    assert (tmp_path / "jaynes-figures" / "coalitions-over_steps.png").exists()


def test_training_is_the_same_to_the_bit(
    loader: DataLoader[Any], make_trainer: MakeTrainer
) -> None:
    found = []
    for watched in (False, True):
        model = MapTask()
        torch.manual_seed(7)
        monitor = EquilibriumMonitor(
            instruments=["energy", "coalitions"], every_n_steps=1, sinks=[]
        )
        make_trainer(*([monitor] if watched else [])).fit(model, loader)
        weights = nn.utils.parameters_to_vector(model.parameters()).detach()
        found.append((weights, torch.tensor(model.losses), torch.get_rng_state()))
    assert len(monitor.history_of("coalitions")) > 0
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_resumed_run_equals_the_uninterrupted_one(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(place: str, *callbacks: L.Callback, checkpoint: Path | None = None, steps: int) -> Any:
        monitor = EquilibriumMonitor(
            instruments="coalitions", sinks=[], dirpath=tmp_path / place, every_n_steps=2
        )
        trainer = make_trainer(monitor, *callbacks, max_steps=steps)
        trainer.fit(MapTask(), Stateful(), ckpt_path=checkpoint)
        return monitor.history.drop(columns="run")

    whole = fit("whole", steps=12)
    fit("parts", Saving(3, tmp_path / "saved.ckpt"), steps=5)
    rest = fit("parts", checkpoint=tmp_path / "saved.ckpt", steps=12)
    expected = whole[whole.step > 3].reset_index(drop=True)
    assert len(rest) >= 8
    pd.testing.assert_frame_equal(rest.reset_index(drop=True), expected, check_exact=True)


class ExactMaps(Exact):
    """The same arithmetic on maps."""

    def configure_model(self) -> None:
        super().configure_model()
        self.first = nn.Conv2d(2, 3, 2, bias=False)
        source = torch.Generator().manual_seed(5)
        whole = torch.randint(-4, 5, self.first.weight.shape, generator=source)
        self.first.weight = nn.Parameter(whole.double() / 4)

    def forward(self, batch: Tensor) -> Tensor:
        maps = batch.view(len(batch), 2, 4, 4)
        rank, size = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size())
            if torch.distributed.is_initialized()
            else (0, 1)
        )
        hidden = self.even(self.first(maps.tensor_split(size)[rank]))
        return (hidden.sum() + self.last.weight.sum()) * size / 64


def _ddp(path: Path) -> None:
    train(path, ExactMaps(), watch={"instruments": "coalitions"}, devices=2, strategy="ddp")


def test_two_ranks_record_what_one_process_does(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_ddp, tmp_path)
    train(tmp_path / "alone", ExactMaps(), watch={"instruments": "coalitions"}, devices=1)
    alone = pd.read_parquet(tmp_path / "alone" / "0" / "jaynes" / "_coalitions")
    together = pd.read_parquet(tmp_path / "0" / "jaynes" / "_coalitions")
    assert alone.maps.tolist() == [24, 24, 15]
    assert (alone.winning_2 > 0).any()
    pd.testing.assert_frame_equal(
        together.drop(columns="run"), alone.drop(columns="run"), rtol=1e-9, atol=1e-12
    )
