"""Activations of a model: one stream for each place where an activation function is applied.

A `TorchFunctionMode` sees every call of a function of `probes.functions`, whichever way it is
spelt: ``F.relu``, ``torch.relu``, ``x.relu_()`` and the call inside ``nn.ReLU`` alike.
Forward hooks on the modules tell in which module's forward a call happens, and so name its stream.
A module that is an activation as a whole (`probes.modules`) is read by its hooks, from its input
and its output; functions that are called inside it are no streams.

A call is counted at once and none of its tensors is kept, so in-place operations are counted like
any other and no memory is needed.  Mode and hooks exist only while the watch is open; while it is
closed the model runs as if there were no watch.

What is taken of a call is up to a `probes.reading.Reading`.

Compiled models: `torch.compile` traces the mode and the hooks into a second graph, which it keeps
beside the graph of the closed watch.  In it the row of each call is a constant.

A call that cannot be counted costs only its own stream, see `ActivationWatch`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jaynes_callbacks.interrupts import delayed_interrupts
from jaynes_callbacks.probes.compiling import (
    dispatch_every_spelling,
    do_not_compile_alone,
    is_called_by_graph_outside,
    spellings_hidden_by_dynamo,
)
from jaynes_callbacks.probes.functions import (
    FUNCTIONS,
    NOT_RECORDED,
    preactivation,
    variable_of,
    writes_in_place,
)
from jaynes_callbacks.probes.hooks import DeepCalls, Hook, HookedModule
from jaynes_callbacks.probes.ledger import NO_ROW, Ledger
from jaynes_callbacks.probes.modules import (
    NOWHERE,
    Activations,
    Place,
    Role,
    place_of,
    sees_functions,
)
from jaynes_callbacks.probes.reading import Call, Counts, Reading
from jaynes_callbacks.probes.written_out import ARITHMETIC, Context

__all__ = ["ActivationWatch"]

#: Calls of one site within one forward that get a stream each; a recurrence may make many more.
_MOST_CALLS = 128
_HIDDEN = "not seen inside compiled models by this version of torch"
_UNREADABLE = "not read inside compiled models"
_NO_MAP = "its module does not map one floating-point tensor to one of the same shape"


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
        activations: modules that are read as a whole, or left out, by the user's choice.

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
        activations: Activations = (),
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
        self._activations = activations
        self._hooked: list[HookedModule] = []
        self._mode: TorchFunctionMode | None = None
        self._one_forward = False
        self._running: list[_Running] = []
        self._context = Context()
        self._calls: dict[str, int] = {}
        self._failed_sites: set[str] = set()
        self._hidden: tuple[str, ...] = ()
        #: True once a graph has been traced that counts into this ledger.
        self._traced = False

    def attach(self) -> None:
        """Find the modules in whose forward an activation may be applied."""
        self._hidden = () if dispatch_every_spelling() else spellings_hidden_by_dynamo()
        # torch.compile follows the hooks when it compiles a module.  Called from outside of what
        # is compiled, they are not worth a graph of their own.
        for function in (Hook.__call__, ActivationWatch._enter, ActivationWatch._leave):
            do_not_compile_alone(function.__code__)
        self._hooked = []
        for name, module in self.model.named_modules():
            place = place_of(name, module, self._activations)
            if place is not None and place.reason is not None:
                self.ledger.skip(name, place.reason)
            if place is not None and sees_functions(module):
                enter, leave = partial(self._enter, place), partial(self._leave, place)
                self._hooked.append(HookedModule(name, module, enter, leave))

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
        with delayed_interrupts():
            self._mode = mode = _ActivationMode(self)
            DeepCalls.allow()
            self._put_on_hooks()
            mode.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Cease to count and take every hook off the model."""
        if self._mode is None:
            return
        with delayed_interrupts():
            _take_off(self._mode)
            for hooked in self._hooked:
                hooked.take_off()
            self._running.clear()
            self._context.forget()
            self._mode = None
            DeepCalls.end()

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

    def _put_on_hooks(self) -> None:
        """Register the hooks; a module that takes none loses its stream."""
        for hooked in list(self._hooked):
            try:
                hooked.put_on()
            except Exception as error:
                self._hooked.remove(hooked)
                _withdraw(self, hooked.name, hooked.name, f"{type(error).__name__}: {error}")

    def _enter(self, place: Place, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Take note of a module whose forward begins."""
        if not self._one_forward and (not self._running or module is self.model):
            self._begin_forward()
        if self._hidden and torch.compiler.is_compiling():
            _name_hidden(self.ledger, self._hidden)
        if module is self.model:
            self._reading.forward_begins()
        self._context.forget()
        # What a module in an activation does is part of that activation.
        reads = place.role is Role.ACTIVATION and not self._is_hidden()
        running = self._entered(place, args, kwargs) if reads else _Running(place)
        self._running.append(running)

    def _leave(self, place: Place, module: nn.Module, args: Any, output: Any) -> None:
        """Take note of a module whose forward has ended."""
        self._context.forget()
        # Above the own place lie those whose forward ended in an exception.
        while self._running:
            running = self._running.pop()
            if running.place == place:
                if running.reads:
                    self._left(running, output)
                break

    def _begin_forward(self) -> None:
        self._running.clear()
        self._calls.clear()

    def _apply(self, function: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """Apply an activation function and count this call of it."""
        site, iota = self._site(FUNCTIONS[function]), variable_of(FUNCTIONS[function])
        kept = self._before(site, iota, function, args, kwargs)
        output = function(*args, **kwargs)
        stream = self._after(site, iota, kept, output)
        if FUNCTIONS[function] == "tanh":
            self._context.applied(stream)
        else:
            self._context.forget()
        return output

    def _before(
        self, site: str, iota: str, function: Callable[..., Tensor], args: Any, kwargs: Any
    ) -> Any:
        """Let the reading keep what it needs of the pre-activation; None if that fails."""
        try:
            if not self._reading.needs_preactivation(iota):
                return None
            z = preactivation(args, kwargs)
            overwritten = writes_in_place(function, args, kwargs)
            return self._reading.keep(z, self._limit, overwritten=overwritten)
        except Exception as error:
            self._fail(site, self._stream_of(site), error)
            return None

    def _after(self, site: str, iota: str, kept: Any, output: Tensor) -> str:
        """Read one call; an exception costs this stream and spares the training.

        Returns:
            The name of the stream.
        """
        stream, call = self._stream_of(site), self._calls.get(site, 0)
        try:
            if output.is_meta or not output.is_floating_point():
                return stream
            self._calls[site] = call + 1
            compiling = torch.compiler.is_compiling()
            # A compiled model's shapes may be symbols: to read them would tie the graph to them.
            shape = () if compiling else tuple(int(size) for size in output.shape[1:])
            # Samples, neurons, and places in a map or a sequence.
            repeats = output.dim() > 2
            row: int = _row(self, site, iota, call, shape, repeats, compiling)
            if row != NO_ROW:
                self._reading.add_(kept, output, self.ledger.table, row, self._limit)
        except Exception as error:
            self._fail(site, stream, error)
        return stream

    def _entered(self, place: Place, args: Any, kwargs: Any) -> "_Running":
        """Let the reading keep what it needs of the input of a module that is an activation."""
        site = self._site_of(place)
        given = (*args, *kwargs.values())
        if not given or not isinstance(given[0], Tensor):
            _leave_out(self, site, _NO_MAP)
            return _Running(place)
        kept = None
        try:
            if self._reading.needs_preactivation(place.iota):
                # A module may write over its input, which shows only afterwards.
                kept = self._reading.keep(given[0], self._limit, overwritten=True)
            return _Running(place, True, kept, given[0].shape)
        except Exception as error:
            self._fail(site, self._stream_of(site), error)
            return _Running(place)

    def _left(self, running: "_Running", output: Any) -> None:
        """Read one call of a module that is an activation."""
        site = self._site_of(running.place)
        if not isinstance(output, Tensor) or output.shape != running.shape:
            _leave_out(self, self._stream_of(site), _NO_MAP)
        else:
            self._after(site, running.place.iota, running.kept, output)

    def _see_arithmetic(self, function: Callable[..., Any], args: Any) -> None:
        """Take a stream back if this call shows it to be part of something larger."""
        try:
            part = self._context.arithmetic(function, args)
        except Exception:
            # Operands that have no dimensions: nothing is known of them.
            self._context.forget()
            return
        if part is not None:
            _leave_out(self, part.stream, part.reason)

    def _is_hidden(self) -> bool:
        """Tell whether functions are called inside an activation, or what is left out."""
        return any(running.place.is_opaque for running in self._running)

    def _is_counted_by_graph(self) -> bool:
        return self._traced and is_called_by_graph_outside(self.model)

    def _site(self, function: str) -> str:
        place = self._running[-1].place if self._running else NOWHERE
        return place.site(function)

    def _site_of(self, place: Place) -> str:
        """Name the stream of a module that is an activation; the model itself has no name."""
        return place.name or type(self.model).__name__

    def _stream_of(self, site: str) -> str:
        return _stream_name(site, self._calls.get(site, 0))

    def _fail(self, site: str, stream: str, error: Exception) -> None:
        # While tracing, an error's message may be no constant (it may speak of symbols).
        tracing = torch.compiler.is_compiling()
        name = type(error).__name__
        _withdraw(self, site, stream, f"{name} in torch.compile" if tracing else f"{name}: {error}")


class _Running(NamedTuple):
    """A module whose forward is running.

    Attributes:
        place: the module.
        reads: whether it is read as an activation when its forward ends.
        kept: what the reading kept of its input.
        shape: of the input.
    """

    place: Place
    reads: bool = False
    kept: Any = None
    shape: torch.Size | None = None


class _ActivationMode(TorchFunctionMode):
    """Hands every call of an activation function to a watch, which applies the function itself."""

    def __init__(self, watch: ActivationWatch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        watch, kwargs = self._watch, kwargs or {}
        if func in ARITHMETIC:
            output = func(*args, **kwargs)
            watch._see_arithmetic(func, args)
            return output
        if func in FUNCTIONS and self._reads():
            return watch._apply(func, args, kwargs)
        watch._context.forget()
        if func in NOT_RECORDED and self._reads():
            _leave_out(watch, watch._site(_plain_name(func)), NOT_RECORDED[func])
        output = func(*args, **kwargs)
        if func in watch._reading.layers:
            self._layer_ends(func, Call(args, kwargs, output))
        return output

    def _reads(self) -> bool:
        """Tell whether a function that is called now is a stream of its own."""
        if self._watch._is_hidden():
            return False
        # A compiled graph counts for itself.  Some backends ("eager") run it through this mode.
        return torch.compiler.is_compiling() or not self._watch._is_counted_by_graph()

    def _layer_ends(self, function: Callable[..., Any], call: Call) -> None:
        reading = self._watch._reading
        try:
            reading.layer_ends(function, call)
        except Exception:
            # A layer whose output has no dimensions: nothing is known of it.
            reading.forward_begins()


def _plain_name(function: Callable[..., Any]) -> str:
    return function.__name__.rstrip("_")


def _stream_name(site: str, call: int) -> str:
    return f"{site}#{call}" if call else site


# The decorated functions below are called once for each place in a graph, while it is traced, and
# what they return becomes a constant of the graph.  Eagerly they are ordinary functions.


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _row(
    watch: ActivationWatch,
    site: str,
    iota: str,
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
        row = ledger.row(stream, shape, watch._reading.variable(iota), repeats=repeats)
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
def _leave_out(watch: ActivationWatch, name: str, reason: str) -> None:
    """Name what is seen and not recorded; what was counted of it is dropped."""
    watch.ledger.skip(name, reason)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _name_hidden(ledger: Ledger, spellings: tuple[str, ...]) -> None:
    """Name what a compiled model may apply without being seen."""
    for spelling in spellings:
        ledger.skip(spelling, _HIDDEN)


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


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
