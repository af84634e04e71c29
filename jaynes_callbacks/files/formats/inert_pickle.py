"""Read a pickle without running it: nothing is imported, and nothing in it is called.

A pickle is a program for a machine with a stack, a memo, and instructions that import and call what
the file names.  Here the machine has no such power.  Builtins (numbers, texts, lists, tuples,
dictionaries) are made; whatever the program would import becomes a `Global`, its name; whatever it
would call or construct becomes an `Object`, which keeps name, arguments and state.  Only the
functions that the caller hands over by name, its own, are called: they turn the arguments of
``torch._utils._rebuild_tensor_v2`` into a description of a tensor, for example.

The instructions are those of the module `pickletools`, protocols 0 to 5.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaynes_callbacks.files.limits import Limits

__all__ = ["Global", "Maker", "Object", "PickleError", "Unpickled", "unpickle"]

#: Makes a value of the arguments of a call.
Maker = Callable[[tuple[Any, ...]], Any]
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))
_LONGEST_LINE = 1 << 16


class PickleError(ValueError):
    """A pickle is damaged, or makes more than it may."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function that a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Object:
    """What a pickle would make by calling a class or function; compared by identity.

    Attributes:
        maker: the class or function, where the pickle names one.
        arguments: of the call.
        items: what was set by key, as in a subclass of `dict`.
        state: of the object, usually its attributes by name.
    """

    __slots__ = ("arguments", "items", "maker", "state")

    def __init__(self, maker: Any, arguments: Any = ()) -> None:
        self.maker: Global | None = maker if isinstance(maker, Global) else None
        self.arguments: tuple[Any, ...] = arguments if isinstance(arguments, tuple) else ()
        self.items: dict[Any, Any] | None = None
        self.state: Any = None
        if str(self.maker) in _RECONSTRUCTORS and self.arguments:
            (first, *_) = self.arguments
            self.maker = first if isinstance(first, Global) else self.maker

    def __str__(self) -> str:
        return "an unnamed object" if self.maker is None else str(self.maker)


_RECONSTRUCTORS = {"copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__"}


@dataclass(frozen=True)
class Unpickled:
    """The content of a pickle.

    Attributes:
        value: what it stands for.
        end: offset of the first byte after it.
        classes: how often each class or function would have been called, by its name.
    """

    value: Any
    end: int
    classes: Counter[str]


def unpickle(
    data: memoryview | bytes,
    *,
    start: int = 0,
    limits: Limits,
    makers: Mapping[str, Maker] | None = None,
    persistent: Maker | None = None,
) -> Unpickled:
    """Read one pickle.

    Args:
        data: bytes that hold it.
        start: offset at which it begins.
        limits: on the number of objects and the length of texts.
        makers: by the full names of classes and functions, what is called in their place.
        persistent: makes a value of a persistent id, which is given as a tuple.

    Raises:
        PickleError: if it is damaged or exceeds the limits.
    """
    machine = _Machine(memoryview(data), start, limits, makers or {}, persistent or _no_persistent)
    return Unpickled(machine.run(), machine.at, machine.classes)


def _no_persistent(key: tuple[Any, ...]) -> Any:
    return Object(None, key)


class _Machine:
    """The stack, the memo and the place in a pickle."""

    def __init__(
        self,
        data: memoryview,
        start: int,
        limits: Limits,
        makers: Mapping[str, Maker],
        persistent: Maker,
    ) -> None:
        self.at = start
        self.classes: Counter[str] = Counter()
        self._data, self._limits = data, limits
        self._makers, self._persistent = {**_CONTAINERS, **makers}, persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._text = 0

    def run(self) -> Any:
        """Follow the instructions up to the one that stops, and return the value."""
        begin = self.at
        try:
            for _ in range(self._limits.objects):
                code = self._data[self.at]
                self.at += 1
                if code == _STOP:
                    return self._stack.pop()
                self._do[code](self)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
            if isinstance(error, PickleError):
                raise
            if self.at - begin <= 2:
                raise PickleError("it does not begin as a pickle does") from error
            raise PickleError(f"its pickle is damaged at byte {self.at:,}") from error
        raise PickleError(
            f"its pickle makes more than {self._limits.objects:,} objects; raise the bound with "
            "--max-expanded"
        )

    # Bytes of the pickle

    def _take(self, size: int) -> memoryview:
        part = self._data[self.at : self.at + size]
        if size < 0 or len(part) != size:
            raise PickleError("its pickle ends too early")
        self.at += size
        return part

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return value

    def _counted(self, size: int) -> memoryview:
        """Take bytes that will be kept, and count them."""
        self._text += size
        if self._text > 4 * self._limits.text:
            raise PickleError(
                f"its pickle holds more than {4 * self._limits.text:,} bytes of texts; raise the "
                "bound with --max-expanded"
            )
        return self._take(size)

    def _line(self) -> str:
        part = bytes(self._data[self.at : self.at + _LONGEST_LINE])
        size = part.index(b"\n")
        text = bytes(self._counted(size)).decode("utf-8", "backslashreplace")
        self.at += 1
        return text

    # Builtins

    def _constant(self, value: Any) -> None:
        self._stack.append(value)

    def _push_number(self, form: str) -> None:
        self._stack.append(self._number(form))

    def _push_text(self, form: str) -> None:
        part = bytes(self._counted(self._number(form)))
        self._stack.append(part.decode("utf-8", "backslashreplace"))

    def _push_bytes(self, form: str) -> None:
        """Skip bytes: arrays of numpy and the like, of which nothing is needed."""
        self._take(self._number(form))
        self._stack.append(b"")

    def _push_long(self, form: str) -> None:
        part = self._counted(self._number(form))
        self._stack.append(int.from_bytes(part, "little", signed=True))

    def _push_line(self, convert: Callable[[str], Any]) -> None:
        self._stack.append(convert(self._line()))

    # Stack and memo

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    # Containers

    def _tuple_of(self, size: int) -> None:
        items = tuple(self._stack.pop() for _ in range(size))
        self._stack.append(items[::-1])

    def _marked(self, make: Callable[[list[Any]], Any]) -> None:
        # First, for it restores the stack that was there before the mark.
        items = self._pop_mark()
        self._stack.append(make(items))

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Object):
            target.items = {} if target.items is None else target.items
            target = target.items
        if isinstance(target, dict):
            target.update(_pairs(items))

    # Objects

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("its pickle names a class by something else than a text")
        self._stack.append(Global(module, name))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._global(module, name)

    def _call(self, maker: Any, arguments: Any) -> None:
        own = self._makers.get(str(maker)) if isinstance(maker, Global) else None
        if own is not None and isinstance(arguments, tuple):
            self._stack.append(own(arguments))
            return
        made = Object(maker, arguments)
        self.classes[str(made)] += 1
        self._stack.append(made)

    def _reduce(self) -> None:
        arguments, maker = self._stack.pop(), self._stack.pop()
        self._call(maker, arguments)

    def _new_with_keywords(self) -> None:
        self._stack.pop()
        self._reduce()

    def _instance(self) -> None:
        module, name = self._line(), self._line()
        self._call(Global(module, name), tuple(self._pop_mark()))

    def _object(self) -> None:
        maker, *arguments = self._pop_mark()
        self._call(maker, tuple(arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Object):
            self._stack[-1].state = state

    def _persistent_id(self, key: Any) -> None:
        self._stack.append(self._persistent(key if isinstance(key, tuple) else (key,)))

    _do: ClassVar[Mapping[int, Callable[["_Machine"], object]]] = {
        # Numbers and texts
        ord("N"): lambda self: self._constant(None),
        0x88: lambda self: self._constant(True),
        0x89: lambda self: self._constant(False),
        ord("K"): lambda self: self._push_number("<B"),
        ord("M"): lambda self: self._push_number("<H"),
        ord("J"): lambda self: self._push_number("<i"),
        ord("G"): lambda self: self._push_number(">d"),
        0x8A: lambda self: self._push_long("<B"),
        0x8B: lambda self: self._push_long("<i"),
        ord("I"): lambda self: self._push_line(_integer),
        ord("L"): lambda self: self._push_line(_integer),
        ord("F"): lambda self: self._push_line(float),
        ord("S"): lambda self: self._push_line(lambda line: line[1:-1]),
        ord("V"): lambda self: self._push_line(_unescaped),
        ord("X"): lambda self: self._push_text("<I"),
        0x8C: lambda self: self._push_text("<B"),
        0x8D: lambda self: self._push_text("<Q"),
        ord("T"): lambda self: self._push_text("<i"),
        ord("U"): lambda self: self._push_text("<B"),
        ord("B"): lambda self: self._push_bytes("<I"),
        ord("C"): lambda self: self._push_bytes("<B"),
        0x8E: lambda self: self._push_bytes("<Q"),
        0x96: lambda self: self._push_bytes("<Q"),
        # Stack and memo
        ord("("): lambda self: self._mark(),
        ord("0"): lambda self: self._pop(),
        ord("1"): lambda self: self._pop_mark(),
        ord("2"): lambda self: self._constant(self._stack[-1]),
        ord("p"): lambda self: self._put(_integer(self._line())),
        ord("q"): lambda self: self._put(self._number("<B")),
        ord("r"): lambda self: self._put(self._number("<I")),
        0x94: lambda self: self._put(len(self._memo)),
        ord("g"): lambda self: self._get(_integer(self._line())),
        ord("h"): lambda self: self._get(self._number("<B")),
        ord("j"): lambda self: self._get(self._number("<I")),
        # Containers; a set is a list, for nothing in it is looked up
        ord("]"): lambda self: self._constant([]),
        ord("}"): lambda self: self._constant({}),
        ord(")"): lambda self: self._constant(()),
        0x8F: lambda self: self._constant([]),
        ord("l"): lambda self: self._marked(list),
        ord("t"): lambda self: self._marked(tuple),
        ord("d"): lambda self: self._marked(lambda items: dict(_pairs(items))),
        0x91: lambda self: self._marked(list),
        0x85: lambda self: self._tuple_of(1),
        0x86: lambda self: self._tuple_of(2),
        0x87: lambda self: self._tuple_of(3),
        ord("a"): lambda self: self._extend([self._stack.pop()]),
        ord("e"): lambda self: self._extend(self._pop_mark()),
        0x90: lambda self: self._extend(self._pop_mark()),
        ord("s"): lambda self: self._set([self._stack.pop(), self._stack.pop()][::-1]),
        ord("u"): lambda self: self._set(self._pop_mark()),
        # Objects
        ord("c"): lambda self: self._global(self._line(), self._line()),
        0x93: lambda self: self._stack_global(),
        ord("i"): lambda self: self._instance(),
        ord("o"): lambda self: self._object(),
        ord("R"): lambda self: self._reduce(),
        0x81: lambda self: self._reduce(),
        0x92: lambda self: self._new_with_keywords(),
        ord("b"): lambda self: self._build(),
        ord("P"): lambda self: self._persistent_id(self._line()),
        ord("Q"): lambda self: self._persistent_id(self._stack.pop()),
        0x82: lambda self: self._global("copyreg", f"extension {self._number('<B')}"),
        0x83: lambda self: self._global("copyreg", f"extension {self._number('<H')}"),
        0x84: lambda self: self._global("copyreg", f"extension {self._number('<i')}"),
        0x97: lambda self: self._constant(Object(None)),
        # Nothing to do: protocol, frame, read-only buffer
        0x80: lambda self: self._take(1),
        0x95: lambda self: self._take(8),
        0x98: lambda self: self._take(0),
    }


_STOP = ord(".")


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    """Pair keys and values; a key that is costly or impossible to look up is replaced."""
    if len(items) % 2:
        raise PickleError("its pickle has a key without a value")
    return [(_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def _key(value: Any) -> Any:
    if isinstance(value, (*_PLAIN_KEYS, Global, Object)):
        return value
    if isinstance(value, tuple) and all(isinstance(each, _PLAIN_KEYS) for each in value):
        return value
    return Object(None)


def _integer(line: str) -> int | bool:
    known = {"00": False, "01": True}
    return known[line] if line in known else int(line.removesuffix("L"))


def _unescaped(line: str) -> str:
    return line.encode("latin-1", "backslashreplace").decode("raw-unicode-escape")


def _dictionary(arguments: tuple[Any, ...]) -> Any:
    """Make what a subclass of `dict` holds when it is called: nothing, a dictionary, or pairs."""
    first = arguments[-1] if arguments else None
    if isinstance(first, dict):
        return dict(first)
    if isinstance(first, list):
        pairs = [pair for pair in first if isinstance(pair, list | tuple) and len(pair) == 2]
        return {_key(key): value for key, value in pairs}
    return {}


_CONTAINERS: Mapping[str, Maker] = {
    f"collections.{name}": _dictionary for name in ("OrderedDict", "defaultdict", "Counter")
}
