"""Extra forwards leave no trace: random states, buffers, modes, hooks, graphs of the training."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.undisturbed import plain, undisturbed


class Restless(nn.Module):
    """Changes everything it can in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("shared", torch.ones(4))
        self.other = nn.Module()
        self.other.register_buffer("shared", self.shared)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + 1
        self.shared.mul_(2)
        self.last = x
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return self.norm(self.layer(x)) * self.other.shared * noise


@pytest.fixture
def model() -> Restless:
    torch.manual_seed(0)
    return Restless()


class Marked(TorchFunctionMode):
    """Somebody else's mode."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Marked.calls += 1
        return func(*args, **(kwargs or {}))


def _states() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # type: ignore[index]  # noqa: NPY002


def test_random_states_buffers_and_attributes_are_as_before(model: Restless) -> None:
    buffers = {name: (id(each), each.clone()) for name, each in model.named_buffers()}
    versions = [each._version for each in model.buffers()]
    before = _states()
    with undisturbed(model) as inside:
        assert inside is model
        model.eval()
        model(torch.ones(3, 4))
        # Modules that share a buffer share its copy.
        assert model.other.shared.tolist() == [2.0] * 4
        assert (model.calls, model.seen.item()) == (1, 1)
    assert _states() == before
    assert [each._version for each in model.buffers()] == versions
    for name, each in model.named_buffers():
        assert id(each) == buffers[name][0]
        torch.testing.assert_close(each, buffers[name][1], rtol=0, atol=0)
    assert model.calls == 0
    assert model.training
    assert model.norm.training
    assert not hasattr(model, "last")


def test_a_graph_of_the_training_stays_valid(model: Restless) -> None:
    model.norm.eval()
    # The graph has saved running_mean and running_var.
    loss = model(torch.randn(5, 4)).sum()
    with undisturbed(model):
        model.train()
        out = model(torch.randn(5, 4))
        torch.autograd.grad(out.sum(), model.layer.weight)
    assert all(each.grad is None for each in model.parameters())
    loss.backward()
    assert model.layer.weight.grad is not None


class Reversible(torch.autograd.Function):
    """Calls ``backward`` in its backward, as reversible networks do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        with torch.no_grad():
            return layer(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.backward(ctx.layer(x), gradient)
        return x.grad, None


def test_gradients_of_the_training_stay() -> None:
    layer = nn.Linear(3, 3)
    layer(torch.ones(2, 3)).sum().backward()
    gradient = layer.weight.grad
    assert gradient is not None
    before = gradient.clone()
    with undisturbed(layer):
        x = torch.ones(2, 3, requires_grad=True)
        out = Reversible.apply(x, layer)
        torch.autograd.grad(out.sum(), x)  # type: ignore[union-attr]
        assert layer.weight.grad is not None
    assert layer.weight.grad is gradient
    torch.testing.assert_close(gradient, before, rtol=0, atol=0)


class Scaling(nn.Module):
    """Keeps tensors in attributes that are no buffers, and writes them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale, self.seen, self.sums = torch.ones(4), [torch.zeros(2)], {"a": torch.zeros(1)}

    def forward(self, x: Tensor) -> Tensor:
        self.scale *= 0.9
        self.seen[0] += 1
        self.seen.append(x.detach())
        self.sums["a"] += 1
        return self.layer(x) * self.scale


def test_tensors_in_attributes_are_not_written_to() -> None:
    model = Scaling()
    loss = model(torch.ones(2, 4)).sum()
    scale = model.scale.clone()
    with undisturbed(model):
        model(torch.ones(2, 4))
    assert torch.equal(model.scale, scale)
    assert (len(model.seen), model.seen[0].tolist(), model.sums["a"].item()) == (2, [1, 1], 1)
    # The graph has saved `scale`, which may not have been written to since.
    loss.backward()


def test_lazy_modules_are_not_made() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="the model has lazy modules"), undisturbed(model):
        pass
    assert model(torch.ones(2, 5)).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripted_modules_are_left_as_they_were() -> None:
    model = nn.Sequential(torch.jit.script(nn.BatchNorm1d(3)), nn.Linear(3, 3))
    before = [each.clone() for each in model.buffers()]
    with undisturbed(model):
        model(torch.randn(5, 3))
    for each, was in zip(model.buffers(), before, strict=True):
        assert torch.equal(each, was)


def test_hooks_of_others_do_not_run_and_torchs_own_do(model: Restless) -> None:
    calls: list[str] = []
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model.layer)
    model.layer.register_forward_hook(lambda *_: calls.append("forward"))
    model.register_forward_pre_hook(lambda *_, **__: calls.append("pre"), with_kwargs=True)
    everywhere = nn.modules.module.register_module_forward_hook(lambda *_: calls.append("all"))
    try:
        with undisturbed(model), torch.no_grad():
            model.layer.weight_g.mul_(2)
            before = model.layer.weight
            model(torch.ones(2, 4))
            # The hook of weight_norm has computed the weight anew.
            assert torch.allclose(model.layer.weight, 2 * before)
            model.layer.weight_g.div_(2)
        assert calls == []
        model(torch.ones(2, 4))
    finally:
        everywhere.remove()
    # Of the model, its layer and its norm.
    assert sorted(calls) == ["all", "all", "all", "forward", "pre"]


def test_modes_of_the_run_do_not_reach_in(model: Restless) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), undisturbed(model):
        assert model(torch.ones(2, 4)).requires_grad
        assert model.layer(torch.ones(2, 4)).dtype == torch.float32
    with pytest.raises(RuntimeError, match="mat1 and mat2"), undisturbed(model):
        model(torch.ones(2, 5))
    assert model.calls == 0


def test_compiled_models_are_called_without_their_graphs() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        seen.append(1)
        return graph.forward

    model[0].forward = torch.compile(model[0].forward, backend=backend)
    with undisturbed(model):
        model(torch.ones(2, 3))
    assert seen == []
    model(torch.ones(2, 3))
    assert seen == [1]


def test_watches_of_functions_do_not_see_extra_forwards() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    watch = ActivationWatch(model, lambda name: True, 1000)
    watch.attach()
    watch.open()
    with Marked(), undisturbed(model):
        torch.relu(model(torch.ones(2, 3)))
    assert Marked.calls > 0
    assert watch.ledger.streams == []
    model(torch.ones(2, 3))
    watch.detach()
    assert [stream.name for stream in watch.ledger.streams] == ["1"]
    assert _get_current_function_mode_stack() == []


def test_what_wraps_a_model_is_taken_off(model: Restless) -> None:
    assert plain(model) is model
