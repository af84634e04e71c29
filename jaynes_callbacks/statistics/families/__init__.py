"""The lognormal and its rivals (THEORY §4): one class in one file each.

To add a family, write its class and name it in `FAMILIES`: fits, distances, columns, figures and
the oracle tests follow from this tuple.
"""

from jaynes_callbacks.statistics.families.base import Family, Parameter, SmoothFamily
from jaynes_callbacks.statistics.families.exponential import Exponential
from jaynes_callbacks.statistics.families.gamma import Gamma
from jaynes_callbacks.statistics.families.generalized_gamma import GeneralizedGamma
from jaynes_callbacks.statistics.families.half_normal import HalfNormal
from jaynes_callbacks.statistics.families.half_student_t import HalfStudentT
from jaynes_callbacks.statistics.families.lognormal import Lognormal
from jaynes_callbacks.statistics.families.uniform import Uniform
from jaynes_callbacks.statistics.families.weibull import Weibull

__all__ = [
    "FAMILIES",
    "GENERALIZED_GAMMA",
    "LOGNORMAL",
    "RIVALS",
    "Exponential",
    "Family",
    "Gamma",
    "GeneralizedGamma",
    "HalfNormal",
    "HalfStudentT",
    "Lognormal",
    "Parameter",
    "SmoothFamily",
    "Uniform",
    "Weibull",
]

#: The theory's prediction.
LOGNORMAL = Lognormal()
#: The lognormal's generalisation, whose q is the tilt away from it.
GENERALIZED_GAMMA = GeneralizedGamma()
#: Every family that is fitted, the lognormal first.
FAMILIES: tuple[Family, ...] = (
    LOGNORMAL,
    HalfNormal(),
    Uniform(),
    Exponential(),
    HalfStudentT(),
    Weibull(),
    Gamma(),
    GENERALIZED_GAMMA,
)
#: The families that do not contain the lognormal: what it must beat (THEORY §7).
RIVALS: tuple[Family, ...] = tuple(family for family in FAMILIES if not family.contains_lognormal)
