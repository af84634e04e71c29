"""Effective weights: those a module computes anew from its parameters at every forward.

Under weight norm, spectral norm, pruning or any `torch.nn.utils.parametrize` the parameters are
not what multiplies the input.  The theory speaks of the connections, so the computed weight is the
stream; the parameters behind it are covered by it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["EffectiveWeight", "effective_weights"]


class EffectiveWeight(NamedTuple):
    """A weight that is computed from parameters.

    Attributes:
        name: where the module keeps it, e.g. ``conv.weight``.
        parameters: names of the parameters behind it.
        value: computes it, and leaves the model, its mode and the random state as they were.
    """

    name: str
    parameters: tuple[str, ...]
    value: Callable[[], Tensor]


def effective_weights(model: nn.Module) -> Iterator[EffectiveWeight]:
    """All of a model, in the order of its modules; those of a shared module under each name."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        if parametrize.is_parametrized(module):
            yield from _parametrized(module, dot)
        yield from _hooked(module, dot)


def _parametrized(module: nn.Module, dot: str) -> Iterator[EffectiveWeight]:
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)  # what `is_parametrized` has found out
    for name, functions in lists.items():
        inner = (inner for inner, _ in functions.named_parameters())
        behind = tuple(f"{dot}parametrizations.{name}.{parameter}" for parameter in inner)
        yield EffectiveWeight(dot + name, behind, partial(_parametrization, functions))


def _hooked(module: nn.Module, dot: str) -> Iterator[EffectiveWeight]:
    """Of the forward pre-hooks that came before `parametrize`, and of `torch.nn.utils.prune`."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield _computed(dot, hook.name, ("g", "v"), partial(hook.compute_weight, module))
        elif isinstance(hook, SpectralNorm):
            value = partial(hook.compute_weight, module, do_power_iteration=False)
            yield _computed(dot, hook.name, ("orig",), value)
        elif isinstance(hook, prune.BasePruningMethod):
            yield _computed(dot, hook._tensor_name, ("orig",), partial(hook.apply_mask, module))


def _computed(
    dot: str, name: str, parts: tuple[str, ...], value: Callable[[], Tensor]
) -> EffectiveWeight:
    behind = tuple(f"{dot}{name}_{part}" for part in parts)
    return EffectiveWeight(dot + name, behind, partial(_detached, value))


def _parametrization(functions: nn.Module) -> Tensor:
    """In eval mode: in training mode a parametrization may keep a state, as spectral norm does."""
    with _evaluating(functions), _random_state_kept(functions):
        return _detached(functions)


def _detached(value: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return value().detach()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(inner, inner.training) for inner in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, training in modes:
            inner.training = training


def _random_state_kept(module: nn.Module) -> AbstractContextManager[None]:
    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    return torch.random.fork_rng(devices=list(devices))
