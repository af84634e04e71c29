"""scipy's laws of magnitudes by this package's parameters: the independent side of every check.

Tests freeze them (`tests.oracles`), benches loop over their distribution functions.
"""

from typing import Any

import numpy as np
from scipy import special

__all__ = ["gengamma_parameters", "half_t"]

Array = np.ndarray


def gengamma_parameters(mu: Any, sigma: Any, q: Any) -> tuple[Any, Any, Any]:
    """a, c and scale of `scipy.stats.gengamma` by Prentice's parameters, q ≠ 0.

    Of Stacy's form: a = q⁻², c = q/σ, scale = e^μ a^{−1/c}.
    """
    return q**-2, q / sigma, np.exp(mu + 2 * sigma / q * np.log(abs(q)))


def half_t(w: Array, scale: Any, dof: Any) -> tuple[Array, Array]:
    """Distribution and survival function of |t|, of which scipy has the two-sided law only."""
    square = (w / scale) ** 2
    lower = special.betainc(0.5, dof / 2, square / (dof + square))
    return lower, special.betainc(dof / 2, 0.5, dof / (dof + square))
