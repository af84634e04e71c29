"""Check arguments where they arrive; messages say what was expected, what came, and for which."""

import math
from typing import TypeGuard

__all__ = ["flag", "number_above", "positive_int", "share"]


def positive_int(what: str, value: object) -> int:
    """Return the value if it is an integer of at least 1.

    Args:
        what: the argument's name, for the message.
        value: what the configuration holds.

    Raises:
        ValueError: if it is anything else.

    Example:
        >>> positive_int("width", 512)
        512
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{what} must be a positive integer, got {value!r}")
    return value


def flag(what: str, value: object) -> bool:
    """Return the value if it is true or false.

    Args:
        what: the argument's name, for the message.
        value: what the configuration holds.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, got {value!r}")
    return value


def share(what: str, value: object) -> float:
    """Return the value if it is a number with 0 ≤ value < 1.

    Args:
        what: the argument's name, for the message.
        value: what the configuration holds.

    Raises:
        ValueError: if it is anything else.
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{what} must be a number of at least 0 and below 1, got {value!r}")
    return float(value)


def number_above(what: str, value: object, bound: float) -> float:
    """Return the value if it is a finite number above the bound.

    Args:
        what: the argument's name, for the message.
        value: what the configuration holds.
        bound: what the value must exceed.

    Raises:
        ValueError: if it is anything else.
    """
    if not _is_number(value) or not bound < value < math.inf:
        raise ValueError(f"{what} must be a number above {bound:g}, got {value!r}")
    return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
