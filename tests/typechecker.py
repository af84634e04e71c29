"""The checker of annotations that tests put around the package's functions."""

import inspect
from typing import Any

from beartype import beartype

__all__ = ["checked"]

_NESTED: dict[tuple[str, str, str], Any] = {}


def checked(subject: Any) -> Any:
    """Check the types of every call, as beartype does.

    A function within a function is defined anew by each call of the outer one, and jaxtyping then
    asks for a checker of its signature anew; compiling it takes longer than most fits.  The
    checker of the same function and signature is the same.
    """
    if "<locals>" not in getattr(subject, "__qualname__", ""):
        return beartype(subject)
    key = (subject.__module__, subject.__qualname__, str(inspect.signature(subject)))
    if key not in _NESTED:
        _NESTED[key] = beartype(subject)
    return _NESTED[key]
