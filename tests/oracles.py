"""scipy's laws of magnitudes, frozen, by this package's parameters: the oracles of all tests."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special, stats

from benchmarks.scipy_laws import gengamma_parameters, half_t

__all__ = ["LAWS"]

Array = np.ndarray


class _HalfT(stats.rv_continuous):
    def _logpdf(self, x: Array, dof: Array) -> Array:
        return math.log(2) + stats.t.logpdf(x, dof)

    def _cdf(self, x: Array, dof: Array) -> Array:
        return half_t(x, 1.0, dof)[0]

    def _sf(self, x: Array, dof: Array) -> Array:
        return half_t(x, 1.0, dof)[1]


class _HalfGennorm(stats.rv_continuous):
    """Magnitudes of scipy's generalized normal."""

    def _logpdf(self, x: Array, power: Array) -> Array:
        return math.log(2) + stats.gennorm.logpdf(x, power)

    def _cdf(self, x: Array, power: Array) -> Array:
        return special.gammainc(1 / power, x**power)

    def _sf(self, x: Array, power: Array) -> Array:
        return 2 * stats.gennorm.sf(x, power)


_HALF_T = _HalfT(a=0.0, shapes="dof")
_HALF_GENNORM = _HalfGennorm(a=0.0, shapes="power")


def _generalized_gamma(mu: float, sigma: float, q: float) -> Any:
    a, c, scale = gengamma_parameters(mu, sigma, q)
    return stats.gengamma(a, c, scale=scale)


LAWS: dict[str, Callable[..., Any]] = {
    "lognormal": lambda mu, sigma: stats.lognorm(sigma, scale=np.exp(mu)),
    "half_normal": lambda scale: stats.halfnorm(scale=scale),
    "uniform": lambda limit: stats.uniform(0, limit),
    "exponential": lambda scale: stats.expon(scale=scale),
    "half_student_t": lambda scale, dof: _HALF_T(dof, scale=scale),
    "weibull": lambda shape, scale: stats.weibull_min(shape, scale=scale),
    "gamma": lambda shape, scale: stats.gamma(shape, scale=scale),
    "generalized_normal": lambda scale, power: _HALF_GENNORM(power, scale=scale),
    "generalized_gamma": _generalized_gamma,
}
