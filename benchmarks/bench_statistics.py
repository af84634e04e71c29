"""What batching buys: every family and distance for 814 streams at once against a loop of scipy.

The loop does what one would write with scipy for one stream after another, on the same binned data:
`scipy.optimize.minimize` of the grouped likelihood, bin masses from `scipy.stats`; once as
`scipy.stats` itself fits (Nelder-Mead from shapes of one), once as fast as it gets (BFGS from the
batch's own starts).  It is measured on a sample of streams and scaled.  The answers are asserted:
no gap of scipy's is below ours, and nearly all agree.

    python benchmarks/bench_statistics.py
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from laws import STREAMS, magnitudes, median_seconds
from scipy import optimize, special, stats
from scipy_laws import gengamma_parameters, half_t

from jaynes_callbacks.counts.counting import count_
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import (
    FAMILIES,
    LOGNORMAL,
    RIVALS,
    Binned,
    Distances,
    Family,
    Fit,
    LogMoments,
    Status,
    distances,
    fit_families,
    gap,
    log_moments,
    occupied_bins,
    vuong_z,
)

REPEATS = 5
#: Every so many streams one that the loop fits: all six laws, some twice.
STRIDE = 89
PROMISED, SECONDS = 200.0, 1.5
#: Bias-corrected gaps of two optimisers, in nats; theirs stop at 1e-8.
TOLERANCE = 1e-6

Array = np.ndarray
Law = Callable[..., tuple[Array, Array]]


def of_scipy(law: stats.rv_continuous, *shape: float, scale: float) -> Law:
    """Distribution function and survival function at the edges."""
    return law.cdf(shape[0], *shape[1:], scale=scale), law.sf(shape[0], *shape[1:], scale=scale)


def of_gengamma(w: Array, a: float, c: float, scale: float) -> tuple[Array, Array]:
    """The same of the generalized gamma."""
    return of_scipy(stats.gengamma, w, a, c, scale=scale)


SCIPY: dict[str, Law] = {
    "lognormal": lambda w, mu, sigma: of_scipy(stats.lognorm, w, sigma, scale=np.exp(mu)),
    "half_normal": lambda w, scale: of_scipy(stats.halfnorm, w, scale=scale),
    "exponential": lambda w, scale: of_scipy(stats.expon, w, scale=scale),
    "half_student_t": half_t,
    "weibull": lambda w, shape, scale: of_scipy(stats.weibull_min, w, shape, scale=scale),
    "gamma": lambda w, shape, scale: of_scipy(stats.gamma, w, shape, scale=scale),
    "generalized_normal": lambda w, scale, power: of_gengamma(w, 1 / power, power, scale),
    "generalized_gamma": lambda w, mu, sigma, q: of_gengamma(w, *gengamma_parameters(mu, sigma, q)),
}


class Answer(NamedTuple):
    """All that is reported of the streams."""

    fits: dict[str, Fit]
    gaps: dict[str, torch.Tensor]
    vuong: dict[str, torch.Tensor]
    distances: Distances


def streams() -> torch.Tensor:
    """Counts on the universal grid."""
    counts = torch.zeros(STREAMS, CODES, dtype=torch.int64)
    for row, values in enumerate(magnitudes()):
        count_(torch.from_numpy(values), counts, row)
    return counts


def batched(counts: torch.Tensor) -> Answer:
    """Every family's gap and Vuong's z, and the lognormal's distances, for all streams at once."""
    binned = occupied_bins(counts)
    moments = log_moments(binned)
    fits = fit_families(binned, moments, torch.get_num_threads())
    lognormal = fits[LOGNORMAL.name]
    return Answer(
        fits,
        {name: gap(binned, fit) for name, fit in fits.items()},
        {rival.name: vuong_z(binned, lognormal, fits[rival.name]) for rival in RIVALS},
        distances(binned, lognormal),
    )


def plain_start(family: Family, moments: LogMoments) -> list[float]:
    """Location and scale from the data and every shape one."""
    known = {"mu": moments.mean.item(), "scale": moments.rms.item()}
    return [known.get(parameter.name, 1.0) for parameter in family.parameters]


def one_gap(family: Family, binned: Binned, start: list[float], method: str) -> float:
    """Bias-corrected gap of one stream to one family by scipy."""
    counts, n = binned.weights[0].numpy(), binned.total.item()
    lower, upper = binned.lower[0].exp().numpy(), binned.upper[0].exp().numpy()
    edges = np.concatenate([lower, upper])
    positive = [parameter.scale != "linear" for parameter in family.parameters]

    def natural(theta: Array) -> list[float]:
        return [np.exp(t) if log else t for t, log in zip(theta, positive, strict=True)]

    def loss(theta: Array) -> float:
        cdf, sf = SCIPY[family.name](edges, *natural(theta))
        (below, above), (far, near) = np.split(cdf, 2), np.split(sf, 2)
        mass = np.where(below < 0.5, above - below, far - near)
        value = -float(counts @ np.log(mass)) / n
        return value if math.isfinite(value) else 1e9

    theta = [math.log(v) if log else v for v, log in zip(start, positive, strict=True)]
    tolerances: dict[str, Any] = {
        "Nelder-Mead": {"xatol": 1e-4, "fatol": 1e-8},
        "BFGS": {"gtol": 1e-6},
    }
    with np.errstate(all="ignore"):
        found = optimize.minimize(loss, theta, method=method, options=tolerances[method])
    entropy = float(special.entr(counts / n).sum())
    return float(found.fun) - entropy - (len(counts) - 1 - len(theta)) / (2 * n)


def loop(counts: torch.Tensor, rows: list[int], method: str) -> dict[str, list[float]]:
    """Gaps of some streams, one after the other, by scipy; the uniform is closed form."""
    gaps: dict[str, list[float]] = {name: [] for name in SCIPY}
    for row in rows:
        binned = occupied_bins(counts[row : row + 1])
        moments = log_moments(binned)
        for family in FAMILIES:
            if family.name in SCIPY:
                start = (
                    family.start(binned, moments)[0].tolist()
                    if method == "BFGS"
                    else plain_start(family, moments)
                )
                gaps[family.name].append(one_gap(family, binned, start, method))
    return gaps


def check(ours: Answer, theirs: dict[str, list[float]], rows: list[int]) -> int:
    """How many gaps agree, nine in ten at the least; of the rest none is below ours."""
    agree, number = 0, 0
    for name, values in theirs.items():
        for row, value in zip(rows, values, strict=True):
            if ours.fits[name].status[row] == Status.CONVERGED and value < 1e3:
                if not ours.gaps[name][row] < value + TOLERANCE:
                    raise AssertionError(f"{name}, stream {row}: {ours.gaps[name][row]}, {value}")
                agree += abs(ours.gaps[name][row].item() - value) < TOLERANCE
                number += 1
    if agree < 0.9 * number:
        raise AssertionError(f"only {agree} of {number} gaps agree to {TOLERANCE}")
    return agree


def main() -> None:
    """Print both times and their ratio."""
    torch.set_num_threads(2)
    counts = streams()
    rows = list(range(0, STREAMS, STRIDE))
    ours = batched(counts)
    together = median_seconds(lambda: batched(counts), REPEATS)
    print(
        f"all families and distances, {STREAMS} streams at once: {together:.2f} s "
        f"(promised: {SECONDS} s)"
    )
    for method, start in (("Nelder-Mead", "shapes of one"), ("BFGS", "the batch's starts")):
        since = time.perf_counter()
        theirs = loop(counts, rows, method)
        scaled = (time.perf_counter() - since) * STREAMS / len(rows)
        print(
            f"a loop of scipy ({method} from {start}), {len(rows)} streams scaled to {STREAMS}: "
            f"{scaled:.0f} s, {scaled / together:.0f} times as long (promised: {PROMISED:.0f}); "
            f"{check(ours, theirs, rows)} of {len(rows) * len(theirs)} gaps equal to {TOLERANCE}, "
            "none lower than ours"
        )


if __name__ == "__main__":
    main()
