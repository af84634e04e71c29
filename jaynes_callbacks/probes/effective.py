"""Effective weights: those that a module computes from its parameters at every forward.

Under weight norm, spectral norm, pruning or any `torch.nn.utils.parametrize` the parameters are not
what multiplies the input.  The theory speaks of the connections, so the computed weight is the
stream, and the parameters behind it are covered by it.
"""

import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["EffectiveWeight", "effective_weights"]


class EffectiveWeight(NamedTuple):
    """A weight that is computed from parameters.

    Attributes:
        name: where the module keeps it, e.g. ``conv.weight``.
        parameters: names of the parameters behind it.
        value: computes the weight, and leaves the model's buffers and training flags and the
            random states of torch, numpy and Python as they were.
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
        if parametrize.is_parametrized(module):
            yield from _parametrized(module, dot)
        yield from _hooked(module, dot)


def _parametrized(module: nn.Module, dot: str) -> Iterator[EffectiveWeight]:
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)  # as `is_parametrized` has checked
    for name, functions in lists.items():
        inner = (inner for inner, _ in functions.named_parameters())
        behind = tuple(f"{dot}parametrizations.{name}.{parameter}" for parameter in inner)
        kinds = map(_kind, (*functions.parameters(), *functions.buffers()))
        recipe = (*functions.modules(), *kinds)
        yield EffectiveWeight(dot + name, behind, partial(_parametrization, functions), recipe)


def _hooked(module: nn.Module, dot: str) -> Iterator[EffectiveWeight]:
    """Find those of forward pre-hooks: of the older weight and spectral norm, and of pruning."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            name, compute = hook.name, hook.compute_weight
            behind = [f"{name}_g", f"{name}_v"]
        elif isinstance(hook, SpectralNorm):
            name, compute = hook.name, partial(hook.compute_weight, do_power_iteration=False)
            behind = [f"{name}_orig"]
        elif isinstance(hook, prune.BasePruningMethod):
            name, compute = hook._tensor_name, hook.apply_mask
            behind = [f"{name}_orig"]
        else:
            continue
        yield EffectiveWeight(
            dot + name,
            tuple(dot + parameter for parameter in behind),
            partial(_detached, compute, module),
            (hook, *(_kind(getattr(module, parameter)) for parameter in behind)),
        )


def _kind(tensor: Any) -> Hashable:
    """Describe what a tensor computed from this one may depend on, besides the values."""
    if is_lazy(tensor):
        return type(tensor)
    placements = getattr(tensor, "placements", None)
    return type(tensor), tuple(tensor.shape), tensor.dtype, tensor.device, placements


def _parametrization(functions: nn.Module) -> Tensor:
    """Compute a weight as its parametrizations do in eval mode, on copies of their buffers.

    In training mode some update a state: spectral norm its buffers at every call.
    """
    buffers = {name: buffer.clone() for name, buffer in functions.named_buffers()}
    with _evaluating(functions), _random_states_kept(functions):
        return _detached(torch.func.functional_call, functions, buffers, ())


def _detached(compute: Callable[..., Tensor], *args: Any) -> Tensor:
    with torch.no_grad():
        return compute(*args).detach()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(inner, inner.training) for inner in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, training in modes:
            inner.training = training


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
