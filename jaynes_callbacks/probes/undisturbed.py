"""Run forwards and backwards of a watched model that leave no trace in its training.

Some instruments need more than the training's own forwards show: the output for other inputs, or
gradients of something else than the loss.  What such a forward could change is put aside before
and put back after it:

- random states of Python, numpy, the CPU and the model's accelerators;
- buffers: inside, modules have copies of theirs, so the originals are not even written to (a graph
  of the training that has saved one stays valid);
- modes and other attributes of modules: each module's attributes refer to what they did before, and
  tensors, lists and dictionaries among them are copies inside, as buffers are;
- gradients of parameters, should a function inside call ``backward`` itself;
- hooks: only those run that torch itself has put on modules, since weights may be computed or
  gathered by them.  Anybody else's would take the forward for one of the training;
- autocast, inference mode and compilation, which are off inside (but for autocast that Accelerate
  has put into the model's own forward); gradients are on;
- the modes by which other watches of this package see functions, which are off inside.

What a module keeps elsewhere (in an object of its own, a generator) cannot be known and is not put
back.
"""

import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules
from torch.nn.parallel import DistributedDataParallel

__all__ = ["is_lazy", "plain", "undisturbed"]

#: Hooks around a module's forward and backward, by the attribute that holds them.
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)
#: What `nn.Module` keeps for itself, of which some is replaced with care.
_TABLES = frozenset(vars(nn.Module()))
#: The same hooks of all modules of the process.
_GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """Let a block call a model, or its modules, and put everything back afterwards.

    The block may set modes (``model.eval()``) and take gradients by `torch.autograd.grad`.

    Args:
        model: any module.

    Raises:
        ValueError: for a model with lazy modules, whose parameters a forward would make.

    Yields:
        The model without `DistributedDataParallel`, whose forward would begin a reduction.

    Example:
        >>> import torch
        >>> model = torch.nn.BatchNorm1d(3)
        >>> with undisturbed(model):
        ...     _ = model(torch.randn(5, 3))
        >>> model.num_batches_tracked.item()
        0
    """
    if any(map(is_lazy, model.parameters())):
        raise ValueError(
            "the model has lazy modules, whose parameters its first forward makes; call it once "
            "before it is measured"
        )
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(_gradients(model))
        stack.enter_context(_random_states(model))
        stack.enter_context(_module_states(model))
        stack.enter_context(_unseen())
        stack.enter_context(_uncompiled())
        stack.enter_context(torch.enable_grad())
        for device in _device_types(model):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield plain(model)


def is_lazy(parameter: Tensor) -> bool:
    """Tell whether a parameter will be made by the first forward."""
    return isinstance(parameter, nn.parameter.UninitializedParameter)


def _uncompiled() -> AbstractContextManager[Any]:
    """Return a block in which compiled modules run as they are; before torch 2.6 they compile."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Take the parameters' gradients off, and put the same tensors back."""
    gradients = [(each, each.grad) for each in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def plain(model: nn.Module) -> nn.Module:
    """Return the model that `DistributedDataParallel` wraps, or the model itself."""
    while isinstance(model, DistributedDataParallel):
        model = model.module
    return model


@contextmanager
def _random_states(model: nn.Module) -> Iterator[None]:
    """Put the random states back."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    accelerators = [device for device in _devices(model) if device.type == "cuda"]
    try:
        with torch.random.fork_rng(accelerators):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


@contextmanager
def _unseen() -> Iterator[None]:
    """Leave the function modes of this package for a block, and those of others as they are."""
    from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

    entered = _get_current_function_mode_stack()
    package = f"{__name__.partition('.')[0]}."
    others = [each for each in entered if not _defined_in(each).startswith(package)]
    if len(others) == len(entered):
        yield
        return
    for _ in entered:
        _pop_mode()
    for each in others:
        _push_mode(each)
    try:
        yield
    finally:
        for _ in others:
            _pop_mode()
        for each in entered:
            _push_mode(each)


@contextmanager
def _module_states(model: nn.Module) -> Iterator[None]:
    """Give every module copies of its buffers and torch's own hooks only; put all back."""
    every = list(model.modules())
    # Scripted modules have no tables of their own.
    kinds = torch.jit.ScriptModule
    modules = [each for each in every if not isinstance(each, kinds)]
    scripted = [own for each in every if isinstance(each, kinds) for own in each.buffers()]
    values = [buffer.detach().clone() for buffer in scripted]
    before = [dict(vars(each)) for each in modules]
    of_process = {name: dict(getattr(of_all_modules, name)) for name in _GLOBAL_HOOKS}
    copies: dict[int, Tensor] = {}
    try:
        for each in modules:
            _give_copies(each, copies)
        for name, hooks in of_process.items():
            _keep_only(getattr(of_all_modules, name), _of_torch(hooks))
        yield
    finally:
        for each, attributes in zip(modules, before, strict=True):
            vars(each).clear()
            vars(each).update(attributes)
        for buffer, value in zip(scripted, values, strict=True):
            if not torch.equal(buffer, value):
                buffer.detach().copy_(value)
        for name, hooks in of_process.items():
            _keep_only(getattr(of_all_modules, name), hooks)


def _give_copies(module: nn.Module, copies: dict[int, Tensor]) -> None:
    """Replace a module's tables of tensors, modules and hooks by its own for the block.

    Args:
        module: whose attributes are replaced.
        copies: of buffers so far, by the originals' identities, for modules may share one.
    """
    attributes = vars(module)
    for name, value in list(attributes.items()):
        if name not in _TABLES:
            attributes[name] = _copied(value, copies)
    for name in ("_parameters", "_modules"):
        attributes[name] = attributes[name].copy()
    buffers = attributes["_buffers"].copy()
    for name, buffer in buffers.items():
        if buffer is not None:
            buffers[name] = _copied(buffer, copies)
    attributes["_buffers"] = buffers
    for name in _HOOKS:
        attributes[name] = OrderedDict(_of_torch(attributes[name]))


def _copied(value: Any, copies: dict[int, Tensor]) -> Any:
    """Return a copy of a tensor, or of a list or a dictionary and the tensors in it.

    Args:
        value: of any type; a parameter, and all else, is returned as it is.
        copies: as `_give_copies` takes them.
    """
    if type(value) is list:
        return [_copied(each, copies) if isinstance(each, Tensor) else each for each in value]
    if type(value) is dict:
        return {
            key: _copied(each, copies) if isinstance(each, Tensor) else each
            for key, each in value.items()
        }
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        if id(value) not in copies:
            copies[id(value)] = value.detach().clone()
        return copies[id(value)]
    return value


def _of_torch(hooks: Mapping[int, Any]) -> dict[int, Any]:
    """Return the hooks that torch has defined, which compute or gather weights."""
    return {key: hook for key, hook in hooks.items() if _defined_in(hook).startswith("torch.")}


def _defined_in(hook: Any) -> str:
    """Return the name of the module that defines a hook: a function, a method or an object."""
    hook = getattr(hook, "func", hook)
    name = getattr(hook, "__module__", None) or type(hook).__module__
    return f"{name}."


def _keep_only(table: dict[int, Any], hooks: Mapping[int, Any]) -> None:
    """Make a table hold these hooks; the process keeps the table itself."""
    table.clear()
    table.update(hooks)


def _devices(model: nn.Module) -> set[torch.device]:
    tensors = (*model.parameters(), *model.buffers())
    return {each.device for each in tensors if not each.is_meta}


def _device_types(model: nn.Module) -> set[str]:
    return {"cpu", *(each.type for each in _devices(model))}
