"""What a family is: its parameters, a start for the fit and the log mass of an interval."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity, bin_mass

__all__ = ["Family", "Parameter", "SmoothFamily"]


class Parameter(NamedTuple):
    """A parameter and the coordinate in which the fit moves it.

    Attributes:
        name: as users know it.
        scale: of the coordinate: the parameter itself, its logarithm or its reciprocal.
        low: lower bound of the coordinate.
        high: upper bound of the coordinate.
    """

    name: str
    scale: Literal["linear", "log", "reciprocal"] = "log"
    low: float = -torch.inf
    high: float = torch.inf

    def coordinate(self, natural: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """Where the fit sees a value of the parameter."""
        if self.scale == "log":
            return natural.log()
        return natural if self.scale == "linear" else natural.reciprocal()

    def natural(self, coordinate: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """The parameter at a coordinate."""
        if self.scale == "log":
            return coordinate.exp()
        return coordinate if self.scale == "linear" else coordinate.reciprocal()

    def slope(self, natural: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """|d parameter / d coordinate|."""
        if self.scale == "log":
            return natural
        return torch.ones_like(natural) if self.scale == "linear" else natural**2


class Family(ABC):
    """A law of magnitudes with scale and shape parameters; the location is never free.

    Attributes:
        name: as it stands in column names.
        parameters: in order.
        contains_lognormal: whether the family is a generalisation of the lognormal, no rival.
        skew_limit: |skewness of ln w| that the family cannot reach.
        rough_start: whether moments leave the start far from the estimate, so that the first steps
            are better taken on fewer, wider bins.
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]
    contains_lognormal: ClassVar[bool] = False
    skew_limit: ClassVar[float] = torch.inf
    rough_start: ClassVar[bool] = False

    @abstractmethod
    def start(
        self, binned: Binned, moments: LogMoments
    ) -> Float64[Tensor, "streams {len(self.parameters)}"]:
        """Estimates from moments, from which the fit starts."""

    @abstractmethod
    def log_mass(
        self,
        parameters: Float64[Tensor, "streams parameters"],
        lower: Float64[Tensor, "streams bins"],
        upper: Float64[Tensor, "streams bins"],
    ) -> Float64[Tensor, "streams bins"]:
        """ln of the probability of ``(e**lower, e**upper)``, accurate in both tails."""

    def coordinates(
        self, natural: Float64[Tensor, "streams parameters"]
    ) -> Float64[Tensor, "streams parameters"]:
        """Where the fit sees values of the parameters."""
        columns = zip(self.parameters, natural.unbind(-1), strict=True)
        return torch.stack([parameter.coordinate(column) for parameter, column in columns], -1)

    def natural(
        self, coordinates: Float64[Tensor, "streams parameters"]
    ) -> Float64[Tensor, "streams parameters"]:
        """The parameters at the fit's coordinates."""
        columns = zip(self.parameters, coordinates.unbind(-1), strict=True)
        return torch.stack([parameter.natural(column) for parameter, column in columns], -1)

    def slopes(
        self, natural: Float64[Tensor, "streams parameters"]
    ) -> Float64[Tensor, "streams parameters"]:
        """|d parameter / d coordinate|, which turns standard errors of one into the other's."""
        columns = zip(self.parameters, natural.unbind(-1), strict=True)
        return torch.stack([parameter.slope(column) for parameter, column in columns], -1)

    def bounds(
        self, device: torch.device
    ) -> tuple[Float64[Tensor, " parameters"], Float64[Tensor, " parameters"]]:
        """Lower and upper bounds of the coordinates."""
        low = [parameter.low for parameter in self.parameters]
        high = [parameter.high for parameter in self.parameters]
        return (
            torch.tensor(low, dtype=torch.float64, device=device),
            torch.tensor(high, dtype=torch.float64, device=device),
        )


class SmoothFamily(Family):
    """A family of a log-concave density of x = ln w, which is all that it has to say."""

    @abstractmethod
    def log_density(
        self,
        parameters: Float64[Tensor, "rows parameters"],
        x: Float64[Tensor, "*nodes rows bins"],
    ) -> LogDensity:
        """ln f(x) and its derivatives in the parameters' coordinates."""

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """By quadrature in ln w; `lower` may be `binned.OPEN`."""
        return bin_mass(self.log_density, parameters, lower, upper).log_mass
