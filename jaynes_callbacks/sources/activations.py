"""The activations of a model: one stream for each place where a ReLU is applied.

A `TorchFunctionMode` sees ``F.relu``, ``torch.relu``, ``x.relu_()`` and the call inside ``nn.ReLU``
alike; hooks on the modules tell whose forward it happens in.  What is seen is counted at once and
nothing of it is kept, so neither in-place operations nor memory are a concern.  Mode and hooks are
there only while the watch is open: at any other time the model runs as if there were no watch.

For ReLU Z = z·y = y² on the active neurons: the stream is y itself, whose gap and q are those of Z,
and whose exact zeros are the inactive neurons (THEORY §5).

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
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from jaynes_callbacks.counting import count_
from jaynes_callbacks.sources.ledger import NO_ROW, Ledger

__all__ = ["ActivationWatch"]

_RELUS = frozenset({functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
_ACTIVATION_MODULES = (nn.ReLU,)
#: Calls of one site within one forward that get a stream each: a recurrence may go on and on.
_MOST_CALLS = 128


class _Hooked(NamedTuple):
    module: nn.Module
    enter: Callable[..., None]
    leave: Callable[..., None]


class ActivationWatch:
    """Counts what every ReLU of a model puts out while the watch is open.

    Args:
        model: any module; names are those of its ``named_modules``.
        admits: which names to count.
        limit: most values counted of one call, picked at a constant stride.

    Attributes:
        ledger: the counts so far.
    """

    def __init__(self, model: nn.Module, admits: Callable[[str], bool], limit: int) -> None:
        self.model = model
        self.ledger = Ledger(admits)
        self._limit = limit
        self._hooked: list[_Hooked] = []
        self._handles: list[RemovableHandle] = []
        self._mode: TorchFunctionMode | None = None
        self._one_forward = False
        self._running: list[str] = []
        self._calls: dict[str, int] = {}
        self._failed = False

    def attach(self) -> None:
        """Find the modules in whose forward a ReLU may be applied."""
        self._hooked = [
            self._hooks_of(_site(name, module), module)
            for name, module in self.model.named_modules()
            if not _is_plain_leaf(module)
        ]

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
        # Twice what is known, for a compiled graph cannot be given a larger table while it is made.
        sites = max(len(self._hooked), len(self.ledger.streams))
        self.ledger.reserve(2 * sites, _device(self.model))
        for module, enter, leave in self._hooked:
            self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(leave))
        self._mode = mode = _ReluMode(self._see)
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

    def _hooks_of(self, site: str, module: nn.Module) -> _Hooked:
        def enter(module: nn.Module, args: Any) -> None:
            if not self._one_forward and (not self._running or module is self.model):
                self._begin_forward()
            self._running.append(site)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            # Above the own site lie those whose forward ended in an exception.
            while self._running and self._running.pop() != site:
                pass

        # Followed inside a compiled model, these are not to be compiled on their own around it.
        skip_code(enter.__code__)
        skip_code(leave.__code__)
        return _Hooked(module, enter, leave)

    def _begin_forward(self) -> None:
        self._running.clear()
        self._calls.clear()

    def _see(self, output: Tensor) -> None:
        """Count one call; whatever goes wrong here is said and spares the training."""
        if self._failed or output.is_meta or not output.is_floating_point():
            return
        site = self._running[-1] if self._running else _site("", self.model)
        call = self._calls.get(site, 0)
        self._calls[site] = call + 1
        compiling = torch.compiler.is_compiling()
        # A compiled model's shapes may be symbols: to read them would tie the graph to them.
        shape = () if compiling else tuple(output.shape[1:])
        try:
            row = _row(self.ledger, site, call, shape, compiling)
            if row != NO_ROW:
                count_(output, self.ledger.table, row, self._limit)
        except Exception as error:
            self._fail(site, error)

    def _fail(self, site: str, error: Exception) -> None:
        self._failed = True
        warnings.warn(
            f"activations are no longer recorded: counting {site!r} failed with "
            f"{type(error).__name__}: {error}; training goes on",
            stacklevel=2,
        )


class _ReluMode(TorchFunctionMode):
    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _RELUS:
            self._see(output)
        return output


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _row(ledger: Ledger, site: str, call: int, shape: tuple[int, ...], compiling: bool) -> int:
    """The row of the `call`-th call of a site in this forward; runs when a graph is traced."""
    name = f"{site}#{call}" if call else site
    if call > _MOST_CALLS:
        return NO_ROW
    if call == _MOST_CALLS:
        ledger.skip(name, f"called more than {_MOST_CALLS} times in one forward")
    row = ledger.row(name, shape)
    if row < len(ledger.table):
        return row
    if compiling:
        # Its graph holds on to the table as it is; the next opening finds this stream a place.
        return NO_ROW
    ledger.reserve(2 * row, ledger.table.device)
    return row


def _site(name: str, module: nn.Module) -> str:
    """Name of a ReLU applied while `module` is the innermost running one."""
    if isinstance(module, _ACTIVATION_MODULES):
        return name or "relu"
    return f"{name}.relu" if name else "relu"


def _is_plain_leaf(module: nn.Module) -> bool:
    """Whether this is one of torch's own layers that apply no activation."""
    ours = isinstance(module, _ACTIVATION_MODULES) or next(module.children(), None) is not None
    return type(module).__module__.startswith("torch.nn.modules.") and not ours


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
