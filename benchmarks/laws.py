"""A model's worth of seeded magnitudes, from Gaussian to lognormal, for the benches."""

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator

__all__ = ["STREAMS", "magnitudes", "median_seconds"]

#: As many layers as all the models of the paper's Table II together have.
STREAMS = 814

Array = np.ndarray

_LAWS: tuple[Callable[[Generator, int], Array], ...] = (
    lambda rng, n: rng.normal(size=n),
    lambda rng, n: rng.standard_t(rng.uniform(4, 20), n),
    lambda rng, n: rng.laplace(size=n),
    lambda rng, n: rng.lognormal(0.0, rng.uniform(0.3, 1.0), n),
    lambda rng, n: rng.weibull(rng.uniform(1.0, 2.5), n),
    lambda rng, n: rng.gamma(rng.uniform(1.0, 6.0), size=n),
)


def magnitudes() -> Iterator[Array]:
    """|w| of each stream, 1e4 to 3e5 values, over their maximum."""
    rng = np.random.default_rng(STREAMS)
    for row in range(STREAMS):
        size = int(10 ** rng.uniform(4.0, 5.5))
        values = np.abs(_LAWS[row % len(_LAWS)](rng, size))
        yield values / values.max()


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median wall time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
