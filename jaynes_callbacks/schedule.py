"""When: functions ``step -> bool``."""

from collections.abc import Callable
from functools import partial

__all__ = ["Schedule", "every", "never"]

Schedule = Callable[[int], bool]


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
    if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
        raise ValueError(f"{what} must be a positive integer, got {interval!r}")
    return partial(_divides, interval)


def _divides(interval: int, step: int) -> bool:
    # A function of the module, not a lambda: monitors are pickled to be spawned.
    return step % interval == 0


def never(step: int) -> bool:
    """False at every step."""
    return False
