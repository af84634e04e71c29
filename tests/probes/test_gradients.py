"""Gradients and updates as a watch reads them, against plain arithmetic on the same tensors."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks.probes.gradients import GRADIENT, UPDATE, GradientWatch
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.records.stream import Stream


def _watch(model: nn.Module, *, exclude: Sequence[str] = (), min_size: int = 1) -> GradientWatch:
    return GradientWatch(model, Selection.of("weight", "*", exclude, min_size))


def _all(model: nn.Module) -> list[nn.Parameter]:
    return list(model.parameters())


class Plain(nn.Module):
    """Two layers, and a table whose gradient is dense or sparse."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(6, 4, sparse=sparse)
        self.first = nn.Linear(4, 5)
        self.last = nn.Linear(5, 3)

    def forward(self) -> Tensor:
        hidden = self.first(self.table(torch.tensor([0, 1, 1, 4]))).tanh()
        return self.last(hidden).square().mean()


def _step(model: nn.Module) -> torch.optim.Optimizer:
    """Give every parameter its gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model().backward()
    return optimizer


def test_gradients_are_the_parameters_own_and_updates_the_differences() -> None:
    model = Plain()
    watch, optimizer = _watch(model), _step(model)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    found = watch.before_step(_all(model))
    names = ["table.weight", "first.weight", "last.weight"]
    assert [each.stream.key for each in found] == [(GRADIENT, name) for name in names]
    for gradient in found:
        # The gradient itself, not a copy: it is counted at once.
        own = model.get_parameter(gradient.stream.name).grad
        assert own is not None
        assert gradient.values.data_ptr() == own.data_ptr()
        assert not gradient.sharded
    optimizer.step()
    updates = list(watch.after_step())
    assert [each.stream.key for each in updates] == [(UPDATE, name) for name in names]
    for update in updates:
        name = update.stream.name
        now = model.get_parameter(name).detach()
        assert torch.equal(update.values, now - before[name])
        expected = [(now - before[name]).double().norm() ** 2, before[name].double().norm() ** 2]
        torch.testing.assert_close(update.squares, torch.stack(expected), rtol=1e-12, atol=0)
    assert not watch.copied
    assert list(watch.after_step()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_of_every_precision(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 8, bias=False).to(dtype)
    layer.weight.grad = torch.ones_like(layer.weight)
    watch, before = _watch(layer), layer.weight.detach().clone()
    (gradient,) = watch.before_step(_all(layer))
    assert gradient.values.dtype == dtype
    with torch.no_grad():
        layer.weight.mul_(0.875)
    (update,) = watch.after_step()
    assert torch.equal(update.values, layer.weight.detach() - before)
    assert update.squares.dtype == torch.float64


def test_squares_of_small_values_do_not_underflow() -> None:
    layer = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0**-100)
    layer.weight.grad = torch.ones_like(layer.weight)
    watch = _watch(layer)
    watch.before_step(_all(layer))
    with torch.no_grad():
        layer.weight.mul_(1.5)
    (update,) = watch.after_step()
    expected = [64 * 2.0**-202, 64 * 2.0**-200]
    assert update.squares.tolist() == pytest.approx(expected, rel=1e-12, abs=0)


def test_strides_are_kept() -> None:
    layer = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer.weight.grad = torch.ones_like(layer.weight)
    watch, before = _watch(layer), layer.weight.detach().clone()
    watch.before_step(_all(layer))
    with torch.no_grad():
        layer.weight.add_(1.0)
    (update,) = watch.after_step()
    assert update.values.stride() == layer.weight.stride()
    assert torch.equal(update.values, layer.weight.detach() - before)


# What is watched and what is not ----------------------------------------------------------------


def test_a_tied_parameter_is_watched_once_with_its_other_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    model[0].weight.grad = torch.ones(4, 4)
    watch = _watch(model)
    (gradient,) = watch.before_step(_all(model))
    assert gradient.stream == Stream(GRADIENT, "0.weight", (4, 4), ("2.weight",), "g")
    (update,) = watch.after_step()
    assert update.stream == Stream(UPDATE, "0.weight", (4, 4), ("2.weight",), "Δw")
    assert watch.coverage.watched == (gradient.stream, update.stream)


def test_each_that_is_left_out_is_named_with_the_reason() -> None:
    model = Plain(sparse=True)
    model.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)
    model.unused = nn.Linear(4, 4, bias=False)
    model.excluded = nn.Linear(4, 4, bias=False)
    model.small = nn.Linear(2, 2, bias=False)
    model.lazy = nn.LazyLinear(4, bias=False)
    model.whole = nn.Parameter(torch.ones(4, 4, dtype=torch.complex64))
    watch = _watch(model, exclude=["excluded.*"], min_size=12)
    before_any_step = {each.name for each in watch.coverage.watched}
    assert before_any_step == {"table.weight", "first.weight", "last.weight", "unused.weight"}
    model().backward()
    found = watch.before_step([each for each in model.parameters() if each is not model.lazy])
    assert [each.stream.name for each in found] == ["first.weight", "last.weight"]
    coverage = watch.coverage
    keys = [each.key for each in coverage.watched]
    names = ["first.weight", "last.weight"]
    assert keys == [(kind, name) for kind in (GRADIENT, UPDATE) for name in names]
    assert dict(coverage.skipped) == {
        "table.weight": "with a gradient that is sparse or nested, without one value per place",
        "first.bias": "fewer than 2 dimensions",
        "last.bias": "fewer than 2 dimensions",
        "frozen.weight": "frozen, without gradients",
        "unused.weight": "without a gradient when last recorded",
        "excluded.weight": "excluded by pattern",
        "small.weight": "fewer than min_size=12 elements",
        "lazy.weight": "not initialised yet (lazy)",
        "whole": "of dtype torch.complex64, not real floating-point",
    }
    # Nothing is copied of what is left out.
    assert watch.copied == {"first.weight", "last.weight"}
    assert {each.stream.name for each in watch.after_step()} == {"first.weight", "last.weight"}


def test_a_parameter_comes_back_with_its_gradient() -> None:
    model = Plain()
    watch = _watch(model)
    assert watch.before_step(_all(model)) == []
    assert watch.coverage.watched == ()
    _step(model)
    assert len(watch.before_step(_all(model))) == 3
    assert len(watch.coverage.watched) == 6


def test_only_parameters_that_are_about_to_be_updated() -> None:
    model = Plain()
    _step(model)
    watch = _watch(model)
    assert [each.stream.name for each in watch.before_step([model.last.weight])] == ["last.weight"]
    assert watch.copied == {"last.weight"}
    assert [each.stream.name for each in watch.before_step([model.first.weight])] == [
        "first.weight"
    ]
    assert watch.copied == {"last.weight", "first.weight"}
    # Shown again without a gradient, it has no update either.
    model.last.weight.grad = None
    assert watch.before_step([model.last.weight]) == []
    assert watch.copied == {"first.weight"}


# What happens between a step and its record -----------------------------------------------------


def _exchange(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.zeros(2, 2))


def _resize(layer: nn.Linear) -> None:
    layer.weight.data = torch.zeros(9, 9)


def _convert(layer: nn.Linear) -> None:
    layer.to(torch.float64)


def _empty(layer: nn.Linear) -> None:
    layer.weight.data = torch.zeros(0, 8)


def _to_meta(layer: nn.Linear) -> None:
    layer.to("meta")


def _delete(layer: nn.Linear) -> None:
    del layer.weight


@pytest.mark.parametrize(
    ("change", "has_update"),
    [(each, True) for each in (_exchange, _delete, _to_meta)]
    + [(each, False) for each in (_resize, _convert, _empty)],
)
def test_a_parameter_that_is_changed_meanwhile_is_no_crash(
    change: Callable[[nn.Linear], None], has_update: bool
) -> None:
    layer = nn.Linear(8, 8, bias=False)
    layer.weight.grad = torch.ones(8, 8)
    watch, shown = _watch(layer), layer.weight
    before = shown.detach().clone()
    watch.before_step(_all(layer))
    torch.optim.SGD([shown], lr=0.5).step()
    after = shown.detach().clone()
    change(layer)
    updates = list(watch.after_step())
    # Of an exchanged parameter the update is what the optimizer did to the one before.
    assert [torch.equal(each.values, after - before) for each in updates] == [True] * has_update
    assert not watch.copied
    _ = watch.coverage


def test_what_is_forgotten_has_no_update() -> None:
    model = Plain()
    _step(model)
    watch = _watch(model)
    watch.before_step(_all(model))
    watch.forget()
    assert list(watch.after_step()) == []


def test_neither_weights_nor_gradients_are_changed() -> None:
    model, twin = Plain(), Plain()
    ours, theirs = _step(model), _step(twin)
    watch = _watch(model)
    watch.before_step(_all(model))
    for mine, other in zip(_all(model), _all(twin), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]
        assert torch.equal(mine, other)
    ours.step()
    theirs.step()
    list(watch.after_step())
    for mine, other in zip(_all(model), _all(twin), strict=True):
        assert torch.equal(mine, other)
        assert mine.requires_grad
