"""Which weight of one checkpoint is which of another, if need be under another prefix."""

from collections.abc import Mapping

__all__ = ["pair_names"]

_Shapes = Mapping[str, tuple[int, ...]]


def pair_names(ours: _Shapes, theirs: _Shapes) -> dict[str, str]:
    """The other checkpoint's name of each of our weights that it has too.

    Equal names come first.  Of the rest two belong together if they have the same shape and each is
    the only one that shares so many of the other's last components; where that leaves a choice,
    neither is paired.

    Args:
        ours: shapes by name.
        theirs: of the other checkpoint.

    Example:
        >>> ours = {"fc.weight": (4, 4), "h.0.weight": (9, 9), "h.1.weight": (9, 9)}
        >>> theirs = {"fc.weight": (4, 4), "net.h.0.weight": (9, 9), "net.h.1.weight": (9, 9)}
        >>> pair_names(ours, theirs)["h.1.weight"]
        'net.h.1.weight'
    """
    pairs = {name: name for name in ours if name in theirs}
    left = {name: shape for name, shape in ours.items() if name not in pairs}
    right = {name: shape for name, shape in theirs.items() if name not in pairs}
    forth = {name: _nearest(name, shape, right) for name, shape in left.items()}
    back = {name: _nearest(name, shape, left) for name, shape in right.items()}
    for name, other in forth.items():
        if other and back[other] == name:
            pairs[name] = other
    return {name: pairs[name] for name in ours if name in pairs}


def _nearest(name: str, shape: tuple[int, ...], others: _Shapes) -> str:
    """The only name of this shape that shares the most last components; empty if there is none."""
    shared = {
        other: _shared_components(name, other) for other, its in others.items() if its == shape
    }
    most = max(shared.values(), default=0)
    nearest = [other for other, number in shared.items() if number == most]
    return nearest[0] if most and len(nearest) == 1 else ""


def _shared_components(one: str, other: str) -> int:
    """How many of the components separated by dots are equal, from the end."""
    number = 0
    for ours, theirs in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if ours != theirs:
            break
        number += 1
    return number
