"""Pair the weights of two checkpoints by name, also where the prefixes of the names differ."""

from collections.abc import Mapping

__all__ = ["pair_names"]

_Shapes = Mapping[str, tuple[int, ...]]


def pair_names(ours: _Shapes, theirs: _Shapes) -> dict[str, str]:
    """Map each of our weights that the other checkpoint has too to its name there.

    Equal names are paired first.  Two of the remaining names are paired if they have the same shape
    and each is the only one that shares the largest number of last components with the other; a
    name with several equally good partners is not paired.

    Args:
        ours: shapes by name.
        theirs: shapes by name in the other checkpoint.

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
        if other is not None and back[other] == name:
            pairs[name] = other
    return {name: pairs[name] for name in ours if name in pairs}


def _nearest(name: str, shape: tuple[int, ...], others: _Shapes) -> str | None:
    """Return the one name of this shape that shares the most last components, if it is unique."""
    shared = {
        other: _shared_components(name, other) for other, its in others.items() if its == shape
    }
    most = max(shared.values(), default=0)
    nearest = [other for other, number in shared.items() if number == most]
    return nearest[0] if most and len(nearest) == 1 else None


def _shared_components(one: str, other: str) -> int:
    """Count the equal components, separated by dots, from the end."""
    number = 0
    for ours, theirs in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if ours != theirs:
            break
        number += 1
    return number
