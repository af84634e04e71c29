"""Jacobians of whole models: landmarks, whole matrices as oracle, players, runs as they are."""

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor, Recorder, watch
from jaynes_callbacks.instruments.jacobian import Jacobian, JacobianStatus

MakeTrainer = Callable[..., L.Trainer]
pytestmark = pytest.mark.usefixtures("unfitted")


def _rows(model: nn.Module, x: Tensor, **options: Any) -> dict[str, Any]:
    with Recorder(model, instruments=Jacobian(**options), min_size=0) as recorder:
        model(x)
        return {row.name: row for row in recorder.record()["jacobian"]}


def _linear(weight: Tensor, bias: float = 0.0) -> nn.Linear:
    layer = nn.Linear(*weight.shape).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.fill_(bias)
    return layer


def test_asymmetries(generator: torch.Generator) -> None:
    matrix = torch.randn(50, 50, generator=generator).double() / 50**0.5
    x = torch.randn(8, 50, generator=generator).double()
    for weight, expected in (
        (matrix + matrix.mT, 0.0),
        (matrix - matrix.mT, 1.0),
        (matrix, ((matrix - matrix.mT) / 2).square().sum().item() / matrix.square().sum().item()),
    ):
        row = _rows(_linear(weight), x)["Linear"]
        assert row.asymmetry == pytest.approx(expected, abs=4 * row.asymmetry_se + 1e-10)
        assert row.status == "ok"
        assert row.samples == 8
    assert expected == pytest.approx(0.5, abs=0.03)
    assert 0 < row.asymmetry_se < 0.02


def test_the_fixed_point_of_an_affine_map() -> None:
    # f = az + b: z* = b/(1 − a), ratio a.
    a, b = 0.6, 2.0
    layer = _linear(a * torch.eye(3), b)
    row = _rows(layer, torch.full((5, 3), b / (1 - a)))["Linear"]
    assert row.residual == pytest.approx(0, abs=1e-6)
    assert row.growth_rate == pytest.approx(a, rel=1e-6)
    away = _rows(layer, torch.zeros(5, 3))["Linear"]
    assert away.residual == pytest.approx(1)


class Block(nn.Module):
    """Not linear, with dropout, BatchNorm and a function that writes over its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(
            self.norm(torch.tanh(self.inner(torch.nn.functional.silu(x, inplace=True))))
        )


def test_blocks_against_their_whole_jacobians(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Block()).double()
    x = torch.randn(12, 4, generator=generator).double()
    z = model[0](x)[:8].detach()
    with Recorder(model, instruments="jacobian", min_size=0) as recorder:
        model(x)
        rows = {row.name: row for row in recorder.record()["jacobian"]}
    row = rows["1"]
    model.eval()
    parts, wholes, radii, residuals = [], [], [], []
    for each in z:
        jacobian: Any = torch.autograd.functional.jacobian(lambda v: model[1](v[None] * 1)[0], each)
        parts.append(((jacobian - jacobian.mT) / 2).square().sum())
        wholes.append(jacobian.square().sum())
        radii.append(torch.linalg.eigvals(jacobian).abs().max())
        image = model[1](each[None] * 1)[0]
        residuals.append((image - each).norm() / image.norm())
    expected = (torch.stack(parts).sum() / torch.stack(wholes).sum()).item()
    assert row.asymmetry == pytest.approx(expected, abs=4 * row.asymmetry_se)
    assert row.residual == pytest.approx(torch.stack(residuals).mean().item(), rel=1e-9)
    assert row.growth_rate == pytest.approx(torch.stack(radii).mean().item(), rel=0.1)
    # The modules of an equal size, the outermost first; the layer in front changes the size.
    assert list(rows) == ["1", "1.inner"]


def test_modules_by_name_and_the_outermost_by_default(generator: torch.Generator) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)))
    x = torch.randn(5, 4, generator=generator)
    assert list(_rows(model, x, most=3)) == ["Sequential", "0", "1"]
    assert set(_rows(model, x, modules="*.0")) == {"0.0", "1.0", "2.0"}
    # Named modules need not contain layers.
    assert set(_rows(model, x, modules=["0.1", "1"])) == {"0.1", "1"}
    assert _rows(model, x, modules="0.1")["0.1"].asymmetry == 0
    with pytest.raises(ValueError, match=r"'9\.\*' of Jacobian matches no module"):
        Recorder(model, instruments=Jacobian(modules="9.*"), min_size=0).attach()
    with pytest.raises(ValueError, match="must be positive"):
        Jacobian(samples=0)


class Once(torch.autograd.Function):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return 0.5 * gradient

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return 0.5 * x


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)  # type: ignore[no-any-return]


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def test_what_is_missing_is_said() -> None:
    model = nn.Sequential(Halved(), Constant(), Detached())
    options: Any = {"instruments": Jacobian(modules=["0", "1", "2"]), "min_size": 0}
    with Recorder(model, **options) as recorder:
        model(torch.randn(3, 4))
        half, zero, failed = recorder.record()["jacobian"]
    assert half.status == JacobianStatus.NO_SECOND_DERIVATIVE.reason
    assert np.isnan(half.asymmetry)
    assert half.growth_rate == pytest.approx(0.5)
    assert zero.status == JacobianStatus.ZERO.reason
    assert zero.growth_rate == 0
    assert failed.status == JacobianStatus.FAILED.reason
    assert np.isnan(failed.residual)
    assert [name for name, _ in recorder.coverage.skipped] == ["2"]


def test_transformers_are_measured(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    rows = _rows(layer, torch.randn(4, 5, 8, generator=generator))
    assert list(rows) == ["TransformerEncoderLayer", "self_attn"]
    assert all(row.status == "ok" and 0 < row.asymmetry < 1 for row in rows.values())


# Players ------------------------------------------------------------------------------------


class Game(L.LightningModule):
    """Two players, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Linear(16, 16)
        self.critic = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 1))
        self.norms: list[tuple[float, float]] = []

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.SGD(each.parameters(), lr=0.01) for each in (self.generator, self.critic)
        ]

    def training_step(self, batch: Any) -> None:
        norms = []
        for optimizer, sign in zip(self.optimizers(), (-1, 1), strict=True):  # type: ignore[arg-type]
            optimizer.zero_grad()
            loss = self.critic(self.generator(batch[0])).mean() - self.critic(batch[0]).mean()
            self.manual_backward(sign * loss)
            group = optimizer.param_groups[0]["params"]
            norms.append(torch.cat([each.grad.flatten() for each in group]).norm().item())
            optimizer.step()
        self.norms.append((norms[0], norms[1]))


def test_players_stand_beside_each_other(
    loader: DataLoader[Any], make_trainer: MakeTrainer
) -> None:
    torch.manual_seed(0)
    game, monitor = Game(), EquilibriumMonitor(instruments="jacobian", every_n_steps=4)
    make_trainer(monitor, max_epochs=1).fit(game, loader)
    rows = monitor.history
    players = rows[rows.kind == "player"].pivot_table("gradient_norm", "step", "name")
    assert list(players.columns) == ["critic", "generator"]
    # Two steps a batch.
    for step, found in players.iterrows():
        assert isinstance(step, int)
        expected = game.norms[max(step // 2 - 1, 0)]
        assert (found["generator"], found["critic"]) == pytest.approx(expected, rel=1e-6)
    assert len(players) >= 3


def test_a_loop_with_two_optimizers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {"g": nn.Linear(8, 8), "d": nn.Linear(8, 1)}
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.01) for each in parts.values()]
    with watch(
        parts, optimizers, instruments="jacobian", every_n_steps=2, loggers=(), dirpath=tmp_path
    ) as watched:
        for _ in range(6):
            for optimizer in optimizers:
                optimizer.zero_grad()
            parts["d"](parts["g"](torch.randn(4, 8))).mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    rows = watched.history
    late = rows[rows.step > 0]
    assert set(zip(late.kind, late.name, strict=True)) == {
        ("player", "g"), ("player", "d"), ("map", "g"),
    }  # fmt: skip


def test_the_first_record_is_of_the_untouched_model(
    task: Any, loader: DataLoader[Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    class Wide(type(task)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.middle(x))  # type: ignore[no-any-return]

    torch.manual_seed(3)
    model = Wide()
    seen: list[Tensor] = []
    jacobian = model.middle.weight.detach().double().clone()
    untouched = deepcopy(model.middle)
    model.middle.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    monitor = EquilibriumMonitor(instruments="jacobian", every_n_steps=5)
    make_trainer(monitor, num_sanity_val_steps=0).fit(model, loader)
    rows = monitor.history
    maps = rows[rows.kind == "map"]
    assert maps.step.tolist() == [0, 5, 6, 10, 12]
    first = maps.iloc[0]
    expected = ((jacobian - jacobian.mT) / 2).square().sum() / jacobian.square().sum()
    assert first.asymmetry == pytest.approx(expected.item(), abs=4 * first.asymmetry_se)
    # To the bit: not of the weights after one update.
    assert first.asymmetry == _rows(untouched, seen[0])["Linear"].asymmetry
    assert all(one != other for one, other in pairwise(maps.asymmetry))
    stored = pd.read_parquet(tmp_path / "jaynes" / "_jacobian")
    assert len(stored) == len(rows)


def test_probes_leave_random_states_and_gradients_as_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5))
    with Recorder(model, instruments="jacobian", min_size=0) as recorder:
        model(torch.randn(4, 5))
        before = torch.get_rng_state()
        first, second = recorder.record()["jacobian"]
    assert torch.get_rng_state().equal(before)
    assert all(each.grad is None for each in model.parameters())
    # In evaluation the dropout is the identity, so that both are the same map.
    assert first.asymmetry == pytest.approx(second.asymmetry, abs=0.2)
    assert model.training


def test_sparse_gradients_have_a_norm() -> None:
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 4))
    with Recorder(model, instruments="jacobian", min_size=0) as recorder:
        model(torch.tensor([1, 2, 2])).sum().backward()
        recorder.before_step(list(model.parameters()))
        rows = recorder.record(1)["jacobian"].to_pandas()
    expected = math.sqrt(
        sum(each.grad.to_dense().square().sum().item() for each in model.parameters())  # type: ignore[union-attr]
    )
    (norm,) = rows[rows.kind == "player"].gradient_norm
    assert norm == pytest.approx(expected, rel=1e-6)


def test_inputs_that_are_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaynes_callbacks.instruments.jacobian._MOST_VALUES", 10)
    model = nn.Sequential(nn.Linear(4, 4))
    with Recorder(model, instruments="jacobian", min_size=0) as recorder:
        model(torch.ones(9, 4))
        assert len(recorder.record(1)["jacobian"]) == 0
        assert any("more than 10 values" in reason for _, reason in recorder.coverage.skipped)
