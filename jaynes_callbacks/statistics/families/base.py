"""What a family is: names of parameters, a start and the logarithm of an interval's mass."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float64
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.moments import LogMoments

__all__ = ["Family", "log_difference"]


class Family(ABC):
    """A law of magnitudes with scale and shape parameters; the location is never free.

    Attributes:
        name: as it stands in column names.
        parameters: names of the parameters, in order.
        positive: which of them are positive; the fit then works on their logarithm.
        closed_form: whether `start` is the grouped maximum-likelihood estimate already.
        contains_lognormal: whether the family is a generalisation of the lognormal, no rival.
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    positive: ClassVar[tuple[bool, ...]]
    closed_form: ClassVar[bool] = False
    contains_lognormal: ClassVar[bool] = False

    @abstractmethod
    def start(self, binned: Binned, moments: LogMoments) -> Float64[Tensor, "streams parameters"]:
        """Estimates from moments, to start the fit from."""

    @abstractmethod
    def log_mass(
        self,
        parameters: Float64[Tensor, "streams parameters"],
        lower: Float64[Tensor, "streams bins"],
        upper: Float64[Tensor, "streams bins"],
    ) -> Float64[Tensor, "streams bins"]:
        """ln of the probability of ``(e**lower, e**upper)``, from the smaller tail.

        Differentiable twice in the parameters; `lower` may be `binned.OPEN`.
        """


def log_difference(
    larger: Float64[Tensor, "*shape"], smaller: Float64[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """ln(eᵃ − eᵇ) for a > b, without leaving the logarithm."""
    return larger + (-(smaller - larger).expm1()).log()
