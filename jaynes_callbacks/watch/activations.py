"""The activations of a model: one stream for each place where an activation function is applied.

A `TorchFunctionMode` sees ``F.relu``, ``torch.relu``, ``x.relu_()`` and the call inside ``nn.ReLU``
alike, and so every function of `jaynes_callbacks.watch.functions`; hooks on the modules tell
whose forward it happens in.  What is seen is counted at once and nothing of it is kept, so neither
in-place operations nor memory are a concern.  Mode and hooks are there only while the watch is
open: at any other time the model runs as if there were no watch.

Compiled models: the mode and the hooks are traced into a graph of their own, which is kept beside
the graph of the closed watch.  In it a call's row is a constant.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import skip_code
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from jaynes_callbacks.counts.counting import count_, count_product_, subsample
from jaynes_callbacks.watch.dtensors import share
from jaynes_callbacks.watch.functions import (
    ACTIVATION_MODULES,
    FUNCTIONS,
    preactivation,
    reason_not_to_watch,
    variable_of,
    writes_in_place,
)
from jaynes_callbacks.watch.ledger import NO_ROW, Ledger

__all__ = ["ActivationWatch"]

#: Calls of one site within one forward that get a stream each: a recurrence may go on and on.
_MOST_CALLS = 128


class _Place(NamedTuple):
    """A module whose forward is running."""

    name: str
    is_activation: bool

    def site(self, function: str) -> str:
        """Name of a function applied while this is the innermost running module."""
        if self.is_activation:
            return self.name or function
        return f"{self.name}.{function}" if self.name else function


#: Outside of every module that is known.
_NOWHERE = _Place("", is_activation=False)


class _Hooked(NamedTuple):
    module: nn.Module
    enter: Callable[..., None]
    leave: Callable[..., None]


class ActivationWatch:
    """Counts the iota of every activation of a model while the watch is open.

    Args:
        model: any module; names are those of its ``named_modules``.
        admits: which names to count.
        limit: most values counted of one call, picked at a constant stride.
        groups: of samples, among which the counts are dealt.

    Attributes:
        ledger: the counts so far.
    """

    def __init__(
        self, model: nn.Module, admits: Callable[[str], bool], limit: int, groups: int = 1
    ) -> None:
        self.model = model
        self.ledger = Ledger(admits, groups)
        self._limit = limit
        self._hooked: list[_Hooked] = []
        self._handles: list[RemovableHandle] = []
        self._mode: TorchFunctionMode | None = None
        self._one_forward = False
        self._running: list[_Place] = []
        self._calls: dict[str, int] = {}
        self._failed = False

    def attach(self) -> None:
        """Find the modules in whose forward an activation may be applied."""
        self._hooked = []
        for name, module in self.model.named_modules():
            if reason := reason_not_to_watch(module):
                self.ledger.skip(name, reason)
            elif not _is_plain_leaf(module):
                place = _Place(name, isinstance(module, ACTIVATION_MODULES))
                self._hooked.append(self._hooks_of(place, module))

    def detach(self) -> None:
        """Close the watch and let go of the modules."""
        self.close()
        self._hooked.clear()

    def open(self, *, one_forward: bool = False) -> None:
        """Begin to count.

        Args:
            one_forward: calls of one site are numbered through until the watch is closed; by
                default anew whenever the model, or a part of it, is called from outside.
        """
        if self._mode is not None:
            return
        self._one_forward = one_forward
        self._begin_forward()
        # Twice what is known, for a compiled graph cannot be given a larger table while it is made;
        # and no larger one later but for need, for with a new table it would be made again.
        known, rows = len(self.ledger.streams), len(self.ledger.table)
        self.ledger.reserve(2 * max(len(self._hooked), known * (known > rows)), _device(self.model))
        for module, enter, leave in self._hooked:
            self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(leave))
        self._mode = mode = _ActivationMode(self._before, self._after)
        mode.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Cease to count; no hook is left on the model."""
        if self._mode is None:
            return
        self._mode.__exit__(None, None, None)
        self._mode = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No mode and no hooks for a while: they cost time with every operation, also our own."""
        was_open = self._mode is not None
        self.close()
        try:
            yield
        finally:
            if was_open:
                self.open(one_forward=self._one_forward)

    def _hooks_of(self, place: _Place, module: nn.Module) -> _Hooked:
        def enter(module: nn.Module, args: Any) -> None:
            if not self._one_forward and (not self._running or module is self.model):
                self._begin_forward()
            self._running.append(place)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            # Above the own place lie those whose forward ended in an exception.
            while self._running and self._running.pop() != place:
                pass

        # Followed inside a compiled model, these are not to be compiled on their own around it.
        skip_code(enter.__code__)
        skip_code(leave.__code__)
        return _Hooked(module, enter, leave)

    def _begin_forward(self) -> None:
        self._running.clear()
        self._calls.clear()

    def _before(self, function: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor | None:
        """The pre-activation, or as much of it as is counted if the call overwrites it."""
        z = share(preactivation(args, kwargs))
        if not writes_in_place(function, args, kwargs):
            return z
        try:
            # To pick some while tracing would tie the graph to the shape.
            return (z if torch.compiler.is_compiling() else subsample(z, self._limit)).clone()
        except Exception as error:
            self._fail(FUNCTIONS[function], error)
            return None

    def _after(self, name: str, z: Tensor | None, output: Tensor) -> None:
        """Count one call; whatever goes wrong here is said and spares the training."""
        if self._failed or output.is_meta or not output.is_floating_point():
            return
        site = (self._running[-1] if self._running else _NOWHERE).site(name)
        try:
            row = self._row_of_this_call(site, name, output)
            if row == NO_ROW:
                return
            y = share(output)
            if z is None:
                count_(y, self.ledger.table, row, self._limit)
            else:
                y = y if y.shape == z.shape else subsample(y, self._limit)
                count_product_(z, y, self.ledger.table, row, self._limit)
        except Exception as error:
            self._fail(site, error)

    def _row_of_this_call(self, site: str, name: str, output: Tensor) -> int:
        call = self._calls.get(site, 0)
        self._calls[site] = call + 1
        compiling = torch.compiler.is_compiling()
        # A compiled model's shapes may be symbols: to read them would tie the graph to them.
        shape = () if compiling else tuple(output.shape[1:])
        row: int = _row(self.ledger, site, name, call, shape, compiling)
        return row

    def _fail(self, site: str, error: Exception) -> None:
        self._failed = True
        warnings.warn(
            f"activations are no longer recorded: counting {site!r} failed with "
            f"{type(error).__name__}: {error}; training goes on",
            stacklevel=2,
        )


class _ActivationMode(TorchFunctionMode):
    def __init__(
        self,
        before: Callable[[Callable[..., Tensor], Any, Any], Tensor | None],
        after: Callable[[str, Tensor | None, Tensor], None],
    ) -> None:
        super().__init__()
        self._before, self._after = before, after

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in FUNCTIONS:
            return func(*args, **(kwargs or {}))
        name = FUNCTIONS[func]
        z = None if variable_of(name) == "y" else self._before(func, args, kwargs)
        output = func(*args, **(kwargs or {}))
        self._after(name, z, output)
        return output


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _row(
    ledger: Ledger, site: str, function: str, call: int, shape: tuple[int, ...], compiling: bool
) -> int:
    """The row of the `call`-th call of a site in this forward; runs when a graph is traced."""
    name = f"{site}#{call}" if call else site
    if call > _MOST_CALLS:
        return NO_ROW
    if call == _MOST_CALLS:
        ledger.skip(name, f"called more than {_MOST_CALLS} times in one forward")
    row = ledger.row(name, shape, variable_of(function))
    if row < len(ledger.table):
        return row
    if compiling:
        # Its graph holds on to the table as it is; the next opening finds this stream a place.
        return NO_ROW
    ledger.reserve(2 * row, ledger.table.device)
    return row


def _is_plain_leaf(module: nn.Module) -> bool:
    """Whether this is one of torch's own layers that apply no activation."""
    ours = isinstance(module, ACTIVATION_MODULES) or next(module.children(), None) is not None
    return type(module).__module__.startswith("torch.nn.modules.") and not ours


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
