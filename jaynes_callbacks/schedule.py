"""When: functions ``step -> bool``."""

from collections.abc import Callable

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
    return lambda step: step % interval == 0


def never(step: int) -> bool:  # noqa: ARG001
    """False at every step."""
    return False
