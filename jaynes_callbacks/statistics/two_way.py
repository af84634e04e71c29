"""What taking off the scales of rows and columns does to a law, and how large the scales are.

`counts.two_way` fits ln|w_oik| = m + r_o + c_i + e_oik.  A residual e is a sum of all values of
ln|w|, most of them with a factor near zero, so that every cumulant of ln|w| is multiplied by the
sum of the factors' powers; for the same reason the characteristic function of Gaussian residuals is
known exactly.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.special import loggamma
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, log_edges
from jaynes_callbacks.counts.two_way import Effects, Layout, core_rows
from jaynes_callbacks.statistics.binned import occupied_bins
from jaynes_callbacks.statistics.families import LOGNORMAL
from jaynes_callbacks.statistics.fit import fit_family
from jaynes_callbacks.statistics.goodness import gap
from jaynes_callbacks.statistics.influence import influences, row_stride
from jaynes_callbacks.statistics.moments import log_moments

__all__ = [
    "Components",
    "Spread",
    "core_standard_error",
    "cumulant_factor",
    "gaussian_core_gaps",
    "variance_components",
]

Array = np.ndarray[Any, np.dtype[Any]]

#: Range of ln|N| beyond which a Gaussian has less than 1e-13 of its values, and the period and the
#: highest frequency of the sums that invert a characteristic function.
_LOWEST, _HIGHEST = -30.0, 4.0
_PERIOD, _FREQUENCY = 80.0, 60.0
#: Values that stand for a whole law, in which rounding and the correction of the bias vanish.
_POPULATION = 2.0**48
#: Places of a distribution function that are computed at once.
_AT_ONCE = 64


class Components(NamedTuple):
    """Variance of ln|w| that lies between rows, between columns, and in single weights.

    Attributes:
        rows: V_r, without what the residuals add to the means of rows; 0 at least.
        columns: V_c, likewise.
        rest: V_e, of the residuals.
    """

    rows: Array
    columns: Array
    rest: Array

    @property
    def scale_share(self) -> Array:
        """Share of the variance that is scales of rows and columns."""
        whole = self.rows + self.columns + self.rest
        with np.errstate(invalid="ignore"):
            return np.where(whole > 0, 1 - self.rest / whole, np.nan)


class Spread(NamedTuple):
    """How the effects of rows, or of columns, of some weights are spread.

    Attributes:
        squares: sum of the squared effects; nan where none were taken off.
        number: of rows, or columns, that have values.
    """

    squares: Array
    number: Array


def variance_components(n: Array, variance: Array, rows: Spread, columns: Spread) -> Components:
    """Estimate the components of the variance of ln|w|.

    V_e = Σe²/(n − d), V_r = Σr²/(R − 1) − V_e R/n, V_c = Σc²/(C − 1) − V_e C/n, with d the degrees
    of freedom that the mean and the effects take (H. Scheffé, The Analysis of Variance (1959)).

    Args:
        n: number of values of each weight that are not zero.
        variance: Σe²/n.
        rows: the effects of rows; where none were taken off their component is 0.
        columns: likewise.

    Returns:
        Components; nan where there are not more values than effects.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        taken = sum(
            np.where(np.isnan(each.squares), 0, each.number - 1) for each in (rows, columns)
        )
        spare = n - 1 - taken
        rest = np.where(spare > 0, variance * n / spare, np.nan)
        between_rows, between_columns = (
            np.where(
                np.isnan(each.squares),
                0.0 * rest,
                np.maximum(each.squares / (each.number - 1) - rest * each.number / n, 0),
            )
            for each in (rows, columns)
        )
    return Components(between_rows, between_columns, rest)


def cumulant_factor(layout: Layout, order: int, present: float = 1.0) -> float:
    """Return the factor by which taking off effects multiplies a cumulant of ln|w|.

    Args:
        layout: of the weight.
        order: of the cumulant.
        present: share of the values that are not zero; which of them are is taken to be chance.

    >>> cumulant_factor(Layout(4, 5, 1), 2), (1 - 1 / 4) * (1 - 1 / 5)
    (1.0, 0.6000000000000001)
    >>> round(cumulant_factor(Layout(20, 16, 1), 2), 10), round((1 - 1 / 20) * (1 - 1 / 16), 10)
    (0.890625, 0.890625)
    """
    return sum(number * weight**order for number, weight in _weights(layout, present))


def core_standard_error(
    values: Tensor,
    effects: Effects,
    counts: Int64[Tensor, " 4096"],
    release: Callable[[Tensor], object] = lambda _: None,
) -> Float64[Tensor, ""]:
    """Estimate the standard error of the gap of a core; its rows and columns are clusters.

    Of a large weight every k-th row is read, as by `influences`.

    Args:
        values: real floating-point tensor ``[rows, columns, …]``.
        effects: taken off.
        counts: of the core.
        release: as `core_rows` takes it.
    """
    stride = row_stride(values)
    read = core_rows(values, effects, stride, release)
    (influence,) = influences([read], counts[None])
    if influence is None:
        return torch.full((), torch.nan, dtype=torch.float64, device=counts.device)
    # The counts are those of all rows, of which `influences` has seen this share.
    share = len(read) / len(values)
    return influence._replace(
        rows_read=influence.rows_read * share, squares=influence.squares / share
    ).standard_error


def gaussian_core_gaps(
    layouts: Sequence[Layout], present: Sequence[float] | None = None
) -> list[float]:
    """Return the core gap of Gaussian weights of given shapes, in nats: what to compare one with.

    It is 0.1630 where rows and columns are long, and less where their scales are the means of few
    values: a mean takes part of the law with it.

    Args:
        layouts: of the weights.
        present: share of each one's values that are not zero, of which two digits count; by default
            all of them.

    >>> [round(gap, 3) for gap in gaussian_core_gaps([Layout(10**5, n, 1) for n in (16, 64, 576)])]
    [0.124, 0.152, 0.162]
    """
    shares = [1.0] * len(layouts) if present is None else present
    wanted = [
        (layout, max(0.01, round(share, 2))) for layout, share in zip(layouts, shares, strict=True)
    ]
    missing = [each for each in dict.fromkeys(wanted) if each not in _GAUSSIAN_GAPS]
    if missing:
        counts = torch.stack([torch.from_numpy(_gaussian_counts(*each)) for each in missing])
        binned = occupied_bins(counts)
        found = gap(binned, fit_family(LOGNORMAL, binned, log_moments(binned)))
        _GAUSSIAN_GAPS.update(zip(missing, found.tolist(), strict=True))
    return [_GAUSSIAN_GAPS[each] for each in wanted]


#: Gaps that are known; a network has few shapes.
_GAUSSIAN_GAPS: dict[tuple[Layout, float], float] = {}


def _weights(layout: Layout, present: float) -> list[tuple[float, float]]:
    """Return how many values of ln|w| enter a residual, and with what weight.

    The value itself; those of the same row and column; of the same row; of the same column; others.
    """
    rows, columns, positions = layout
    # Of a weight of which hardly anything is left no mean is of less than one value.
    present = max(present, 1 / max(1, rows * columns * positions))
    by_row = 1 / (columns * positions * present) if layout.centres_rows else 0.0
    by_column = 1 / (rows * positions * present) if layout.centres_columns else 0.0
    mean = 1 / (rows * columns * positions * present) if by_row and by_column else 0.0
    others = [
        (positions - 1, mean - by_row - by_column),
        ((columns - 1) * positions, mean - by_row),
        ((rows - 1) * positions, mean - by_column),
        ((rows - 1) * (columns - 1) * positions, mean),
    ]
    return [
        (1.0, 1 - by_row - by_column + mean),
        *((number * present, weight) for number, weight in others),
    ]


def _gaussian_counts(layout: Layout, present: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return what the residuals of Gaussian weights would count as, of 2**48 values.

    The distribution function follows from the characteristic function φ(t)
    (J. Gil-Pelaez, Biometrika 38 (1951) 481): F(x) = ½ − (1/π) ∫ Im(e^{−itx} φ(t))/t dt, here as
    a sum at the middles of equal steps in t, which is exact for a law within half a period.
    """
    codes, places = _places()
    step = 2 * np.pi / _PERIOD
    frequency = (np.arange(int(_FREQUENCY / step)) + 0.5) * step
    log_phi = sum(
        number * _log_characteristic(weight * frequency)
        for number, weight in _weights(layout, present)
        if number and weight
    )
    phi = np.exp(log_phi) / frequency
    # A few places at a time: all angles at once would take 10 MB.
    imaginary = [
        _imaginary(np.outer(part, frequency), phi)
        for part in np.split(places, range(_AT_ONCE, len(places), _AT_ONCE))
    ]
    below = 0.5 - np.concatenate(imaginary) * step / np.pi
    mass = np.clip(np.diff(below), 0, None)
    counts = np.zeros(CODES, dtype=np.int64)
    counts[codes[:-1]] = np.rint(np.where(mass > 1e-12, mass, 0) * _POPULATION)
    return counts


def _log_characteristic(t: Array) -> np.ndarray[Any, np.dtype[np.complex128]]:
    """Return ln E e^{it ln|N|}, N a standard Gaussian: E|N|^s = 2^{s/2} Γ((1 + s)/2)/√π."""
    found: np.ndarray[Any, np.dtype[np.complex128]] = (
        0.5j * t * np.log(2) + loggamma((1 + 1j * t) / 2) - 0.5 * np.log(np.pi)
    )
    return found


def _imaginary(angles: Array, phi: np.ndarray[Any, np.dtype[np.complex128]]) -> Array:
    """Return Σ Im(e^{−i·angle} φ) of each row of angles."""
    found: Array = np.cos(angles) @ phi.imag - np.sin(angles) @ phi.real
    return found


@lru_cache(maxsize=1)
def _places() -> tuple[Array, Array]:
    """Return codes of the range of ln|N|, and their lower edges."""
    edges = log_edges().numpy()
    codes = np.arange(FIRST_POSITIVE, FIRST_NONFINITE)
    codes = codes[(edges[codes] > _LOWEST) & (edges[codes] < _HIGHEST)]
    return codes, edges[codes]
