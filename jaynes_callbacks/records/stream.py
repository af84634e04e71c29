"""What is watched: streams, and how their kinds and variables are called wherever they are shown.

The vocabulary is open.  A kind or a variable that is not listed here is shown by its own name, so
that an instrument may introduce one without touching any other file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["IOTA", "WEIGHT", "Stream", "in_order", "kind_label", "log_label", "symbol"]

#: Kind of the streams of weights.
WEIGHT = "weight"
#: Kind of the streams of activations, whose quantity in the theory is iota, Z = z·y.
IOTA = "iota"

#: Plural of each kind, as headings and sentences have it.
_KIND_LABELS: Mapping[str, str] = {WEIGHT: "weights", IOTA: "activations"}
#: Symbol of each variable in formulas and at axes.
_SYMBOLS: Mapping[str, str] = {"z*y": "z·y"}


@dataclass(frozen=True)
class Stream:
    """One distribution that is watched.

    Attributes:
        kind: what it is a distribution of, such as ``weight`` or ``iota``.
        name: qualified name as PyTorch prints it; ``#1``, ``#2`` … is appended from the second call
            of one activation within a forward on.
        shape: of the parameter, or of one call's output without its batch dimension.
        aliases: other names of the same tied parameter.
        variable: what is counted: ``w`` (weights); ``y`` (outputs of a ReLU, whose Z is y²) or
            ``z*y`` (Z itself) of activations; an instrument may add others.
    """

    kind: str
    name: str
    shape: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    variable: str = "w"

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name, which together identify a stream."""
        return self.kind, self.name


def kind_label(kind: str, number: int = 2) -> str:
    """Return a kind as people write it: the plural, or the singular for a single stream.

    >>> kind_label("weight"), kind_label("saliency"), kind_label("bias")
    ('weights', 'saliencies', 'biases')
    >>> kind_label("iota", 1), kind_label("bias", 1)
    ('activation', 'bias')
    """
    if number == 1:
        return _KIND_LABELS[kind].removesuffix("s") if kind in _KIND_LABELS else kind
    if kind.endswith("y"):
        regular = f"{kind[:-1]}ies"
    else:
        regular = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return _KIND_LABELS.get(kind, regular)


def in_order(kinds: Iterable[str]) -> list[str]:
    """Return each kind once: those of the theory first, then the others as they come.

    >>> in_order(["gradient", "iota", "weight", "iota"])
    ['weight', 'iota', 'gradient']
    """
    present = dict.fromkeys(kinds)
    return [*(kind for kind in _KIND_LABELS if kind in present)] + [
        kind for kind in present if kind not in _KIND_LABELS
    ]


def symbol(variable: str) -> str:
    """Return a variable's symbol, as formulas have it.

    >>> symbol("w"), symbol("z*y")
    ('w', 'z·y')
    """
    return _SYMBOLS.get(variable, variable)


def log_label(variable: str) -> str:
    """Return the label of an axis that shows the logarithm of a variable's magnitude.

    >>> log_label("w"), log_label("z*y")
    ('ln w', 'ln z·y')
    """
    return f"ln {symbol(variable)}"
