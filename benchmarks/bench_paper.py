"""What batching buys: the paper's protocol for 814 streams at once against a loop of curve_fit.

Both sides fit every stream and Gaussian weights of the same max/rms, from the same counts of equal
bins, and report R², μ', σ' and A'.  The streams are a model's worth of seeded laws, from Gaussian
to lognormal.  The answers are asserted: where both converge they agree to 1e-6.

    python benchmarks/bench_paper.py
"""

import numpy as np
import torch
from laws import STREAMS, magnitudes, median_seconds
from scipy import optimize

from jaynes_callbacks.statistics import PaperFit, gaussian_masses, paper_protocol

BINS = 100
REPEATS = 7
PROMISED = 20.0

Array = np.ndarray
CENTRES = (np.arange(BINS) + 0.5) / BINS


def streams() -> tuple[Array, Array]:
    """Counts of equal bins on [0, 1], and rms/max, of every stream."""
    counts, scale = [], []
    for values in magnitudes():
        counts.append(np.histogram(values, BINS, (0.0, 1.0))[0])
        scale.append(np.sqrt((values**2).mean()))
    return np.array(counts), np.array(scale)


def density(x: Array, amplitude: float, mu: float, sigma: float) -> Array:
    """The curve as one would write it for curve_fit."""
    z = (np.log(x) - mu) / sigma
    return amplitude * np.exp(-0.5 * z**2) / (x * sigma * np.sqrt(2 * np.pi))


def one_curve(counts: Array, **options: float) -> tuple[float, float, float, float]:
    """R², μ', σ', A' of one row by scipy, started from the curve's own moments."""
    y = counts * CENTRES
    peak = y.max()
    share = y / y.sum()
    mean = share @ np.log(CENTRES)
    spread = np.sqrt(share @ (np.log(CENTRES) - mean) ** 2)
    start = (y.sum() / BINS / peak, mean, spread)
    (amplitude, mu, sigma), _ = optimize.curve_fit(density, CENTRES, y / peak, start, **options)
    left = ((y / peak - density(CENTRES, amplitude, mu, sigma)) ** 2).sum()
    r2 = 1 - left / ((y / peak - (y / peak).mean()) ** 2).sum()
    return r2, mu, abs(sigma), amplitude * peak


def loop(counts: Array, gaussian: Array, **options: float) -> Array:
    """The protocol stream by stream: R², μ', σ', A' and the R² of Gaussian weights."""
    rows = zip(counts, gaussian, strict=True)
    return np.array(
        [
            (*one_curve(row, **options), reference(ref, one_curve(ref, **options)[0], row.sum()))
            for row, ref in rows
        ]
    )


def reference(masses: Array, r2: float, n: int) -> float:
    """R² of n Gaussian weights on average: their counts scatter around the masses."""
    y, scatter = masses * CENTRES, (CENTRES**2 * masses * (1 - masses)).sum() / n
    spread = ((y - y.mean()) ** 2).sum()
    return float(1 - ((1 - r2) * spread + scatter) / (spread + scatter * (1 - 1 / BINS)))


def batched(counts: torch.Tensor, scale: torch.Tensor) -> PaperFit:
    """The protocol for all streams at once."""
    return paper_protocol(counts, torch.ones_like(scale), scale)


def check(fit: PaperFit, expected: Array) -> None:
    """The batch ends where a loop driven to the limits of float64 ends."""
    if (fit.status != 0).any():
        raise AssertionError(f"fits without a figure: {fit.status.nonzero().flatten().tolist()}")
    ours = torch.stack(fit[:5], dim=-1).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def main() -> None:
    """Print both times, on one thread each, and their ratio."""
    torch.set_num_threads(1)
    counts, scale = streams()
    gaussian = gaussian_masses(torch.tensor(scale), BINS).numpy()
    rows, scales = torch.tensor(counts), torch.tensor(scale)
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "maxfev": 10_000}
    check(batched(rows, scales), loop(counts, gaussian, **tight))
    together = median_seconds(lambda: batched(rows, scales), REPEATS)
    one_by_one = median_seconds(lambda: loop(counts, gaussian), 3)
    print(
        f"paper protocol, {STREAMS} streams and as many Gaussian references, one thread: "
        f"batched {1e3 * together:.1f} ms, a loop of curve_fit {1e3 * one_by_one:.0f} ms, "
        f"{one_by_one / together:.0f} times faster (promised: {PROMISED:.0f})"
    )


if __name__ == "__main__":
    main()
