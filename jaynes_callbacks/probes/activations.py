"""Activations of a model: one stream for each place where an activation function is applied.

A `TorchFunctionMode` sees every call of a function of `probes.functions`, whichever way it is
spelt: ``F.relu``, ``torch.relu``, ``x.relu_()`` and the call inside ``nn.ReLU`` alike.
Forward hooks on the modules tell in which module's forward a call happens, and so name its stream.
A call is counted at once and none of its tensors is kept, so in-place operations are counted like
any other and no memory is needed.  Mode and hooks exist only while the watch is open; while it is
closed the model runs as if there were no watch.

What is taken of a call is up to a `Reading`: by default its iota is counted (`Counts`); others sum
powers for each neuron (`probes.neurons`) or wait for the gradient (`probes.saliency`).

Compiled models: `torch.compile` traces the mode and the hooks into a second graph, which it keeps
beside the graph of the closed watch.  In it the row of each call is a constant.

A call that cannot be counted costs only its own stream, see `ActivationWatch`.
"""

import inspect
import types
import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, get_overridable_functions, resolve_name
from torch.utils.hooks import RemovableHandle

from jaynes_callbacks.counts.counting import count_, count_product_, subsample
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.probes.dtensors import owned_values
from jaynes_callbacks.probes.functions import (
    ACTIVATION_MODULES,
    FUNCTIONS,
    preactivation,
    reason_not_to_watch,
    variable_of,
    writes_in_place,
)
from jaynes_callbacks.probes.ledger import NO_ROW, Ledger
from jaynes_callbacks.records.stream import IOTA

__all__ = ["ActivationWatch", "Counts", "Reading"]

#: Calls of one site within one forward that get a stream each; a recurrence may make many more.
_MOST_CALLS = 128
#: How `torch.fx` names the file of the code that it generates for a graph.
_GENERATED_CODE = "<eval_with_key>"
_HIDDEN = "not seen inside compiled models by this version of torch"
_UNREADABLE = "not read inside compiled models"


class _Place(NamedTuple):
    """A module whose forward is running."""

    name: str
    is_activation: bool

    def site(self, function: str) -> str:
        """Name a function that is applied while this is the innermost running module."""
        if self.is_activation:
            return self.name or function
        return f"{self.name}.{function}" if self.name else function


#: Outside of every module of the model.
_NOWHERE = _Place("", is_activation=False)


class _Hooked(NamedTuple):
    """A module and the two hooks that are registered on it while the watch is open."""

    module: nn.Module
    enter: Callable[..., None]
    leave: Callable[..., None]


class Reading(Protocol):
    """What is taken of each call of an activation function, and added to its stream's row.

    It is traced by torch.compile unless it is not `compiled`.

    Attributes:
        kind: of the streams.
        shape: of a row of the table that is added to.
        dtype: of the table.
        compiled: whether calls inside compiled models can be read.
        layers: functions of which `layer_ends` is told.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    compiled: bool
    layers: Container[Callable[..., Any]]

    def variable(self, function: str) -> str:
        """Return the name of what is taken of a function's calls, as records have it."""
        ...

    def needs_preactivation(self, function: str) -> bool:
        """Tell whether `keep` is called before this function is applied."""
        ...

    def keep(self, z: Tensor, limit: int, *, overwritten: bool) -> Any:
        """Return what `add_` needs of a pre-activation.

        Args:
            z: the pre-activation.
            limit: most values that are taken.
            overwritten: whether the function is about to write its output over it.
        """
        ...

    def add_(self, kept: Any, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Add what is taken of a call to a row of the table, in place.

        Args:
            kept: from `keep`; None if it was not called.
            y: the output.
            table: to add to.
            row: of the call's stream.
            limit: most values that are taken.
        """
        ...

    def forward_begins(self) -> None:
        """Forget the layers of earlier forwards."""
        ...

    def layer_ends(self, function: Callable[..., Any], output: Any) -> None:
        """Take note of a call of one of `layers`, by its output."""
        ...


class Counts:
    """Counts the iota of each call on the universal grid: y of ReLU, z·y of other functions."""

    kind, dtype, compiled = IOTA, torch.int64, True
    shape: tuple[int, ...] = (CODES,)
    layers: Container[Callable[..., Any]] = frozenset()

    def variable(self, function: str) -> str:
        """Return ``y`` or ``z*y``."""
        return variable_of(function)

    def needs_preactivation(self, function: str) -> bool:
        """Tell whether the product z·y is counted, or y alone."""
        return variable_of(function) != "y"

    def keep(self, z: Tensor, limit: int, *, overwritten: bool) -> Tensor:
        """Return the pre-activation, or as much of it as is counted if the call overwrites it."""
        z = owned_values(z)
        if not overwritten:
            return z
        # To pick some values while tracing would tie the graph to the shape.
        return (z if torch.compiler.is_compiling() else subsample(z, limit)).clone()

    def add_(self, kept: Tensor | None, y: Tensor, table: Tensor, row: int, limit: int) -> None:
        """Count y, or the product of what was kept with it."""
        y = owned_values(y)
        if kept is None:
            count_(y, table, row, limit)
        else:
            y = y if y.shape == kept.shape else subsample(y, limit)
            count_product_(kept, y, table, row, limit)

    def forward_begins(self) -> None:
        """Do nothing: no layer matters."""

    def layer_ends(self, function: Callable[..., Any], output: Any) -> None:
        """Do nothing: no layer matters."""


class ActivationWatch:
    """Reads every activation of a model while the watch is open; by default its iota is counted.

    If counting a call raises an exception, its stream is no longer recorded and what was counted
    of it is dropped: a warning names its site (once for each site), the ledger names the stream
    and the reason among the skipped ones, and all other streams go on.  This holds for each rank:
    ranks on which the stream did not fail go on recording it.

    Args:
        model: any module; names are those of its ``named_modules``.
        admits: tells which names to count.
        limit: most values counted of one call, picked at a constant stride.
        groups: of samples, among which the counts are dealt.
        reading: what is taken of each call; by default its counts.
        deals_all: whether the counts of all streams are dealt, or only of those of which one sample
            gives several values of a neuron.

    Attributes:
        ledger: the counts so far.
    """

    def __init__(
        self,
        model: nn.Module,
        admits: Callable[[str], bool],
        limit: int,
        groups: int = 1,
        reading: Reading | None = None,
        *,
        deals_all: bool = True,
    ) -> None:
        self.model = model
        self._reading: Reading = Counts() if reading is None else reading
        self.ledger = Ledger(
            admits,
            groups,
            deals_all=deals_all,
            kind=self._reading.kind,
            shape=self._reading.shape,
            dtype=self._reading.dtype,
        )
        self._limit = limit
        self._hooked: list[_Hooked] = []
        self._handles: list[RemovableHandle] = []
        self._mode: TorchFunctionMode | None = None
        self._one_forward = False
        self._running: list[_Place] = []
        self._calls: dict[str, int] = {}
        self._failed_sites: set[str] = set()
        self._hidden: tuple[str, ...] = ()
        #: True once a graph has been traced that counts into this ledger.
        self._traced = False

    def attach(self) -> None:
        """Find the modules in whose forward an activation may be applied."""
        self._hidden = () if _dispatch_every_spelling() else _spellings_hidden_by_dynamo()
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
            one_forward: number the calls of one site through until the watch is closed; by default
                they are numbered anew whenever the model, or a part of it, is called from outside.
        """
        if self._mode is not None:
            return
        self._one_forward = one_forward
        self._begin_forward()
        self._reading.forward_begins()
        # Twice as many rows as are known, for the table cannot be enlarged while a graph is
        # compiled.  Enlarge it later only if rows are missing: the graph holds on to its table, so
        # with a new one the model would be compiled again.
        known, reserved = self.ledger.rows, len(self.ledger.table)
        rows = 2 * max(len(self._hooked), known if known > reserved else 0)
        self.ledger.reserve(rows, _device(self.model))
        for module, enter, leave in self._hooked:
            self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(leave))
        self._mode = mode = _ActivationMode(self)
        mode.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Cease to count and take every hook off the model."""
        if self._mode is None:
            return
        _take_off(self._mode)
        self._mode = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Close the watch for a while: the mode slows down every operation, our own included."""
        was_open = self._mode is not None
        self.close()
        try:
            yield
        finally:
            if was_open:
                self.open(one_forward=self._one_forward)

    def withdraw(self, row: int, error: Exception) -> None:
        """Record the stream of a row no longer, because reading it raised an error."""
        if stream := self.ledger.stream_of(row):
            site = stream.name.split("#")[0]
            _withdraw(self, site, stream.name, f"{type(error).__name__}: {error}")

    def _hooks_of(self, place: _Place, module: nn.Module) -> _Hooked:
        def enter(module: nn.Module, args: Any) -> None:
            if not self._one_forward and (not self._running or module is self.model):
                self._begin_forward()
            if self._hidden and torch.compiler.is_compiling():
                _name_hidden(self.ledger, self._hidden)
            if module is self.model:
                self._reading.forward_begins()
            self._running.append(place)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            # Above the own place lie those whose forward ended in an exception.
            while self._running and self._running.pop() != place:
                pass

        # torch.compile follows the hooks when it compiles a module.  Called from outside of what
        # is compiled, they are not worth a graph of their own.
        for hook in (enter, leave):
            _do_not_compile_alone(hook.__code__)
        return _Hooked(module, enter, leave)

    def _begin_forward(self) -> None:
        self._running.clear()
        self._calls.clear()

    def _apply(self, function: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """Apply an activation function and count this call of it."""
        name = FUNCTIONS[function]
        needed = self._reading.needs_preactivation(name)
        kept = self._before(function, args, kwargs) if needed else None
        output = function(*args, **kwargs)
        self._after(name, kept, output)
        return output

    def _before(self, function: Callable[..., Tensor], args: Any, kwargs: Any) -> Any:
        """Let the reading keep what it needs of the pre-activation; None if that fails."""
        try:
            z = preactivation(args, kwargs)
            overwritten = writes_in_place(function, args, kwargs)
            return self._reading.keep(z, self._limit, overwritten=overwritten)
        except Exception as error:
            site = self._site(FUNCTIONS[function])
            self._fail(site, _stream_name(site, self._calls.get(site, 0)), error)
            return None

    def _after(self, name: str, kept: Any, output: Tensor) -> None:
        """Read one call; an exception costs this stream and spares the training."""
        if output.is_meta or not output.is_floating_point():
            return
        site = self._site(name)
        call = self._calls.get(site, 0)
        self._calls[site] = call + 1
        compiling = torch.compiler.is_compiling()
        # A compiled model's shapes may be symbols: to read them would tie the graph to them.
        shape = () if compiling else tuple(output.shape[1:])
        # Samples, neurons, and places in a map or a sequence.
        repeats = output.dim() > 2
        try:
            row: int = _row(self, site, name, call, shape, repeats, compiling)
            if row == NO_ROW:
                return
            self._reading.add_(kept, output, self.ledger.table, row, self._limit)
        except Exception as error:
            self._fail(site, _stream_name(site, call), error)

    def _is_counted_by_graph(self) -> bool:
        return self._traced and _is_called_by_graph_outside(self.model)

    def _site(self, function: str) -> str:
        place = self._running[-1] if self._running else _NOWHERE
        return place.site(function)

    def _fail(self, site: str, stream: str, error: Exception) -> None:
        # While tracing, an error's message may be no constant (it may speak of symbols).
        tracing = torch.compiler.is_compiling()
        name = type(error).__name__
        _withdraw(self, site, stream, f"{name} in torch.compile" if tracing else f"{name}: {error}")


class _ActivationMode(TorchFunctionMode):
    """Hands every call of an activation function to a watch, which applies the function itself."""

    def __init__(self, watch: ActivationWatch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reading = self._watch._reading
        if func in reading.layers:
            output = func(*args, **(kwargs or {}))
            reading.layer_ends(func, output)
            return output
        if func not in FUNCTIONS:
            return func(*args, **(kwargs or {}))
        # A compiled graph counts for itself.  Some backends ("eager") run it through this mode.
        if not torch.compiler.is_compiling() and self._watch._is_counted_by_graph():
            return func(*args, **(kwargs or {}))
        return self._watch._apply(func, args, kwargs or {})


def _stream_name(site: str, call: int) -> str:
    return f"{site}#{call}" if call else site


# The decorated functions below are called once for each place in a graph, while it is traced, and
# what they return becomes a constant of the graph.  Eagerly they are ordinary functions.


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _row(
    watch: ActivationWatch,
    site: str,
    function: str,
    call: int,
    shape: tuple[int, ...],
    repeats: bool,
    compiling: bool,
) -> int:
    """Return the row of the `call`-th call of a site in this forward, or `NO_ROW`."""
    ledger, stream = watch.ledger, _stream_name(site, call)
    watch._traced |= compiling
    try:
        if call >= _MOST_CALLS:
            if call == _MOST_CALLS:
                ledger.skip(stream, f"called more than {_MOST_CALLS} times in one forward")
            return NO_ROW
        if compiling and not watch._reading.compiled:
            ledger.skip(stream, _UNREADABLE)
            return NO_ROW
        row = ledger.row(stream, shape, watch._reading.variable(function), repeats=repeats)
        if row < len(ledger.table):
            return row
        if compiling:
            # Its graph holds on to the table as it is; the next opening reserves a row for it.
            return NO_ROW
        ledger.reserve(2 * row, ledger.table.device)
    except Exception as error:
        # Raised here while a graph is traced, it would end the compilation.
        _withdraw(watch, site, stream, f"{type(error).__name__}: {error}")
        return NO_ROW
    return row


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _withdraw(watch: ActivationWatch, site: str, stream: str, reason: str) -> None:
    """Record a stream no longer: say so in the coverage, and in a warning for each site."""
    watch.ledger.skip(stream, f"counting failed with {reason}")
    if site not in watch._failed_sites:
        watch._failed_sites.add(site)
        warnings.warn(
            f"activation {site!r} is no longer recorded: counting failed with {reason}; "
            "training goes on",
            stacklevel=2,
        )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _name_hidden(ledger: Ledger, spellings: tuple[str, ...]) -> None:
    """Name what a compiled model may apply without being seen."""
    for spelling in spellings:
        ledger.skip(spelling, _HIDDEN)


def _dispatch_every_spelling() -> bool:
    """Have torch.compile hand every spelling of an activation to modes, as eager torch does.

    torch.compile (dynamo, torch 2.13) hands only those functions to a `TorchFunctionMode` that
    `torch.overrides.get_overridable_functions` lists.  That list leaves out `F.hardswish`, `F.tanh`
    and all functions whose names end in "_", such as `torch.relu_`.  It is kept in a set, to which
    the spellings are added.  The set matters only where a mode or a tensor subclass is in use.

    Returns:
        True if it has been done; other versions of torch may keep the list elsewhere.
    """
    try:
        from torch._dynamo.variables.torch import get_overridable_functions as dispatched
    except ImportError:
        return False
    functions: object = dispatched()
    if not isinstance(functions, set):
        return False
    functions.update(FUNCTIONS)
    return FUNCTIONS.keys() <= dispatched()


def _spellings_hidden_by_dynamo() -> tuple[str, ...]:
    """Name the spellings that torch.compile does not hand to modes of its own accord."""
    dispatched = {each for functions in get_overridable_functions().values() for each in functions}
    return tuple(
        resolve_name(function) or function.__name__
        for function in FUNCTIONS
        if function not in dispatched
    )


def _take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off torch's stack; others that have been entered since stay.

    Leaving a mode pops whichever was entered last: that of another watch, say.
    """
    from torch.overrides import (
        _get_current_function_mode_stack,
        _pop_mode,
        _push_mode,
    )

    entered = _get_current_function_mode_stack()
    if mode not in entered:
        return
    above = entered[entered.index(mode) + 1 :]
    for _ in (mode, *above):
        _pop_mode()
    for each in above:
        _push_mode(each)


def _do_not_compile_alone(code: types.CodeType) -> None:
    """Leave a function that is not called from a compiled one uncompiled."""
    try:
        from torch._dynamo.eval_frame import skip_code
    except ImportError:
        # Without it there are only more graphs.
        return
    skip_code(code)


def _is_called_by_graph_outside(model: nn.Module) -> bool:
    """Tell whether the running code is that of a `torch.fx` graph that is no part of a model.

    While the mode is active, this is a graph that torch.compile has traced with the mode.
    """
    frame = inspect.currentframe()
    while frame is not None:
        # To look at a frame's variables keeps them alive, so only of the one that matters.
        if frame.f_code.co_filename.startswith(_GENERATED_CODE):
            graph = frame.f_locals.get("self")
            return isinstance(graph, fx.GraphModule) and all(
                graph is not module for module in model.modules()
            )
        frame = frame.f_back
    return False


def _is_plain_leaf(module: nn.Module) -> bool:
    """Tell whether a module is one of torch's own layers that apply no activation."""
    ours = isinstance(module, ACTIVATION_MODULES) or next(module.children(), None) is not None
    return type(module).__module__.startswith("torch.nn.modules.") and not ours


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
