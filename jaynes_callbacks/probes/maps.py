"""Modules as maps: a few samples of the input of their last call, with which to call them again.

Hooks on modules copy what they are called with: at most a few samples of the first floating-point
tensor, x, and of all that goes with it (masks, positions).  The map of a module is then x ↦ its
output, all else being as it was.  It is called later, with the weights as they are then.

Copies live until they are let go, or replaced by those of a later forward.  Modules of which ranks
hold parts are not kept: other ranks would have to take part in every extra forward.  Inside
compiled models no call is seen.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jaynes_callbacks.interrupts import delayed_interrupts
from jaynes_callbacks.probes.compiling import do_not_compile_alone
from jaynes_callbacks.probes.dtensors import is_sharded
from jaynes_callbacks.probes.hooks import DeepCalls, Hook, HookedModule
from jaynes_callbacks.probes.selection import Skipped

__all__ = [
    "KeptCall",
    "Listener",
    "MapWatch",
    "first_tensor",
    "has_torchs_forward",
    "leave_uncompiled",
    "maps_vectors",
]

#: Most bytes of all copies of one forward: they live until its record, through the backward.
MOST_BYTES = 1 << 28
#: Values of x that are copied of a call, unless two samples have more.
_VALUES = 2**18
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size)
_FLATTENED = "_flat_param"


class KeptCall(NamedTuple):
    """A call of a module that can be repeated.

    Attributes:
        name: of the module.
        module: itself.
        x: the input, of a few samples.
        dim: along which the samples lie.
        shape: of one sample's output; None if the module returns no floating-point tensor.
        given: calls the module with another x and all else as it was.
        varies: whether all else differs from sample to sample, so that each has a map of its own.
    """

    name: str
    module: nn.Module
    x: Tensor
    dim: int
    shape: tuple[int, ...] | None
    given: Callable[[Tensor], Any]
    varies: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output for an input of the same samples.

        Raises:
            TypeError: if it is no tensor.
        """
        output = first_tensor(self.given(x))
        if output is None:
            raise TypeError("it returned no floating-point tensor")
        return output

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample's input."""
        return _without(self.x.shape, self.dim)

    @property
    def is_endomap(self) -> bool:
        """True if the output has the input's shape, so that the module can be applied again."""
        return self.shape == self.input_shape

    def rows(self, values: Tensor) -> Tensor:
        """Return one row for each sample of an input or output."""
        return values.movedim(self.dim, 0).flatten(1)


class Listener:
    """Hooks on modules from `open` to `close`.

    Args:
        modules: to hook, by name.
        enter: called with a module's name, the module, its arguments and keyword arguments.
        leave: called with the same and the output.  Where hooks are opened within the forward of a
            loop's model, `enter` gets no arguments of that model, but `leave` does.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        enter: Callable[..., None],
        leave: Callable[..., None],
    ) -> None:
        self._hooked = [
            HookedModule(
                name, module, partial(enter, name), partial(leave, name), leave_with_kwargs=True
            )
            for name, module in modules.items()
        ]
        #: Modules that take no hooks, such as scripted ones.
        self.refused: dict[str, str] = {}
        self._is_open = False
        leave_uncompiled(Hook.__call__, first_tensor)

    def open(self) -> None:
        """Put the hooks on."""
        if self._is_open:
            return
        with delayed_interrupts():
            self._is_open = True
            DeepCalls.allow()
            for each in list(self._hooked):
                try:
                    each.put_on()
                except Exception as error:
                    self._hooked.remove(each)
                    self.refused[each.name] = f"takes no hooks: {type(error).__name__}: {error}"

    def close(self) -> None:
        """Take the hooks off."""
        if not self._is_open:
            return
        with delayed_interrupts():
            for each in self._hooked:
                each.take_off()
            self._is_open = False
            DeepCalls.end()


def leave_uncompiled(*functions: Any) -> None:
    """Have torch.compile leave functions that hooks call, and those within them, as they are."""
    codes = [each.__code__ for each in functions if hasattr(each, "__code__")]
    while codes:
        code = codes.pop()
        do_not_compile_alone(code)
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]


class _Room:
    """Bytes that copies may still take in a forward."""

    def __init__(self) -> None:
        self.left = MOST_BYTES

    def take(self, tensor: Tensor, dtype: torch.dtype) -> None:
        """Take the room of a copy of a tensor.

        Raises:
            ValueError: if there is none left.
        """
        self.left -= tensor.numel() * dtype.itemsize
        if self.left < 0:
            raise ValueError(
                f"copies of its inputs, with those of other modules, exceed {MOST_BYTES >> 20} MiB"
            )


class MapWatch:
    """Keeps the last call of some modules, in bounded memory.

    Args:
        modules: to keep calls of, by name.
        samples: most samples that are copied of a call; of a layer that maps vectors, vectors.

    Attributes:
        calls: the last call of each module that was called, by name.
    """

    def __init__(self, modules: Mapping[str, nn.Module], samples: int) -> None:
        self.calls: dict[str, KeptCall] = {}
        self._reasons: dict[str, str] = {}
        self._samples = samples
        self._entered: dict[str, KeptCall] = {}
        self._room = _Room()
        fit = {}
        for name, module in modules.items():
            if _is_in_parts(module):
                self._reasons[name] = "ranks hold parts of its weights"
            else:
                fit[name] = module
        self._listener = Listener(fit, self._enter, self._leave)
        leave_uncompiled(MapWatch._enter, MapWatch._leave, KeptCall.__new__, KeptCall._replace)
        leave_uncompiled(_keep, _copied, _first, _is_table, _sample_dim, _without, maps_vectors)
        leave_uncompiled(_shape, _Room.take)

    @property
    def skipped(self) -> list[Skipped]:
        """The modules of which no call is kept, and why."""
        reasons = {**self._listener.refused, **self._reasons}
        return [Skipped(name, reason) for name, reason in reasons.items()]

    def open(self) -> None:
        """Keep calls from here on."""
        self._room = _Room()
        self._listener.open()

    def close(self) -> None:
        """Keep no more calls, until the next `open`."""
        self._listener.close()
        self._entered.clear()

    def forget(self) -> None:
        """Let go of all copies."""
        self._entered.clear()
        self.calls = {}

    def withdraw(self, name: str, error: Exception) -> None:
        """Say in `skipped` that calling a module again failed."""
        self._reasons[name] = f"its extra forward failed with {type(error).__name__}: {error}"

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self._entered.pop(name, None)
        try:
            self._entered[name] = _keep(name, module, args, kwargs, self._samples, self._room)
        except Exception as error:
            self._reasons[name] = str(error)

    def _leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if name not in self._entered:
            self._enter(name, module, args, kwargs)
        call = self._entered.pop(name, None)
        if call is None:
            return
        self._reasons.pop(name, None)
        try:
            self.calls[name] = call._replace(shape=_shape(module, call, output))
        except Exception as error:
            self._reasons[name] = f"its output has no shape: {error}"


def _shape(module: nn.Module, call: KeptCall, output: Any) -> tuple[int, ...] | None:
    """Return the shape of one sample's output; None without a tensor."""
    found = first_tensor(output)
    if found is None:
        return None
    if maps_vectors(module):
        return tuple(int(size) for size in found.shape[-1:])
    return _without(found.shape, call.dim)


def first_tensor(value: Any) -> Tensor | None:
    """Return a floating-point tensor, or the first in a tuple, a list or a mapping; else None."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    return value if isinstance(value, Tensor) and value.is_floating_point() else None


def maps_vectors(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer, which maps each vector along the last dimension."""
    # `Conv1D` of transformers is a linear layer with the transposed weight.
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def has_torchs_forward(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Tell whether a module of one of torch's classes computes what that class does.

    Args:
        module: an instance of one of them, or of a subclass.
        kinds: the classes.
    """
    kind: Any = next(each for each in kinds if isinstance(module, each))
    own: Any = type(module)
    methods = [name for name in ("forward", "_conv_forward") if hasattr(kind, name)]
    return all(getattr(own, name) is getattr(kind, name) for name in methods)


def _keep(
    name: str, module: nn.Module, args: Any, kwargs: Any, samples: int, room: _Room
) -> KeptCall:
    """Copy a few samples of what a module is called with.

    Raises:
        TypeError: for arguments without a floating-point tensor, or with objects of which nothing
            is known.
    """
    places: Iterable[Any] = [*enumerate(args), *kwargs.items()]
    place, x = next(
        ((place, each) for place, each in places if first_tensor(each) is each is not None),
        (None, None),
    )
    if place is None or x is None or x.dim() == 0:
        raise TypeError("it is called without a floating-point tensor")
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), x.dtype)
    if maps_vectors(module):
        vectors = x.detach().reshape(-1, x.shape[-1])
        few = max(2, min(samples, _VALUES // max(1, x.shape[-1])))
        chosen = vectors[:: max(1, len(vectors) // few)][:few]
        room.take(chosen, dtype)
        x = chosen.to(dtype, copy=True)
        return KeptCall(name, module, x, 0, None, module)
    dim = min(_sample_dim(module), x.dim() - 1)
    size = x.shape[dim]
    few = max(2, min(samples, _VALUES * size // max(1, x.numel())))

    by_sample: list[Tensor] = []

    def taken(tensor: Tensor) -> Tensor:
        found = _first(tensor, size, few, dim)
        by_sample.extend([tensor] if found is not tensor else [])
        room.take(found, dtype if found.is_floating_point() else found.dtype)
        return found

    own_args, own_kwargs = _copied(list(args), taken, dtype), _copied(dict(kwargs), taken, dtype)
    x = own_args[place] if isinstance(place, int) else own_kwargs[place]

    def given(value: Tensor) -> Any:
        if isinstance(place, int):
            return module(*own_args[:place], value, *own_args[place + 1 :], **own_kwargs)
        return module(*own_args, **{**own_kwargs, place: value})

    return KeptCall(name, module, x, dim, None, given, varies=len(by_sample) > 1)


def _copied(value: Any, few: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Any:
    """Copy an argument, of a few samples only.

    Args:
        value: of any type that is known.
        few: takes these samples of a tensor.
        dtype: of the module's weights; autocast, which may have given others, is off later.
    """
    if isinstance(value, Tensor):
        own = few(value.detach())
        return own.to(dtype if own.is_floating_point() else own.dtype, copy=True)
    if isinstance(value, tuple | list):
        return type(value)([_copied(each, few, dtype) for each in value])
    if isinstance(value, dict):
        return {key: _copied(each, few, dtype) for key, each in value.items()}
    if isinstance(value, _PLAIN):
        return value
    if type(value).__name__.endswith("Cache"):
        # Keys and values of earlier tokens, empty in training; a call would add to them.
        return None
    raise TypeError(f"it is called with an object of class {type(value).__name__}")


def _first(tensor: Tensor, size: int, number: int, dim: int) -> Tensor:
    """Return the first few samples of a tensor that goes with x; all of one without samples.

    Args:
        tensor: any.
        size: number of samples of x.
        number: how many of them to take.
        dim: along which the samples of x lie.  Beside sequences that come first a mask may have its
            samples first.
    """
    if _is_table(tensor, size):
        return tensor
    for own in (dim, 0):
        if tensor.dim() > own and tensor.shape[own] == size:
            return tensor.narrow(own, 0, min(size, number))
    return tensor


def _is_table(tensor: Tensor, size: int) -> bool:
    """Tell whether a tensor looks like a mask of places times places."""
    return not tensor.is_floating_point() and tensor.shape == (size, size)


def _sample_dim(module: nn.Module) -> int:
    """Return the dimension of the samples: 1 in modules that take sequences first."""
    kinds = (nn.MultiheadAttention, nn.RNNBase)
    sequential = [each for each in module.modules() if isinstance(each, kinds)]
    return int(any(not each.batch_first for each in sequential))


def _is_in_parts(module: nn.Module) -> bool:
    """Tell whether ranks hold parts of a module's weights (FSDP, tensor parallelism)."""
    parameters = list(module.named_parameters())
    return any(_FLATTENED in name or is_sharded(each) for name, each in parameters)


def _without(shape: torch.Size, dim: int) -> tuple[int, ...]:
    """Return a shape without the dimension of the samples."""
    return tuple(int(size) for place, size in enumerate(shape) if place != dim)
