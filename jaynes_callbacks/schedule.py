"""Schedules, which say when: functions ``step -> bool``.

What this module makes is comparable, can be pickled, and prints alike in every process: a monitor's
arguments name its state in a checkpoint.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

__all__ = ["Cadence", "Schedule", "at", "describe", "every", "log_spaced", "never", "schedule_of"]

Schedule = Callable[[int], bool]

#: More would ask powers of numbers with thousands of digits.
_MOST_PER_DECADE = 100


def every(interval: int, *, what: str = "interval") -> Schedule:
    """True at every multiple of `interval`, 0 included.

    Args:
        interval: a positive number of steps.
        what: name of the argument, for the error message.

    Raises:
        ValueError: if `interval` is not a positive integer.

    Example:
        >>> [step for step in range(7) if every(3)(step)]
        [0, 3, 6]
    """
    if not _is_integer(interval) or interval < 1:
        raise ValueError(f"{what} must be a positive integer, got {interval!r}")
    return _Every(interval)


def log_spaced(per_decade: int = 10) -> Schedule:
    """True at the powers of 10**(1/per_decade), each rounded to a whole step.

    In integers only: the thousandth power is as exact as the first.  From 1 on, where powers are
    closer than a step, every step is due once.

    Args:
        per_decade: steps between 1 and 10, between 10 and 100, and so on; at most 100.

    Raises:
        ValueError: if `per_decade` is out of range.

    Example:
        >>> [step for step in range(200) if log_spaced(per_decade=4)(step)]
        [1, 2, 3, 6, 10, 18, 32, 56, 100, 178]
    """
    if not _is_integer(per_decade) or not 1 <= per_decade <= _MOST_PER_DECADE:
        raise ValueError(
            f"per_decade must be an integer from 1 to {_MOST_PER_DECADE}, got {per_decade!r}"
        )
    return _LogSpaced(per_decade)


def at(steps: Iterable[int]) -> Schedule:
    """True at these steps.

    Args:
        steps: in any order.

    Raises:
        ValueError: if there is none, or one of them is no integer from 0 on.

    Example:
        >>> [step for step in range(200) if at([1, 10, 100])(step)]
        [1, 10, 100]
    """
    chosen: list[Any] = list(steps)
    wrong = [step for step in chosen if not _is_integer(step) or step < 0]
    if wrong or not chosen:
        raise ValueError(f"steps must be integers from 0 on, got {wrong or 'none'}")
    return _At(tuple(sorted(set(chosen))))


def never(step: int) -> bool:
    """False at every step."""
    return False


def schedule_of(choice: int | Schedule | None, *, what: str) -> Schedule:
    """Return the schedule that a user's argument stands for.

    An interval, a schedule of the user's own, or None for never.

    Raises:
        ValueError: if it is none of them, makes schedules instead of being one (``log_spaced``
            without parentheses), or cannot be called with one step.
    """
    if choice is None:
        return never
    makers: tuple[Any, ...] = (every, log_spaced, at)
    if isinstance(choice, type) or any(choice is each for each in makers):
        name = getattr(choice, "__name__", "")
        example = {"every": "every(100)", "at": "at([1, 10, 100])"}.get(name, f"{name}()")
        raise ValueError(
            f"{what} must be a schedule, got {name}, which makes one: call it, as in {example}"
        )
    if callable(choice) and not _takes_a_step(choice):
        raise ValueError(f"{what} must take one argument, the step, got {choice!r}")
    if callable(choice):
        return choice if isinstance(choice, _Every | _LogSpaced | _At) else _Sparing(choice, what)
    if not _is_integer(choice) or choice < 1:
        raise ValueError(
            f"{what} must be a positive integer, a schedule such as log_spaced() "
            f"(jaynes_callbacks.schedule), or None, got {choice!r}"
        )
    return every(choice)


def describe(choice: Any) -> str:
    """Return the argument in words that are the same in every process.

    A function is its qualified name, for its repr holds an address; so two functions of one name,
    such as two lambdas of one scope, cannot be told apart.
    """
    if isinstance(choice, partial):
        inner = [describe(choice.func), *map(describe, choice.args)]
        named = [f"{name}={describe(value)}" for name, value in choice.keywords.items()]
        return f"partial({', '.join(inner + named)})"
    if callable(choice):
        owner = choice if hasattr(choice, "__qualname__") else type(choice)
        if owner is choice or repr(choice) == object.__repr__(choice):
            return f"{owner.__module__}.{owner.__qualname__}"
    return str(choice)


@dataclass(frozen=True)
class Cadence:
    """When one instrument is recorded, besides the first and the last state of a run.

    Attributes:
        every_n_epochs: at the end of every n-th epoch, or by a schedule of complete epochs; None
            for never.
        every_n_steps: after every n-th optimizer step, or by a schedule of steps; None for never.

    Raises:
        ValueError: for an interval that is no positive integer, or a schedule that takes no step.

    Example:
        >>> cadence = Cadence(every_n_steps=100)
        >>> cadence.step_is_due(99, 100), cadence.step_is_due(100, 101)
        (True, False)
    """

    every_n_epochs: int | Schedule | None = 1
    every_n_steps: int | Schedule | None = None

    def __post_init__(self) -> None:
        # Frozen: schedules are derived from the arguments, which name a monitor's state.
        object.__setattr__(self, "_epochs", schedule_of(self.every_n_epochs, what="every_n_epochs"))
        object.__setattr__(self, "_steps", schedule_of(self.every_n_steps, what="every_n_steps"))

    def epoch_is_due(self, epochs: int) -> bool:
        """Tell whether a record is due once so many epochs are complete."""
        schedule: Schedule = vars(self)["_epochs"]
        return schedule(epochs)

    def step_is_due(self, before: int, now: int) -> bool:
        """Tell whether a record fell due after step `before`, up to step `now`.

        Several optimizers step several times in one batch, so a due step may be jumped over.
        """
        schedule: Schedule = vars(self)["_steps"]
        return any(schedule(step) for step in range(before + 1, now + 1))


@dataclass
class _Sparing:
    """A schedule of a user's own, which may fail amid training: said once, and no step is due."""

    schedule: Schedule
    what: str
    failed: bool = False

    def __call__(self, step: int) -> bool:
        try:
            answer = self.schedule(step)
            if callable(answer):
                raise TypeError(f"expected a bool, got {describe(answer)}: call that instead")
            return bool(answer)
        except Exception as error:
            if not self.failed:
                warnings.warn(
                    f"{self.what} failed at step {step}: {type(error).__name__}: {error}; "
                    "no record is due there, and training goes on",
                    stacklevel=2,
                )
            self.failed = True
            return False


@dataclass(frozen=True)
class _Every:
    interval: int

    def __call__(self, step: int) -> bool:
        return step % self.interval == 0

    def __repr__(self) -> str:
        return f"every({self.interval})"


@dataclass(frozen=True)
class _LogSpaced:
    per_decade: int

    def __call__(self, step: int) -> bool:
        return step > 0 and self._powers(step) > self._powers(step - 1)

    def __repr__(self) -> str:
        return f"log_spaced(per_decade={self.per_decade})"

    def _powers(self, step: int) -> int:
        """How many k ≥ 0 have 10**(k/p) < step + 1/2, that is 2**p · 10**k < (2·step + 1)**p.

        The left side is even, the right side odd: no power lies between two steps.
        """
        bound: int = (2 * step + 1) ** self.per_decade >> self.per_decade
        return len(str(bound)) if bound else 0


@dataclass(frozen=True)
class _At:
    steps: tuple[int, ...]

    def __call__(self, step: int) -> bool:
        return step in self.steps

    def __repr__(self) -> str:
        return f"at({list(self.steps)})"


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _takes_a_step(schedule: Schedule) -> bool:
    try:
        signature(schedule).bind(1)
    except TypeError:
        return False
    except ValueError:  # Some builtins tell no signature.
        return True
    return True
