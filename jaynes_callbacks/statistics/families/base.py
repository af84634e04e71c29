"""Interface of a family of laws: its parameters, a start for the fit, the log mass of an interval.

A family is one class. It subclasses `SmoothFamily` and gives the logarithm of its density in
x = ln w, or subclasses `Family` where the mass of a bin and the estimate have a closed form.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike
from torch import Tensor

from jaynes_callbacks.statistics.binned import Binned
from jaynes_callbacks.statistics.moments import LogMoments
from jaynes_callbacks.statistics.quadrature import LogDensity, bin_mass

__all__ = ["Dashes", "Family", "Parameter", "SmoothFamily"]

#: A line style of matplotlib: its name, or an offset and the lengths of dashes and gaps in points.
Dashes = str | tuple[int, tuple[float, ...]]


class Parameter(NamedTuple):
    """A parameter, and the coordinate in which the fit moves it.

    Attributes:
        name: name within the family, such as ``shape``.
        unit: of the estimate; ``w`` is the unit of the values.
        meaning: one phrase for the schema of a table.
        scale: the coordinate is the parameter itself, its logarithm or its reciprocal.
        low: lower bound of the coordinate.
        high: upper bound of the coordinate.
        column: name of the column that keeps the estimate, where it is not the default
            ``fit_<family>_<parameter>``.
        symbol: of a parameter that decides the law's shape, as people write it; else empty.
    """

    name: str
    unit: str
    meaning: str
    scale: Literal["linear", "log", "reciprocal"] = "log"
    low: float = -torch.inf
    high: float = torch.inf
    column: str | None = None
    symbol: str = ""

    def coordinate(self, natural: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """Return the coordinate of a value of the parameter."""
        if self.scale == "log":
            return natural.log()
        return natural if self.scale == "linear" else natural.reciprocal()

    def natural(self, coordinate: Float64[Tensor, " rows"]) -> Float64[Tensor, " rows"]:
        """Return the parameter at a coordinate."""
        if self.scale == "log":
            return coordinate.exp()
        return coordinate if self.scale == "linear" else coordinate.reciprocal()


class Family(ABC):
    """A law of magnitudes with scale and shape parameters; the location is never free.

    Attributes:
        name: identifier, as it stands in column names.
        label: name for people, in legends and tables.
        color: of its line in every figure, as ``#rrggbb``.
        dashes: of its line in every figure.
        parameters: in order.
        contains_lognormal: whether the lognormal is a member, so that the family is no rival.
        skew_limit: |skewness of ln w| that no member reaches.
        rough_start: whether `start` is often far from the estimate, so that the first steps are
            better taken on fewer, wider bins.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    color: ClassVar[str]
    dashes: ClassVar[Dashes]
    parameters: ClassVar[tuple[Parameter, ...]]
    contains_lognormal: ClassVar[bool] = False
    skew_limit: ClassVar[float] = torch.inf
    rough_start: ClassVar[bool] = False

    @abstractmethod
    def start(
        self, binned: Binned, moments: LogMoments
    ) -> Float64[Tensor, "streams {len(self.parameters)}"]:
        """Return estimates from moments, from which the fit starts."""

    @abstractmethod
    def log_mass(
        self,
        parameters: Float64[Tensor, "streams parameters"],
        lower: Float64[Tensor, "streams bins"],
        upper: Float64[Tensor, "streams bins"],
    ) -> Float64[Tensor, "streams bins"]:
        """Return ln of the probability of ``(e**lower, e**upper)``, accurate in both tails."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that keep the estimates, in the order of `parameters`.

        >>> from jaynes_callbacks.statistics import FAMILY_BY_NAME
        >>> FAMILY_BY_NAME["weibull"].columns
        ('fit_weibull_shape', 'fit_weibull_scale')
        """
        return tuple(
            f"fit_{self.name}_{parameter.name}" if parameter.column is None else parameter.column
            for parameter in self.parameters
        )

    def parameters_from(self, columns: Mapping[str, ArrayLike]) -> Float64[Tensor, "rows p"]:
        """Rebuild the fitted parameters of many streams from the columns of a table.

        Args:
            columns: by name, at least those of `Family.columns`, one number a row: arrays,
                sequences or Series.  Other columns are ignored.

        Returns:
            Parameters as `log_mass` takes them, on the CPU; nan where a row has no fit.

        Raises:
            KeyError: if a column is missing.

        Example:
            >>> from jaynes_callbacks.statistics import LOGNORMAL
            >>> LOGNORMAL.parameters_from({"mu": [-3.0, 0.5], "sigma": [0.7, 1.0], "n": [9, 9]})
            tensor([[-3.0000,  0.7000],
                    [ 0.5000,  1.0000]], dtype=torch.float64)
        """
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise KeyError(
                f"the {self.label} law needs the columns {', '.join(self.columns)}, but "
                f"{', '.join(missing)} is missing; fit the counts instead (fit_family)"
            )
        found = [np.asarray(columns[name], dtype=np.float64) for name in self.columns]
        return torch.from_numpy(np.stack(found, -1))

    def coordinates(
        self, natural: Float64[Tensor, "streams parameters"]
    ) -> Float64[Tensor, "streams parameters"]:
        """Return the fit's coordinates of values of the parameters."""
        columns = zip(self.parameters, natural.unbind(-1), strict=True)
        return torch.stack([parameter.coordinate(column) for parameter, column in columns], -1)

    def natural(
        self, coordinates: Float64[Tensor, "streams parameters"]
    ) -> Float64[Tensor, "streams parameters"]:
        """Return the parameters at the fit's coordinates."""
        columns = zip(self.parameters, coordinates.unbind(-1), strict=True)
        return torch.stack([parameter.natural(column) for parameter, column in columns], -1)

    def bounds(
        self, device: torch.device
    ) -> tuple[Float64[Tensor, " parameters"], Float64[Tensor, " parameters"]]:
        """Return lower and upper bounds of the coordinates."""
        low = [parameter.low for parameter in self.parameters]
        high = [parameter.high for parameter in self.parameters]
        return (
            torch.tensor(low, dtype=torch.float64, device=device),
            torch.tensor(high, dtype=torch.float64, device=device),
        )


class SmoothFamily(Family):
    """A family whose density of x = ln w is log-concave and smooth; masses follow by quadrature.

    A subclass overrides one of two methods: `log_value`, which is then differentiated by
    autograd, or `log_density`, which gives them by hand and is faster.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = (SmoothFamily.log_value, SmoothFamily.log_density)
        if (cls.log_value, cls.log_density) == inherited:
            raise TypeError(f"{cls.__name__} must define log_value or log_density, it has neither")

    def log_value(
        self,
        parameters: Float64[Tensor, "rows parameters"],
        x: Float64[Tensor, "*nodes rows bins"],
    ) -> Float64[Tensor, "*nodes rows bins"]:
        """Return ln f(x), each row of x under its own row of parameters."""
        return self.log_density(parameters, x).value

    def log_density(
        self,
        parameters: Float64[Tensor, "rows parameters"],
        x: Float64[Tensor, "*nodes rows bins"],
    ) -> LogDensity:
        """Return ln f(x) and its derivatives in the parameters' coordinates.

        By default differentiates `log_value`.  The derivative of every element is wanted, and rows
        are independent: the gradient of Σ u ln f is linear in u, so that its own gradient in u is
        ∂ ln f/∂θ_i of all elements at once.  Unlike forward differentiation, of which torch has
        one level in a process, this may run in several threads.
        """
        with torch.inference_mode(False), torch.enable_grad():
            theta = self.coordinates(parameters).clone().requires_grad_()
            # A tensor made in inference mode cannot take part in a graph.
            value = self.log_value(self.natural(theta), x.clone())
            u = torch.zeros_like(value, requires_grad=True)
            (gradient,) = torch.autograd.grad(value, theta, u, create_graph=True)
            score = [
                torch.autograd.grad(total, u, retain_graph=True)[0]
                for total in gradient.sum(0).unbind()
            ]
        return LogDensity(value.detach(), tuple(score))

    def log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Return ln of the masses, by quadrature in ln w; `lower` may be `binned.OPEN`."""

        def value_alone(parameters: Tensor, x: Tensor) -> LogDensity:
            return LogDensity(self.log_value(parameters, x), ())

        return bin_mass(value_alone, parameters, lower, upper).log_mass
