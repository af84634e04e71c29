"""The lognormal and its rivals (THEORY §4): one class in one file each.

To add a family, write its class and name it in `FAMILIES`: fits, distances, columns, figures and
the oracle tests follow from this tuple.
"""

from jaynes_callbacks.statistics.families.base import Family
from jaynes_callbacks.statistics.families.exponential import Exponential
from jaynes_callbacks.statistics.families.half_normal import HalfNormal
from jaynes_callbacks.statistics.families.lognormal import Lognormal
from jaynes_callbacks.statistics.families.uniform import Uniform

__all__ = [
    "FAMILIES",
    "LOGNORMAL",
    "Exponential",
    "Family",
    "HalfNormal",
    "Lognormal",
    "Uniform",
]

#: The theory's prediction.
LOGNORMAL = Lognormal()
#: Every family that is fitted, the lognormal first.
FAMILIES: tuple[Family, ...] = (LOGNORMAL, HalfNormal(), Uniform(), Exponential())
