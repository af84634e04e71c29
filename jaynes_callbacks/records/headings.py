"""Dotted names in a table: what neighbours share becomes a heading, and the telling part stays."""

from collections.abc import Sequence
from itertools import groupby

__all__ = ["Named", "under_headings", "without_common_end"]

Named = tuple[str, str]
"""A heading, empty for none, and a name under it."""


def without_common_end(names: Sequence[str]) -> list[str]:
    """Leave out the last part where all of several names share it, such as ``weight``.

    >>> without_common_end(["fc.weight", "out.weight"]), without_common_end(["fc.weight"])
    (['fc', 'out'], ['fc.weight'])
    """
    ends = {name.rpartition(".")[2] for name in names}
    if len(names) < 2 or len(ends) > 1 or not all("." in name for name in names):
        return list(names)
    return [name.rpartition(".")[0] for name in names]


def under_headings(names: Sequence[str], room: int) -> list[Named] | None:
    """Divide names into headings and what tells rows apart under them.

    A heading ends with the number of a layer, or block, and stands above neighbours that share it.
    Where no number does, all but the last part is the heading.  An end that all names share is
    left out.

    Args:
        names: dotted, in the order of their rows.
        room: most characters of a name.

    Returns:
        One for each name; None where names fit as they are, where headings would be too many, or
        where names would still not fit.

    >>> layer = "encoder.layer.{}.attention.{}.weight"
    >>> names = [layer.format(n, part) for n in (0, 1) for part in ("query", "key")]
    >>> under_headings(names, 20)[1:3]
    [('encoder.layer.0', 'attention.key'), ('encoder.layer.1', 'attention.query')]
    """
    if all(len(name) <= room for name in names):
        return None
    bare = without_common_end(names)
    if all(len(name) <= room for name in bare):
        return [("", name) for name in bare]
    found = [_divided(name) for name in bare]
    headings = [heading for heading, _ in groupby(found, lambda each: each[0])]
    if len(headings) > (len(names) + 1) // 2 or any(len(name) > room for _, name in found):
        return None
    return found


def _divided(name: str) -> Named:
    """Divide a name after its last number that something follows."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts[:-1]) if part.isdigit()]
    if not numbers:
        return ".".join(parts[:-1]), parts[-1]
    after = numbers[-1] + 1
    return ".".join(parts[:after]), ".".join(parts[after:])
