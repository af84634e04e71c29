"""Operators of whole models: landmarks, bounds that hold, runs left as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor, Recorder
from jaynes_callbacks.instruments.operators import Operators, OperatorStatus
from tests.probes.training import Exact, train

MakeTrainer = Callable[..., L.Trainer]
Ranks = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("unfitted")


def _rows(model: nn.Module, x: Tensor, **options: Any) -> dict[tuple[str, str], Any]:
    with Recorder(model, instruments=Operators(**options), min_size=0) as recorder:
        model(x)
        return {row.key: row for row in recorder.record()["operators"]}


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(*reversed(weight.shape))
    layer.weight = nn.Parameter(weight)
    return layer


ROTATION = torch.tensor([[0.0, -1], [1, 0]])
PROJECTION = torch.tensor([[1.0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("weight", "gamma", "norm"),
    [
        (torch.zeros(2, 2), 0.5, 0.0),
        (torch.eye(2) / 2, 0.25, 0.5),
        (-torch.eye(2), 1.0, 1.0),
        (ROTATION, 1.0, 1.0),
        (PROJECTION, 0.5, 1.0),
    ],
)
def test_landmarks(weight: Tensor, gamma: float, norm: float, generator: torch.Generator) -> None:
    rows = _rows(_linear(weight), torch.randn(40, 2, generator=generator))
    row = rows["layer", "Linear"]
    assert (row.gamma, row.gamma_most) == pytest.approx((gamma, gamma), abs=1e-5)
    assert row.spectral_norm == row.lipschitz_most == pytest.approx(norm, abs=1e-5)
    assert row.nonexpansive == "yes"
    # x ← ½(x − x) is at the fixed point after one step.
    reached = weight.equal(-torch.eye(2))
    assert row.status == (OperatorStatus.AT_FIXED_POINT if reached else OperatorStatus.OK).reason
    assert row.km_rate < 1 or reached
    assert row.gamma_least <= gamma + 1e-5
    assert row.lipschitz_least <= norm + 1e-5
    assert rows["network", "network"].gamma_most == pytest.approx(gamma, abs=1e-5)


def _clustered(size: int, norm: float) -> nn.Linear:
    """A layer whose singular values crowd below the largest."""
    generator = torch.Generator().manual_seed(size)
    left, right = torch.linalg.qr(
        torch.randn(2, size, size, generator=generator, dtype=torch.float64)
    ).Q
    values = 1 - 0.3 * torch.rand(size, generator=generator, dtype=torch.float64) ** 2
    values[0] = norm
    return _linear(((left * values) @ right).float())


@pytest.mark.parametrize(
    ("size", "norm", "verdict"),
    [(256, 1.002, "no"), (256, 0.9999, "yes"), (520, 1.002, "no"), (520, 0.9, "unknown")],
)
def test_only_real_bounds_decide_of_clustered_spectra(size: int, norm: float, verdict: str) -> None:
    row = _rows(_clustered(size, norm), torch.randn(4, size))["layer", "Linear"]
    largest = max(norm, 1 - 1e-6)
    assert row.lipschitz_most >= norm * (1 - 1e-6)
    assert row.nonexpansive == verdict
    if size <= 512:
        assert row.spectral_norm == pytest.approx(largest, abs=2e-4)
        assert row.gamma_most <= (1 + row.lipschitz_most) / 2 or norm > 1


def test_large_layers_that_contract_by_far_are_known_to() -> None:
    layer = _linear(_clustered(520, 1.0).weight.detach() * 0.8)
    row = _rows(layer, torch.randn(4, 520))["layer", "Linear"]
    assert row.nonexpansive == "yes"
    assert row.spectral_norm <= 0.8 + 1e-6 <= row.lipschitz_most < 0.9


def test_at_a_fixed_point_there_is_no_rate(generator: torch.Generator) -> None:
    block = Residual(0.0)
    row = _rows(nn.Sequential(block), torch.randn(20, 8, generator=generator))["block", "0"]
    assert (row.km_first, row.km_last) == (0, 0)
    assert np.isnan(row.km_rate)
    assert row.status == OperatorStatus.AT_FIXED_POINT.reason
    # Half of the samples are at one: the rate is that of the others.
    x = torch.randn(16, 2, generator=generator) * torch.tensor([1.0, 0]).add(1e-30)
    x[::2] = torch.tensor([0.0, 1.0])
    halving = _linear(torch.diag(torch.tensor([0.5, 1.0])))
    nn.init.zeros_(halving.bias)
    row = _rows(halving, x)["layer", "Linear"]
    assert row.km_first == pytest.approx(0.5)
    assert row.km_rate == pytest.approx(0.75)


def test_a_rotation_is_iterated_towards_its_fixed_point(generator: torch.Generator) -> None:
    layer = _linear(ROTATION)
    nn.init.zeros_(layer.bias)
    row = _rows(layer, torch.randn(40, 2, generator=generator))["layer", "Linear"]
    # ‖x_t‖ = 2^(−t/2), and the residual is √2 of it.
    assert row.km_first == pytest.approx(2**0.5, rel=1e-5)
    assert row.km_last == pytest.approx(2**0.5 * 2 ** (-10 / 2), rel=1e-5)
    assert row.km_rate == pytest.approx(2**-0.5, rel=1e-5)
    whole = _rows(layer, torch.randn(40, 2), relaxation=1.0)["layer", "Linear"]
    assert whole.km_rate == pytest.approx(1, rel=1e-5)


def test_layers_are_composed_with_what_follows(generator: torch.Generator) -> None:
    model = nn.Sequential(
        _linear(torch.eye(6) / 2),
        nn.ReLU(),
        _linear(ROTATION.repeat(3, 3) / 3),
        nn.Dropout(),
        nn.SiLU(),
    )
    rows = _rows(model, torch.randn(30, 6, generator=generator))
    first, second = rows["layer", "0"], rows["layer", "2"]
    # ¼ ∘ ½: 1/(1 + 1/(⅓ + 1)) = 4/7.  But a ½-Lipschitz map is averaged with ¾ at most, too.
    assert (first.map, second.map) == ("Linear, ReLU", "Linear")
    assert first.gamma_most == pytest.approx(4 / 7, abs=1e-5)
    network = rows["network", "network"]
    product = 0.5 * scipy.linalg.svdvals(ROTATION.repeat(3, 3) / 3)[0]
    assert network.spectral_norm == pytest.approx(product, rel=1e-4)
    assert network.lipschitz_most == pytest.approx(product * 1.09984, rel=1e-4)
    assert network.map == "Sequential"
    # SiLU is averaged for no γ, but the whole contracts.
    assert network.gamma_most == pytest.approx((1 + network.lipschitz_most) / 2)
    assert network.lipschitz_least <= network.lipschitz_most


class Residual(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.tanh(self.inner(x))


def test_blocks_and_broken_chains(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Residual(0.1), Residual(-0.1), nn.Linear(8, 3))
    x = torch.randn(20, 8, generator=generator)
    rows = _rows(model, x)
    assert [key for key in rows if key[0] == "block"] == [("block", "0"), ("block", "1")]
    block, network = rows["block", "0"], rows["network", "network"]
    assert block.status == OperatorStatus.ONLY_BOUNDED.reason
    # The oracle: all pairs of the samples that were kept.
    kept = x[:16]
    y = model[0](kept).detach()
    d, delta = torch.pdist(kept), torch.pdist(y)
    assert block.samples == 16
    assert block.lipschitz_least == pytest.approx((delta / d).max().item(), rel=1e-5)
    assert network.status == OperatorStatus.NO_CHAIN.reason
    assert network.map == "before 1.inner"
    assert np.isnan(network.lipschitz_most)
    assert rows["layer", "2"].status == OperatorStatus.SIZES_DIFFER.reason


class Added(nn.Module):
    """Adds what differs from sample to sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _linear(torch.eye(4) / 2)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.inner(x) + other


class Adding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.added = Added()

    def forward(self, x: Tensor) -> Tensor:
        return self.added(x, 100 * x.square())


def test_samples_with_a_map_of_their_own_are_not_compared() -> None:
    row = _rows(Adding(), torch.randn(20, 4))["block", "added"]
    assert row.lipschitz_least == pytest.approx(0.5, rel=1e-4)
    assert row.gamma_least == pytest.approx(0.25, rel=1e-3)


def test_status_and_verdict_of_expanding_layers(generator: torch.Generator) -> None:
    model = nn.Sequential(_linear(3 * torch.eye(4)), nn.ReLU(), nn.LayerNorm(4))
    rows = _rows(model, torch.randn(20, 4, generator=generator).abs())
    layer = rows["layer", "0"]
    assert layer.status == OperatorStatus.EXPANSIVE.reason
    assert (layer.nonexpansive, layer.gamma_least) == ("no", np.inf)
    assert np.isnan(layer.gamma)
    assert rows["network", "network"].status == OperatorStatus.UNKNOWN_MODULE.reason
    assert rows["network", "network"].map == "2"


def test_a_norm_above_one_decides_nothing_before_an_activation() -> None:
    model = nn.Sequential(_linear(1.2 * torch.eye(4)), nn.Sigmoid(), _linear(1.2 * torch.eye(4)))
    rows = _rows(model, torch.randn(20, 4))
    assert [rows["layer", name].nonexpansive for name in "02"] == ["yes", "no"]
    model = nn.Sequential(_linear(1.2 * torch.eye(4)), nn.ReLU())
    assert _rows(model, -torch.rand(20, 4) - 9)["layer", "0"].nonexpansive == "unknown"


def test_the_nash_gap_of_given_probes(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Linear(8, 5))
    x, labels = torch.randn(30, 8, generator=generator), torch.arange(30) % 5
    row = _rows(model, x, probes=(x, labels))["network", "network"]
    expected = nn.functional.cross_entropy(model(x), labels).item()
    assert row.nash_gap == pytest.approx(expected, rel=1e-5)
    best = model(x).softmax(-1).detach()
    assert _rows(model, x, probes=(x, best))["network", "network"].nash_gap == pytest.approx(
        0, abs=1e-6
    )
    assert np.isnan(_rows(model, x)["network", "network"].nash_gap)


def test_only_the_named_and_outermost_modules_are_iterated() -> None:
    model = nn.Sequential(Residual(0.1), Residual(0.1))
    x = torch.randn(9, 8)

    def iterated(**options: Any) -> set[str]:
        return {key[1] for key, row in _rows(model, x, **options).items() if row.km_rate > 0}

    assert iterated() == {"0.inner", "1.inner", "Sequential", "0", "1"}
    assert iterated(most_iterated=2) == {"Sequential", "0"}
    assert iterated(modules="1*") == {"1.inner", "1"}
    assert iterated(modules=["*.inner"]) == {"0.inner", "1.inner"}
    assert iterated(most_iterated=0) == set()


@pytest.mark.parametrize(
    "options", [{"samples": 1}, {"most_iterated": -1}, {"relaxation": 0.0}, {"relaxation": 1.5}]
)
def test_wrong_arguments_raise(options: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        Operators(**options)


class Failing(nn.Module):
    """Can be called once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(4, 4), [0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        if self.calls[0] > 1:
            raise RuntimeError("once only")
        return self.inner(x)


def test_what_cannot_be_called_again_costs_its_own_row_only() -> None:
    model = nn.Sequential(Failing(), nn.Linear(4, 2))
    with Recorder(model, instruments="operators", min_size=0) as recorder:
        model(torch.randn(5, 4))
        rows = {row.key: row for row in recorder.record()["operators"]}
    assert rows["block", "0"].status == OperatorStatus.FAILED.reason
    assert rows["layer", "1"].status == OperatorStatus.SIZES_DIFFER.reason
    assert any("once only" in reason for _, reason in recorder.coverage.skipped)


def test_models_that_it_does_not_fit() -> None:
    embedding = nn.Sequential(nn.Embedding(9, 4))
    (row,) = _rows(embedding, torch.arange(5)).values()
    assert row.kind == "network"
    assert row.nonexpansive == "unknown"
    assert row.status == OperatorStatus.NO_CHAIN.reason
    with Recorder(model := nn.Sequential(nn.Linear(4, 4)), instruments="operators") as recorder:
        layer, network = recorder.record()["operators"]
    assert layer.spectral_norm == pytest.approx(
        torch.linalg.matrix_norm(model[0].weight, 2).item(), rel=1e-4
    )
    assert layer.status == network.status == OperatorStatus.NOT_SEEN.reason


def test_layers_excluded_by_pattern_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with Recorder(model, instruments="operators", exclude="1*", min_size=0) as recorder:
        model(torch.randn(5, 4))
        records = recorder.record()["operators"]
    assert ("layer", "1") not in [row.key for row in records]
    assert ("1", "excluded by pattern") in recorder.coverage.skipped


# Whole runs ---------------------------------------------------------------------------------


def test_a_run_records_the_untouched_model_first_and_is_left_as_it_is(
    task: Any, loader: DataLoader[Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def fit(*instruments: str) -> tuple[Any, list[float], Tensor]:
        torch.manual_seed(1)
        model = type(task)()
        model.load_state_dict(task.state_dict())
        monitor = (
            EquilibriumMonitor(instruments=instruments, every_n_steps=4) if instruments else None
        )
        make_trainer(*filter(None, [monitor])).fit(model, loader)
        state = torch.cat([each.flatten().double() for each in model.state_dict().values()])
        return monitor, model.losses, torch.cat([state, torch.get_rng_state().double()])

    monitor, losses, after = fit("operators", "jacobian")
    _, plain_losses, plain = fit()
    assert losses == plain_losses
    assert after.equal(plain)
    rows = monitor.history_of("operators")
    assert rows.step.unique().tolist() == [0, 4, 6, 8, 12]
    first = rows[(rows.step == 0) & (rows.name == "first")].iloc[0]
    norm = scipy.linalg.svdvals(task.first.weight.detach())[0]
    assert first.spectral_norm == pytest.approx(norm, rel=1e-4)
    assert first.samples == 16
    # Pairs never contradict the bounds: both are of the same weights.
    layers = rows[rows.kind == "layer"]
    assert (layers.lipschitz_least <= layers.lipschitz_most * (1 + 1e-4)).all()
    assert layers.lipschitz_least.notna().all()
    stored = pd.read_parquet(tmp_path / "jaynes" / "_operators")
    assert len(stored) == len(rows)
    assert not any(module._forward_hooks for module in task.modules())


def _ddp(path: Path) -> None:
    train(
        path, Exact(), watch={"instruments": ["operators", "jacobian"]}, devices=2, strategy="ddp"
    )


def test_two_ranks_know_the_larger_bound(ranks: Ranks, tmp_path: Path) -> None:
    ranks(_ddp, tmp_path)
    watch = {"instruments": ["operators", "jacobian"]}
    train(tmp_path / "alone", Exact(), watch=watch, devices=1)
    frames = {
        name: [
            pd.read_parquet(path / "jaynes" / f"_{name}").drop(columns="run")
            for path in (tmp_path / "0", tmp_path / "alone" / "0")
        ]
        for name in ("operators", "jacobian")
    }
    together, alone = frames["operators"]
    layers, expected = (each[each.kind == "layer"] for each in (together, alone))
    assert len(layers) > 0
    np.testing.assert_allclose(layers.spectral_norm, expected.spectral_norm, rtol=1e-6)
    assert (layers.samples > 0).all()
    together, alone = frames["jacobian"]
    assert together[["step", "kind", "name"]].equals(alone[["step", "kind", "name"]])
    # Gradients are averaged over ranks, and not counted twice.
    players, expected = (each[each.kind == "player"] for each in (together, alone))
    assert len(players) > 0
    np.testing.assert_allclose(players.gradient_norm, expected.gradient_norm, rtol=1e-5)


def test_compiled_models_have_norms_and_say_what_they_lack() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    compiled = torch.compile(model, backend="aot_eager")
    x = torch.randn(5, 6)
    expected = model(x)
    with Recorder(model, instruments=["operators", "jacobian"], min_size=0) as recorder:
        assert compiled(x).equal(expected)
        records = recorder.record()
    layer, network = records["operators"]
    assert layer.spectral_norm > 0
    assert layer.status == network.status == OperatorStatus.NOT_SEEN.reason
    assert len(records["jacobian"]) == 0
