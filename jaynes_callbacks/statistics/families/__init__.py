"""The lognormal and its rivals, one class in one file each.

To add a family, write its class and name it in `FAMILIES`: fits, distances, columns, figures and
the tests against oracles follow from this tuple.
"""

from collections.abc import Mapping
from types import MappingProxyType

from jaynes_callbacks.statistics.families.base import Dashes, Family, Parameter, SmoothFamily
from jaynes_callbacks.statistics.families.exponential import Exponential
from jaynes_callbacks.statistics.families.gamma import Gamma
from jaynes_callbacks.statistics.families.generalized_gamma import GeneralizedGamma
from jaynes_callbacks.statistics.families.generalized_normal import GeneralizedNormal
from jaynes_callbacks.statistics.families.half_normal import HalfNormal
from jaynes_callbacks.statistics.families.half_student_t import HalfStudentT
from jaynes_callbacks.statistics.families.lognormal import Lognormal
from jaynes_callbacks.statistics.families.uniform import Uniform
from jaynes_callbacks.statistics.families.weibull import Weibull

__all__ = [
    "FAMILIES",
    "FAMILY_BY_NAME",
    "GENERALIZED_GAMMA",
    "LOGNORMAL",
    "RIVALS",
    "RIVALS_2",
    "Dashes",
    "Exponential",
    "Family",
    "Gamma",
    "GeneralizedGamma",
    "GeneralizedNormal",
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
#: The lognormal's generalisation, whose q measures the tilt away from it.
GENERALIZED_GAMMA = GeneralizedGamma()
#: The rivals in version 1 of the verdict, and so in `best_family` and `gap_best_rival`.  The rule
#: was fixed before any experiment: no family is added here.
RIVALS: tuple[Family, ...] = (
    HalfNormal(),
    Uniform(),
    Exponential(),
    HalfStudentT(),
    Weibull(),
    Gamma(),
)
#: Every family that is fitted, the lognormal first.
FAMILIES: tuple[Family, ...] = (LOGNORMAL, *RIVALS, GeneralizedNormal(), GENERALIZED_GAMMA)
#: The same by `Family.name`.
FAMILY_BY_NAME: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in FAMILIES}
)
#: The families that do not contain the lognormal: the rivals in version 2 of the verdict.
RIVALS_2: tuple[Family, ...] = tuple(family for family in FAMILIES if not family.contains_lognormal)
