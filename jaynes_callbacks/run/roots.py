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

from jaynes_callbacks.probes.batches import ShownBatch

__all__ = [
    "ForwardBegins",
    "ListenedForward",
    "Models",
    "Root",
    "Roots",
    "hook_forwards",
    "roots_of",
]

#: Is told which module is called, and how to get what it is called with.
ForwardBegins = Callable[[nn.Module, Callable[[], ShownBatch]], None]
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
        tell: called as `ForwardBegins`; only a weak reference to its object is kept.
    """

    def __init__(self, model: nn.Module, tell: ForwardBegins | None) -> None:
        self._model = weakref.ref(model)
        self._tell = None if tell is None else weakref.WeakMethod(tell)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Tell of a forward in training; while a graph is traced, do nothing."""
        if torch.compiler.is_compiling():
            return
        tell, model = self._tell and self._tell(), self._model()
        if tell and model and model.training and torch.is_grad_enabled() and not _is_backward():
            tell(module, partial(ShownBatch.of_call, args, kwargs))

    def __reduce__(self) -> Any:
        # Deep copies of the model (averaged weights) and pickled ones are not watched.
        return _inert_hook, ()


class CompiledCall:
    """The call of a module that is compiled in place (`nn.Module.compile`), told of from outside.

    torch compiles the hooks of such a module with it.  So this stands in the place of the compiled
    call until it is removed; torch drops it from copies and pickled models.

    Args:
        module: that the loop calls.
        hook: called before each call, as forward pre-hooks are.
        end: called after each call; only a weak reference to its object is kept.
    """

    def __init__(self, module: nn.Module, hook: ForwardHook, end: Callable[[], None]) -> None:
        self._module, self._hook, self._end = weakref.ref(module), hook, weakref.WeakMethod(end)
        self._compiled: Any = module._compiled_call_impl
        module._compiled_call_impl = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the compiled module."""
        if (module := self._module()) is not None:
            self._hook(module, args, kwargs)
        try:
            return self._compiled(*args, **kwargs)
        finally:
            if (end := self._end()) is not None:
                end()

    def remove(self) -> None:
        """Put the compiled call back, unless the module was compiled again."""
        module = self._module()
        if module is not None and module._compiled_call_impl is self:
            module._compiled_call_impl = self._compiled


def hook_forwards(
    roots: Sequence[Root], begin: ForwardBegins, end: Callable[[], None]
) -> list[RemovableHandle | CompiledCall]:
    """Tell of each forward of the roots in training; of its end only if compiled in place.

    Args:
        roots: whose forwards.
        begin: called with the module that is called, and with what returns its arguments.
        end: called without arguments.
    """
    handles: list[RemovableHandle | CompiledCall] = []
    for root in roots:
        hook = ForwardHook(root.model, begin)
        if root.called._compiled_call_impl is None:
            handles.append(root.called.register_forward_pre_hook(hook, with_kwargs=True))
        else:
            handles.append(CompiledCall(root.called, hook, end))
    return handles


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

    Attributes:
        is_open: True until the forward has ended.
    """

    def __init__(
        self, module: nn.Module, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        self.module = module
        self._end = end
        self._handle: RemovableHandle | None = None
        self.is_open = True
        before = set(module._forward_pre_hooks)
        begin()
        if module._compiled_call_impl is not None:
            return  # `CompiledCall` tells of the end; hooks are compiled with the module.
        # torch calls the hooks that were there when the call began.
        with_kwargs = module._forward_pre_hooks_with_kwargs
        for name, hook in list(module._forward_pre_hooks.items()):
            if name not in before:
                hook(module, (), *([{}] if name in with_kwargs else []))
        # Registered after all others, so that none is taken off before torch has come to it.
        self._handle = module.register_forward_hook(
            partial(_end_of, weakref.ref(self)), always_call=True
        )

    def end(self) -> None:
        """Cease to listen."""
        if self.is_open:
            self.is_open = False
            if self._handle is not None:
                self._handle.remove()
            self._end()


def _end_of(forward: "weakref.ref[ListenedForward]", *_: Any) -> None:
    if (found := forward()) is not None:
        found.end()
