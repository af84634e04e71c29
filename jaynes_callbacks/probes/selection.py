"""Select the streams to watch, and say which others there are."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from jaynes_callbacks.probes.functions import FUNCTIONS
from jaynes_callbacks.records.stream import IOTA, WEIGHT, Stream, in_order, kind_label

__all__ = ["MIN_SIZE", "Coverage", "Selection", "Skipped", "TooSmall", "shorten"]

#: Weights with fewer elements say nothing about a distribution.
MIN_SIZE = 64
_SHOWN = 5


class TooSmall(str):
    """The reason for skipping a tensor that has fewer elements than asked for."""

    __slots__ = ()


class Skipped(NamedTuple):
    """A tensor that is not watched, and why."""

    name: str
    reason: str


@dataclass(frozen=True, repr=False)
class Coverage:
    """The streams that are watched and the tensors that are not; logged once, as text.

    Attributes:
        watched: the streams.
        skipped: what else there is, each with the reason.
        note: what else a reader should know.
    """

    watched: tuple[Stream, ...]
    skipped: tuple[Skipped, ...]
    note: str = ""

    def __repr__(self) -> str:
        return f"<Coverage: {self}>"

    def __str__(self) -> str:
        names: dict[str, list[str]] = {}
        for stream in self.watched:
            names.setdefault(stream.kind, []).append(stream.name)
        lines = [
            f"{len(names[kind])} {kind_label(kind, len(names[kind]))} ({shorten(names[kind])})"
            for kind in in_order(names)
        ]
        lines = ["watching " + " and ".join(lines or ["nothing"]), self.note]
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.skipped:
            by_reason.setdefault(reason, []).append(name)
        lines += [
            f"not {len(skipped)}: {reason} ({shorten(skipped)})"
            for reason, skipped in by_reason.items()
        ]
        return "; ".join(line for line in lines if line)


@dataclass(frozen=True)
class Selection:
    """Kinds, name patterns and smallest size of the streams to watch.

    Attributes:
        kinds: of ``weight`` and ``iota``.
        include: glob patterns; a stream must match one.
        exclude: glob patterns; a stream must match none.
        min_size: weights with fewer elements are skipped.
    """

    kinds: tuple[str, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    min_size: int

    @classmethod
    def of(
        cls,
        kinds: Sequence[str] | str,
        include: Sequence[str] | str,
        exclude: Sequence[str] | str,
        min_size: int,
    ) -> "Selection":
        """Check the arguments that a user gave.

        Raises:
            ValueError: for an unknown kind, no kind at all, or a negative size.
            TypeError: for patterns that are no strings.
        """
        chosen, included = _strings("kinds", kinds), _strings("include", include)
        if not included:
            raise ValueError("include must have at least one glob pattern, got none; '*' is all")
        known = (WEIGHT, IOTA)
        if not chosen or not set(chosen) <= set(known):
            raise ValueError(f"kinds must be some of {list(known)}, got {list(chosen)}")
        if not isinstance(min_size, int) or isinstance(min_size, bool) or min_size < 0:
            raise ValueError(f"min_size must be a number of elements >= 0, got {min_size!r}")
        return cls(
            tuple(kind for kind in known if kind in chosen),
            included,
            _strings("exclude", exclude),
            min_size,
        )

    @property
    def is_narrowed(self) -> bool:
        """True if the patterns are other than the default, which admits every name."""
        return "*" not in self.include or bool(self.exclude)

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Return the include patterns, besides the one for all, that match no name of these."""
        names = list(names)
        return [
            pattern
            for pattern in self.include
            if pattern != "*" and not any(fnmatchcase(name, pattern) for name in names)
        ]

    def too_small(self, size: int) -> TooSmall | None:
        """Return why a tensor of so many elements is too small; None if it is not."""
        smallest = max(1, self.min_size)
        return TooSmall(f"fewer than min_size={smallest} elements") if size < smallest else None

    def admits(self, name: str) -> bool:
        """Tell whether the patterns admit a stream of this name."""
        return _matches(name, self.include) and not _matches(name, self.exclude)

    def check(self, parameters: Iterable[str], modules: Iterable[str]) -> None:
        """Refuse patterns that can match nothing in this model.

        Call sites of functional activations are known only after the first forward; their names
        begin with a module's, so a pattern is wrong if it fits no parameter, no module and nothing
        below one.

        Raises:
            ValueError: naming the pattern and what there is instead.
        """
        modules = list(modules)
        known = [*parameters, *modules]
        functions = set(FUNCTIONS.values())
        sites = [f"{m}.{function}".lstrip(".") for m in ["", *modules] for function in functions]
        for argument, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                # Calls are numbered (#1) only as they happen.
                if not any(fnmatchcase(name, pattern.split("#")[0]) for name in [*known, *sites]):
                    raise ValueError(
                        f"{argument} pattern {pattern!r} matches no parameter and no module; "
                        f"names look like {_nearest(pattern, known)}"
                    )

    def refuse_if_meant(self, skipped: Sequence[Skipped]) -> None:
        """No weight is left: an error where arguments did it, not where the model is just small.

        Raises:
            ValueError: with the reasons for which all are skipped.
        """
        too_small = self.min_size > MIN_SIZE and any(
            isinstance(each.reason, TooSmall) for each in skipped
        )
        if too_small or (self.kinds == (WEIGHT,) and self.is_narrowed):
            reasons = sorted({each.reason for each in skipped})
            raise ValueError(
                f"no weight is left to watch: all {len(skipped)} parameters are skipped "
                f"({'; '.join(reasons)}); lower min_size={self.min_size}, widen "
                f"include={list(self.include)}, or watch kinds={[IOTA]} alone"
            )


def _strings(argument: str, value: Sequence[str] | str) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else tuple(value)
    for item in values:
        if not isinstance(item, str):
            raise TypeError(f"{argument} must be strings, got {item!r}")
    return values


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _nearest(pattern: str, names: list[str]) -> str:
    named = [name for name in names if name]
    close = difflib.get_close_matches(pattern, named, n=_SHOWN, cutoff=0.4)
    return ", ".join(close or named[:_SHOWN])


def shorten(names: list[str]) -> str:
    """Return the first few of a list of names as text.

    >>> shorten(["a", "b"])
    'a, b'
    """
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
