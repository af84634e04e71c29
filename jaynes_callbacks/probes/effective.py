"""Effective weights: those that a module computes from its parameters at every forward.

Under weight norm, spectral norm, pruning or any `torch.nn.utils.parametrize` the parameters are not
what multiplies the input.  The theory speaks of the connections, so the computed weight is the
stream, and the parameters behind it are covered by it.
"""

import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["EffectiveWeight", "effective_weights"]


class EffectiveWeight(NamedTuple):
    """A weight that is computed from parameters.

    Attributes:
        name: where the module keeps it, e.g. ``conv.weight``.
        parameters: names of the parameters behind it.
        value: computes the weight, and leaves the model's buffers, attributes and training flags
            and the random states of torch, numpy and Python as they were.  Equal for the same
            weight.
        recipe: the modules that compute the weight and the kinds of tensors that they start from.
            As long as it stays equal, so do the weight's shape, dtype and placement.
    """

    name: str
    parameters: tuple[str, ...]
    value: Callable[[], Tensor]
    recipe: tuple[Hashable, ...]


def effective_weights(model: nn.Module) -> Iterator[EffectiveWeight]:
    """Find all of a model, in the order of its modules; those of a shared module by each name."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        yield from _parametrized(module, dot)
        yield from _hooked(module, dot)


def _parametrized(module: nn.Module, dot: str) -> Iterator[EffectiveWeight]:
    # Not by `parametrize.is_parametrized`, which runs a `__getattr__` of the module's own.
    lists = dict(module.named_children()).get("parametrizations")
    if not isinstance(lists, nn.ModuleDict):
        return
    for name, functions in lists.items():
        inner = (inner for inner, _ in functions.named_parameters())
        behind = tuple(f"{dot}parametrizations.{name}.{parameter}" for parameter in inner)
        kinds = map(_kind, (*functions.parameters(), *functions.buffers()))
        recipe = (*functions.modules(), *kinds)
        yield EffectiveWeight(dot + name, behind, _Parametrization(functions), recipe)


def _hooked(module: nn.Module, dot: str) -> Iterator[EffectiveWeight]:
    """Find those of forward pre-hooks: of the older weight and spectral norm, and of pruning."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            name = hook.name
            behind = [f"{name}_g", f"{name}_v"]
        elif isinstance(hook, SpectralNorm):
            name = hook.name
            behind = [f"{name}_orig"]
        elif isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            behind = [f"{name}_orig"]
        else:
            continue
        yield EffectiveWeight(
            dot + name,
            tuple(dot + parameter for parameter in behind),
            _Hook(hook, module),
            (hook, *(_kind(getattr(module, parameter)) for parameter in behind)),
        )


def _kind(tensor: Any) -> Hashable:
    """Describe what a tensor computed from this one may depend on, besides the values."""
    if is_lazy(tensor):
        return type(tensor)
    placements = getattr(tensor, "placements", None)
    return type(tensor), tuple(tensor.shape), tensor.dtype, tensor.device, placements


@dataclass(frozen=True)
class _Parametrization:
    """Computes a weight as its parametrizations do in eval mode, on a copy of them.

    Some keep a state, which they update at every call: spectral norm its buffers in training mode,
    others plain attributes.  The copy shares the parameters alone.

    Raises:
        Exception: what the parametrizations raise, or if their state cannot be copied.
    """

    functions: nn.Module

    def __call__(self) -> Tensor:
        functions = self.functions
        kept: dict[int, Any] = {id(each): each for each in functions.parameters()}
        for module in functions.modules():
            for value in vars(module).values():
                # Only leaves of the graph can be copied by `deepcopy`.
                if isinstance(value, Tensor) and not value.is_leaf:
                    kept[id(value)] = value.detach().clone()
        with _random_states_kept(functions):
            return _detached(deepcopy(functions, kept).eval())


@dataclass(frozen=True)
class _Hook:
    """Computes a weight as a forward pre-hook does."""

    hook: Any
    module: nn.Module

    def __call__(self) -> Tensor:
        if isinstance(self.hook, WeightNorm):
            return _detached(self.hook.compute_weight, self.module)
        if isinstance(self.hook, SpectralNorm):
            return _detached(self.hook.compute_weight, self.module, do_power_iteration=False)
        return _detached(self.hook.apply_mask, self.module)


def _detached(compute: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        return compute(*args, **options).detach()


@contextmanager
def _random_states_kept(module: nn.Module) -> Iterator[None]:
    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
