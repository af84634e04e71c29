"""The modules that a loop calls, and the hooks that tell of their forwards in training.

A root is what the user gives to `jaynes_callbacks.run.loop.watch`: a model, each of several parts
of one, or a wrapper around it.  Hooks sit on the wrapper, for that is what the loop calls; streams
have the names of the wrapped model.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = ["ForwardHook", "ListenedForward", "Root", "Roots", "roots_of"]

Models = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]


class Root(NamedTuple):
    """A module that the loop calls, and the model in it: itself, unless it is a wrapper."""

    called: nn.Module
    model: nn.Module


class Roots(NamedTuple):
    """All modules that the loop calls, and one module that contains their models."""

    roots: tuple[Root, ...]
    whole: nn.Module


def roots_of(models: Models) -> Roots:
    """Find the roots in what a user gave.

    Args:
        models: a module; or a sequence or mapping of modules, whose streams' names begin with the
            part's place or key.

    Raises:
        TypeError: for what is no module.
        ValueError: for no module at all, or the same one twice.
    """
    if isinstance(models, nn.Module):
        root = Root(models, _unwrapped(models))
        return Roots((root,), root.model)
    named = dict(models) if isinstance(models, Mapping) else dict(enumerate(models))
    for name, each in named.items():
        if not isinstance(each, nn.Module):
            raise TypeError(f"each part of a model must be a torch module, got {each!r} ({name!r})")
    roots = tuple(Root(each, _unwrapped(each)) for each in named.values())
    if not roots or len({id(root.model) for root in roots}) < len(roots):
        raise ValueError(f"a model in parts needs one or more different modules, got {len(roots)}")
    whole: nn.Module = nn.ModuleList([root.model for root in roots])
    if isinstance(models, Mapping):
        whole = nn.ModuleDict(dict(zip(models, whole.children(), strict=True)))
    return Roots(roots, whole)


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the model inside DDP, DataParallel and what torch.compile returns, in any order."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


class ForwardHook:
    """Tells when a forward of a root in training begins; of a copied model it tells nothing.

    A forward counts as training if the model is in training mode and gradients are enabled.  What
    activation checkpointing repeats during the backward pass does not count.

    Args:
        model: the root's.
        tell: called with the module that is called; only a weak reference to its object is kept.
    """

    def __init__(self, model: nn.Module, tell: Callable[[nn.Module], None] | None) -> None:
        self._model = weakref.ref(model)
        self._tell = None if tell is None else weakref.WeakMethod(tell)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Tell of a forward in training; while a graph is traced, do nothing."""
        if torch.compiler.is_compiling():
            return
        tell, model = self._tell and self._tell(), self._model()
        if tell and model and model.training and torch.is_grad_enabled() and not _is_backward():
            tell(module)

    def __reduce__(self) -> Any:
        # Deep copies of the model (averaged weights) and pickled ones are not watched.
        return _inert_hook, ()


def _inert_hook() -> ForwardHook:
    return ForwardHook(nn.Identity(), None)


def _is_backward() -> bool:
    """Tell whether the running thread computes gradients, as torch's own checkpointing does."""
    return torch._C._current_graph_task_id() != -1


class ListenedForward:
    """One forward that is listened to, from within its first hook to its end.

    Args:
        module: that is being called.
        begin: opens what listens, by hooks on modules.
        end: called once at the end of the forward, also if it raises an exception.
    """

    def __init__(
        self, module: nn.Module, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        self.module = module
        self._end = end
        before = set(module._forward_pre_hooks)
        begin()
        # torch calls the hooks that were there when the call began.
        for name, hook in list(module._forward_pre_hooks.items()):
            if name not in before:
                hook(module, ())
        # Registered after all others, so that none is taken off before torch has come to it.
        self._handle: RemovableHandle | None = module.register_forward_hook(
            partial(_end_of, weakref.ref(self)), always_call=True
        )

    def end(self) -> None:
        """Cease to listen."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            self._end()


def _end_of(forward: "weakref.ref[ListenedForward]", *_: Any) -> None:
    if (found := forward()) is not None:
        found.end()
