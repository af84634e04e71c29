"""Accuracy under damage: exact on nets made by hand, and the model is as before."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.result import Result
from experiments.robustness import CORRUPTIONS, DAMAGE, Robustness, pruned, robustness, rounded
from experiments.run import run

Batch = tuple[Tensor, Tensor]


def linear(weights: list[list[float]]) -> nn.Module:
    """A net whose logits are these sums of a two-pixel image."""
    layer = nn.Linear(2, len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer)


def images(*pixels: list[float]) -> Tensor:
    return torch.tensor(pixels).view(-1, 1, 1, 2)


@pytest.fixture
def easy() -> tuple[nn.Module, list[Batch]]:
    """Two classes that differ in the brightness of all pixels, and a trained net with dropout."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    pixels = (2.0 * labels - 1)[:, None, None, None] + 0.3 * torch.randn(
        400, 1, 6, 6, generator=generator
    )
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(32, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(pixels), labels).backward()
        optimizer.step()
    return net, [(pixels[:250], labels[:250]), (pixels[250:], labels[250:])]


# Exact ----------------------------------------------------------------------------------------


def test_pruning_takes_the_smallest_of_all_layers_together() -> None:
    weights = [torch.tensor([[3.0, -0.1], [0.2, -4.0]]), torch.tensor([[0.05, 9.0]])]
    first, second = pruned(weights, 0.5)
    assert first.tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert second.tolist() == [[0.0, 9.0]]
    assert weights[0].tolist() == torch.tensor([[3.0, -0.1], [0.2, -4.0]]).tolist()


@pytest.mark.parametrize("portion", [0.0, 0.1, 0.5, 0.99])
def test_pruning_takes_exactly_its_share(portion: float) -> None:
    weights = [torch.ones(10, 7), torch.ones(30, 1)]
    zeros = sum(int((each == 0).sum()) for each in pruned(weights, portion))
    assert zeros == round(portion * 100)


def test_rounding_has_the_integers_of_its_bits() -> None:
    (of_two,) = rounded([torch.tensor([[-3.0, -1.6, -1.4, 1.4, 1.6, 2.0]])], 2)
    assert of_two.tolist() == [[-3.0, -3.0, 0.0, 0.0, 3.0, 3.0]]
    (of_four,) = rounded([torch.linspace(-1.4, 1.4, 999)[None]], 4)
    assert torch.allclose(of_four.unique(), torch.arange(-7, 8) * 0.2)
    torch.testing.assert_close(rounded([torch.zeros(2, 2)], 4)[0], torch.zeros(2, 2))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_moves_a_weight_by_half_a_step_at_most(bits: int) -> None:
    weights = torch.randn(50, 50, generator=torch.Generator().manual_seed(1))
    (result,) = rounded([weights], bits)
    step = weights.abs().max() / (2 ** (bits - 1) - 1)
    assert (result - weights).abs().max() <= step / 2 * (1 + 1e-5)


def test_a_net_made_by_hand() -> None:
    """Class 0 needs the weight of 0.1, which pruning takes first and two bits round to zero."""
    net = linear([[0.1, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    batch = (images([1.0, 0.0], [2.0, 0.05], [0.0, 1.0], [-1.0, -1.0]), torch.tensor([0, 0, 1, 2]))
    scores = robustness(net, [batch], damage={"pruned": (0.0, 0.5), "bits": (8, 2)})
    # Without it the logits of the first image are equal, and argmax takes the first of them.
    assert scores == {
        "plain": 1.0, "pruned_0": 1.0, "pruned_0.5": 0.75, "bits_8": 1.0, "bits_2": 0.75,
    }  # fmt: skip


def test_accuracy_is_over_images_not_batches() -> None:
    net = linear([[1.0, 0.0], [0.0, 1.0]])
    batches = [
        (images([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]), torch.tensor([0, 0, 0])),
        (images([1.0, 0.0]), torch.tensor([1])),
    ]
    assert robustness(net, batches, damage={}) == {"plain": 0.75}


# The damage to images --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_no_damage_is_none(name: str) -> None:
    before = torch.randn(5, 3, 8, 8)
    after = CORRUPTIONS[name](before, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(after, before)


def test_each_damage_is_as_strong_as_it_says() -> None:
    plain = torch.full((400, 3, 10, 10), 0.5)

    def of(name: str, strength: float) -> Tensor:
        return CORRUPTIONS[name](plain, strength, torch.Generator().manual_seed(0))

    assert (of("noise", 0.7) - plain).std().item() == pytest.approx(0.7, rel=0.01)
    changed = of("impulse", 0.3) != plain
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert set(of("impulse", 0.3).unique().tolist()) == {-2.0, 0.5, 2.0}
    hidden = of("occlusion", 0.4) == 0
    assert (hidden.flatten(1).sum(1) == 3 * 16).all()
    assert hidden.float().mean(0).min() > 0
    ramp = torch.linspace(-1, 3, 12).view(1, 1, 3, 4)
    shrunk = CORRUPTIONS["contrast"](ramp, 0.75, torch.Generator())
    assert shrunk.mean().item() == pytest.approx(ramp.mean().item())
    assert shrunk.std().item() == pytest.approx(ramp.std().item() / 4)


def test_damage_lowers_the_accuracy_the_stronger_it_is(
    easy: tuple[nn.Module, list[Batch]],
) -> None:
    net, batches = easy
    strengths = {
        "noise": (0.0, 5.0, 50.0), "occlusion": (0.0, 0.5, 0.9), "impulse": (0.0, 0.8, 0.99),
        "pruned": (0.0, 0.9, 0.995), "bits": (16, 2),
    }  # fmt: skip
    scores = robustness(net, batches, damage=strengths)
    assert scores["plain"] == 1.0
    for name, each in strengths.items():
        course = [scores[f"{name}_{strength:g}"] for strength in each]
        assert course == sorted(course, reverse=True), name
        assert course[0] == 1.0
    assert scores["noise_50"] < 0.8


def test_damage_is_its_seed(easy: tuple[nn.Module, list[Batch]]) -> None:
    net, batches = easy
    first, second, other = (
        robustness(net, batches, damage={"noise": (20.0,)}, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_the_model_and_the_random_state_are_as_before(
    easy: tuple[nn.Module, list[Batch]],
) -> None:
    net, batches = easy
    net.train()
    net[4].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    loader: Any = DataLoader(batches, batch_size=None)
    robustness(net, loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [each.training for each in net] == [True, True, True, True, False, True]
    assert all(each.grad_fn is None and each.requires_grad for each in net.parameters())


def test_the_model_is_as_before_after_a_failure(easy: tuple[nn.Module, list[Batch]]) -> None:
    net, batches = easy
    before = net[1].weight.detach().clone()  # type: ignore[operator, union-attr]
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > len(batches):
            raise RuntimeError("once the weights are replaced")

    handle = net.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="once the weights"):
        robustness(net, batches, damage={"pruned": (0.9,)})
    handle.remove()
    assert torch.equal(net[1].weight, before)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"fog": (0.1,)}, "there is no damage 'fog'; known are noise"),
        ({"pruned": (1.0,)}, "pruned must be a number of at least 0 and below 1"),
        ({"bits": (1,)}, "bits must be at least 2, got 1"),
        ({"bits": (4.5,)}, "bits must be a positive integer"),
        ({"noise": (-1.0,)}, "noise must be a number above 0"),
        ({"noise": (math.inf,)}, "noise must be a number above 0"),
    ],
)
def test_wrong_damage_is_refused(damage: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Robustness(damage=damage)
    with pytest.raises(ValueError, match=message):
        robustness(linear([[1.0, 0.0]]), [], damage=damage)


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image, got none"):
        robustness(linear([[1.0, 0.0]]), [])


# In a run --------------------------------------------------------------------------------------


def test_a_run_logs_it_into_its_result(
    compose: Callable[..., DictConfig], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = Robustness.on_test_epoch_end

    def spy(self: Robustness, trainer: L.Trainer, module: L.LightningModule) -> None:
        before = {name: value.clone() for name, value in module.state_dict().items()}
        original(self, trainer, module)
        seen.append(
            all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        )

    monkeypatch.setattr(Robustness, "on_test_epoch_end", spy)
    run(
        compose(
            "callbacks=robustness",
            "logger=none",
            "trainer.max_epochs=1",
            "model.net.width=16",
            "+trainer.enable_progress_bar=false",
            "+trainer.enable_checkpointing=false",
        )
    )
    metrics = Result.read(tmp_path).metrics
    assert seen == [True]
    expected = {f"robust/{name}_{each:g}" for name, all_ in DAMAGE.items() for each in all_}
    assert {name for name in metrics if name.startswith("robust/")} == {"robust/plain", *expected}
    assert metrics["robust/plain"] == pytest.approx(metrics["test/accuracy"], abs=1e-6)


def test_the_number_of_images_is_bounded() -> None:
    batches: Any = [(torch.zeros(4, 1, 2, 2), torch.zeros(4)) for _ in range(9)]
    trainer: Any = type("Trainer", (), {"test_dataloaders": batches})
    module: Any = L.LightningModule()
    assert len(list(Robustness(images=9)._batches(trainer, module))) == 3
    assert len(list(Robustness(images=8)._batches(trainer, module))) == 2


def test_the_configuration_holds_the_defaults(compose: Callable[..., DictConfig]) -> None:
    chosen = compose("callbacks=robustness").callbacks.robustness
    assert {name: tuple(each) for name, each in chosen.damage.items()} == dict(DAMAGE)
