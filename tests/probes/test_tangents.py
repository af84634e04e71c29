"""Tangent kernels of layers against autograd: each sample by itself, each parameter's gradient."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jaynes_callbacks.probes import tangents
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.probes.tangents import UnfitError, layers_of, tangent_kernels
from jaynes_callbacks.statistics.alignment import AlignmentStatus

ALL = Selection.of(("weight", "iota"), "*", (), 0)
Build = Callable[[], nn.Module]


def _measured(model: nn.Module, x: Tensor, **options: Any) -> tangents.Tangents:
    layers, _ = layers_of(model, ALL)
    return tangent_kernels(model, layers, lambda called: called(x), len(x), **options)


def _by_autograd(model: nn.Module, x: Tensor, layer: str, batch_dim: int = 0) -> Tensor:
    """Differentiate each output of each sample with respect to a layer's trained parameters."""
    model.eval()
    parameters = [each for each in model.get_submodule(layer).parameters() if each.requires_grad]
    rows = []
    for n in range(x.shape[batch_dim]):
        outputs = model(x.narrow(batch_dim, n, 1)).flatten()
        gradients = [
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(
                        parameters,
                        torch.autograd.grad(each, parameters, retain_graph=True, allow_unused=True),
                        strict=True,
                    )
                ]
            )
            for each in outputs
        ]
        rows.append(torch.stack(gradients))
    jacobian = torch.stack(rows)
    return torch.einsum("ncp,mcp->nm", jacobian, jacobian)


def _seeded(build: Build) -> nn.Module:
    torch.manual_seed(3)
    model = build().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


class Attention(nn.Module):
    """A block of a transformer: the same layer at all positions, and an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.up, self.act, self.out = nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        weights = (self.query(x) @ self.key(x).mT).softmax(-1)
        return self.out(self.act(self.up(weights @ self.value(x)))).mean(1)


class Repeated(nn.Module):
    """One layer, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.cell(x))
        return self.out(x)


class TimeFirst(nn.Module):
    """A layer on [time, samples, features]."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.inner(x.transpose(0, 1))).sum(0))


class Windows(nn.Module):
    """Several rows of each sample as rows of a batch, for a convolution and for a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.out = nn.Conv1d(1, 3, 2), nn.Linear(3, 3), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.conv(x.reshape(-1, 1, 2)).flatten(1)
        return self.out(self.mix(rows.relu()).reshape(len(x), -1).relu())


class Checkpointed(nn.Module):
    """A part of the forward is repeated in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        part: Any = checkpoint(lambda y: self.first(y).tanh(), x, use_reentrant=False)
        return self.last(part)


def _dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 7, bias=False), nn.Tanh(),
        nn.Dropout(0.5), nn.Linear(7, 3),
    )  # fmt: skip


def _images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, (2, 3), groups=2, dilation=(1, 2), padding="same", padding_mode="circular"),
        nn.ReLU(), nn.Conv2d(6, 6, 2, groups=6, bias=False), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def _built_images() -> nn.Module:
    model = _images()
    model.eval()(torch.zeros(2, 2, 8, 8))
    return model


def _of_other_dimensions() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), nn.Tanh(),
        nn.Unflatten(2, (2, 5, 1)),
        nn.Conv3d(3, 4, (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 0)), nn.Flatten(),
        nn.Linear(24, 2),
    )  # fmt: skip


def _partly_trained() -> nn.Module:
    model = _dense()
    model[0].weight.requires_grad_(False)
    model[5].bias.requires_grad_(False)
    return model


def _parametrized() -> nn.Module:
    model = _dense()
    nn.utils.parametrizations.orthogonal(model[2])
    return model


MODELS: dict[str, tuple[Build, tuple[int, ...], list[str]]] = {
    "dense": (_dense, (6,), ["0", "2", "5"]),
    "images": (_built_images, (2, 8, 8), ["0", "3", "5", "7"]),
    "sequences and volumes": (_of_other_dimensions, (2, 8), ["0", "3", "5"]),
    "attention": (Attention, (7, 4), ["embed", "query", "key", "value", "up", "out"]),
    "repeated": (Repeated, (5,), ["cell", "out"]),
    "time first": (TimeFirst, (7, 4), ["inner", "out"]),
    "windows": (Windows, (8,), ["conv", "mix", "out"]),
    "checkpointed": (Checkpointed, (6,), ["first", "last"]),
    "partly trained": (_partly_trained, (6,), ["0", "2", "5"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_kernels_are_those_of_autograd(name: str, generator: torch.Generator) -> None:
    build, shape, expected = MODELS[name]
    model = _seeded(build)
    x = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    found = _measured(model, x)
    assert sorted(found.layers) == sorted(expected)
    assert found.skipped == []
    assert found.leaks.tolist() == [0.0] * len(expected)
    for layer, kernel in zip(found.layers, found.kernels, strict=True):
        by_autograd = _by_autograd(model, x, layer)
        scale = by_autograd.abs().max()
        # The worst of these layers rounds to 4e-16.
        assert (kernel - by_autograd).abs().max() / scale < 1e-15, layer


def test_layers_are_in_the_order_of_their_calls() -> None:
    model = Attention()
    assert _measured(model, torch.randn(3, 7, 4)).layers == [
        "embed", "query", "key", "value", "up", "out",
    ]  # fmt: skip
    reordered = nn.ModuleDict({"late": nn.Linear(4, 2), "early": nn.Linear(4, 4)})
    reordered.forward = lambda x: reordered["late"](reordered["early"](x))  # type: ignore[method-assign]
    assert _measured(reordered, torch.randn(3, 4)).layers == ["early", "late"]


def test_a_computed_weight_is_that_which_multiplies(generator: torch.Generator) -> None:
    model = _seeded(_parametrized)
    plain = _seeded(_dense)
    with torch.no_grad():
        for own, given in ((0, 0), (2, 2), (5, 5)):
            plain[own].weight.copy_(model[given].weight)
            if plain[own].bias is not None:
                plain[own].bias.copy_(model[given].bias)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(_measured(model, x).kernels, _measured(plain, x).kernels)


def test_a_layer_whose_weight_lies_the_other_way_round(generator: torch.Generator) -> None:
    hub = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    model = nn.Sequential(hub.Conv1D(6, 4), nn.Tanh(), nn.Linear(6, 2)).double()
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    found = _measured(model, x)
    torch.testing.assert_close(found.kernels[0], _by_autograd(model, x, "0"))


def test_single_precision_and_half_precision(generator: torch.Generator) -> None:
    x = torch.randn(6, 6, generator=generator)
    exact = _measured(_seeded(_dense), x.double()).kernels
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        found = _measured(_seeded(_dense).to(dtype), x.to(dtype)).kernels
        assert (found - exact).abs().max() / exact.abs().max() < error


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_products_and_patches_that_are_kept_or_not_give_the_same(
    limit: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(5, 2, 8, 8, generator=generator, dtype=torch.float64)
    expected = _measured(_seeded(_built_images), x).kernels
    monkeypatch.setattr(tangents, "_GRAM", limit)
    monkeypatch.setattr(tangents, "_PATCHED", limit)
    torch.testing.assert_close(_measured(_seeded(_built_images), x).kernels, expected)


# Samples that mix, layers and outputs that do not fit ------------------------------------------


class Mixing(nn.Module):
    """Adds the mean over the samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0)


def test_samples_that_mix_are_noticed() -> None:
    model = nn.Sequential(nn.Linear(4, 5), Mixing(), nn.Linear(5, 3))
    found = _measured(model, torch.randn(6, 4))
    assert found.leaks[0] > 0.01
    assert found.leaks[1] == 0
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False))
    assert _measured(model, torch.randn(6, 4)).leaks[0] > 1e-4


class Odd(nn.Module):
    """Layers that are not called, called without gradients, and called on each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.fixed, self.single = (nn.Linear(4, 4) for _ in range(3))
        self.conv, self.shaped = nn.Conv1d(1, 1, 1), nn.Linear(1, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x + self.fixed(x)
        x = torch.stack([self.single(each) for each in x])
        x = x + torch.stack([self.conv(each[None])[0] for each in x])
        return self.last(x + self.shaped(x.flatten()[:7, None]).sum())


def test_layers_that_cannot_be_measured_are_named() -> None:
    found = _measured(Odd(), torch.randn(3, 4))
    assert found.layers == ["last"]
    assert dict(found.skipped) == {
        "idle": "not called as a module in the forward",
        "fixed": "called without gradients",
        "single": "the samples are along no dimension of its output that is known",
        "conv": "applied to each sample by itself",
        "shaped": "the samples are along no dimension of its output that is known",
    }


class Own(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def test_which_modules_are_layers() -> None:
    model = nn.ModuleDict(
        {
            "dense": nn.Linear(3, 3),
            "conv": nn.Conv2d(1, 1, 1),
            "own": Own(3, 3),
            "embedding": nn.Embedding(3, 3),
            "back": nn.ConvTranspose2d(1, 1, 1),
            "norm": nn.LayerNorm(3),
            "frozen": nn.Linear(3, 3).requires_grad_(False),
            "left": nn.Linear(3, 3),
        }
    )
    selection = Selection.of(("weight",), "*", "left", 0)
    layers, skipped = layers_of(model, selection)
    assert [each.name for each in layers] == ["dense", "conv"]
    assert dict(skipped) == {
        "own": "has a forward of its own",
        "embedding": "tangent kernels are of linear and convolutional layers",
        "back": "tangent kernels are of linear and convolutional layers",
        "frozen": "frozen: its parameters are not trained",
        "left": "excluded by pattern",
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: y,
        lambda y: (y, None),
        lambda y: [y.detach() > 0, y] and {"loss": None, "logits": y},
        lambda y: {"hidden": y.exp(), "logits": (y, y)},
        lambda y: y[:, :, None, None],
    ],
)
def test_outputs_are_found(wrap: Callable[[Tensor], Any]) -> None:
    model, x = _seeded(_dense), torch.randn(4, 6, dtype=torch.float64)
    layers, _ = layers_of(model, ALL)
    found = tangent_kernels(model, layers, lambda called: wrap(called(x)), 4)
    torch.testing.assert_close(found.kernels, _measured(model, x).kernels)
    assert found.outputs == 3


@pytest.mark.parametrize(
    ("wrap", "status", "message"),
    [
        (lambda y: y[:3], AlignmentStatus.PLACES, r"\(3, 3\)"),
        (lambda y: y[:, None].expand(-1, 5, -1), AlignmentStatus.PLACES, r"\(4, 5, 3\)"),
        (lambda y: y.sum(), AlignmentStatus.PLACES, r"\(\)"),
        (lambda y: y.detach(), AlignmentStatus.FAILED, "have no gradients"),
        (lambda y: y.argmax(-1), AlignmentStatus.FAILED, "returned no outputs"),
        (lambda y: SimpleNamespace(y=y), AlignmentStatus.FAILED, "SimpleNamespace"),
    ],
)
def test_outputs_that_do_not_fit(
    wrap: Callable[[Tensor], Any], status: AlignmentStatus, message: str
) -> None:
    model, x = _seeded(_dense), torch.randn(4, 6, dtype=torch.float64)
    layers, _ = layers_of(model, ALL)
    with pytest.raises(UnfitError, match=message) as caught:
        tangent_kernels(model, layers, lambda called: wrap(called(x)), 4)
    assert caught.value.status is status


def test_a_lazy_model_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(UnfitError, match="not initialised yet"):
        _measured(model, torch.randn(2, 4))
    assert isinstance(model[0], nn.LazyLinear)


def test_many_outputs_are_projected(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 120)).double()
    x = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    exact, found = _measured(model, x, most_outputs=120), _measured(model, x)
    assert (exact.outputs, found.outputs) == (120, 32)
    errors = (found.kernels - exact.kernels).norm(dim=(1, 2)) / exact.kernels.norm(dim=(1, 2))
    assert 0.005 < errors[0] < 0.25
    again = _measured(model, x)
    assert torch.equal(again.kernels, found.kernels)


# Nothing else changes -----------------------------------------------------------------------------


def _trace(model: nn.Module) -> Sequence[Any]:
    return [
        [each.clone() for each in model.state_dict().values()],
        [each.grad for each in model.parameters()],
        [each.training for each in model.modules()],
        [len(each._forward_hooks) for each in model.modules()],
        torch.get_rng_state(),
    ]


def test_nothing_of_the_model_changes() -> None:
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(6, 2)
    )
    model[1].eval()
    heard: list[Any] = []
    model[0].register_forward_hook(lambda *args: heard.append(args))
    before = _trace(model)
    with torch.no_grad():
        _measured(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(_trace(model), before, rtol=0, atol=0)
    assert heard == []
