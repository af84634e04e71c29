"""Figures of records, one function each: records in, a matplotlib Figure out.

No function touches pyplot or any global state, so they can be called from a training loop, a
notebook or a thread.  Colours are those of M. Okabe & K. Ito (2008), told apart with any colour
vision; curves differ in their dashes too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaynes_callbacks.grid import log_edges
from jaynes_callbacks.record import Record, Records
from jaynes_callbacks.statistics import (
    FAMILIES,
    Fit,
    fit_family,
    half_normal_masses,
    linear_from_counts,
    log_moments,
    occupied_bins,
    paper_curve,
)
from jaynes_callbacks.summary import PAPER_IOTA_BINS, counts_of
from jaynes_callbacks.verdict import BANDS

__all__ = ["gap_over_steps", "log_density", "paper_view"]

Array = np.ndarray[Any, np.dtype[np.float64]]


class _Style(NamedTuple):
    background: str
    ink: str
    faint: str
    start: str


_LIGHT = _Style("#ffffff", "#222222", "#dddddd", "#9a9a9a")
_DARK = _Style("#1b1b1f", "#e8e8e8", "#44444c", "#8a8a92")
_DATA = "#0072b2"
_COLOURS = {
    "lognormal": ("#d55e00", "-"),
    "half_normal": ("#009e73", "--"),
    "uniform": ("#cc79a7", ":"),
    "exponential": ("#e69f00", "-."),
}
_MORE = ("#56b4e9", "#f0e442", "#0072b2", "#999999")
#: Curves of more streams than this are drawn without a legend entry each.
_LEGEND_STREAMS = 10


def paper_view(record: Record, start: Record | None = None, *, dark: bool = False) -> Figure:
    """The size-weighted histogram as the paper draws it, with what Gaussian weights would give.

    Dots: bin centre × count over w/max.  Solid: the fitted A'·LN(μ', σ').  Dashed: the expectation
    of Gaussian weights with the same max/rms and number.  Grey dots: the start, if given.
    Counts are drawn as shares, so that two records of different n can be compared.

    Args:
        record: with its counts.
        start: an earlier record of the same stream.
        dark: for a dark page.
    """
    figure, (axes,) = _canvas(dark, record)
    style = _DARK if dark else _LIGHT
    centres, weighted = _size_weighted(record)
    if start is not None and start.n:
        first = _size_weighted(start)
        axes.plot(*first, ".", color=style.start, markersize=4, label=f"step {start.step}")
    axes.plot(
        centres, weighted, ".", color=_DATA, markersize=5, label=f"step {record.step}", zorder=3
    )
    if np.isfinite(record.paper_r2):
        axes.plot(
            centres,
            _fitted(record, centres),
            color=_COLOURS["lognormal"][0],
            label=f"lognormal fit, R² {record.paper_r2:.3f}",
        )
    if np.isfinite(record.max) and np.isfinite(record.rms):
        axes.plot(
            centres,
            _gaussian(record, centres),
            color=_COLOURS["half_normal"][0],
            linestyle="--",
            label=f"Gaussian weights, R² {record.paper_r2_gaussian:.3f}",
        )
    axes.set_xlabel("w / max" if record.kind == "weight" else "y / max")
    axes.set_ylabel("centre × share")
    axes.set_xlim(0, _visible(centres, weighted))
    axes.set_ylim(bottom=0)
    _legend(axes, style)
    return figure


def log_density(record: Record, start: Record | None = None, *, dark: bool = False) -> Figure:
    """Density of ln w with every fitted family, start against end, and what each leaves over.

    Below: ln(density/family), the residual that the gap averages.

    Args:
        record: with its counts.
        start: an earlier record of the same stream.
        dark: for a dark page.
    """
    figure, (upper, lower) = _canvas(dark, record, rows=2)
    style = _DARK if dark else _LIGHT
    if start is not None and start.n:
        upper.plot(*_density(start), color=style.start, label=f"step {start.step}")
    middle, density = _density(record)
    upper.step(middle, density, where="mid", color=_DATA, label=f"step {record.step}", zorder=3)
    gaps = {"lognormal": record.gap, **record.rival_gaps}
    for number, fit in enumerate(_fits(record)):
        name = fit.family.name
        colour, dashes = _COLOURS.get(name, (_MORE[number % len(_MORE)], "--"))
        curve = _family_density(fit, middle)
        if not np.isfinite(curve).any():
            continue
        look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.4}
        label = f"{name.replace('_', '-')}, gap {gaps.get(name, np.nan):.3f}"
        upper.plot(middle, curve, label=label, **look)
        residual = np.log(np.maximum(density, 1e-300) / np.maximum(curve, 1e-300))
        lower.plot(middle, np.where((density > 0) & (curve > 0), residual, np.nan), **look)
    upper.set_ylabel("density of ln w")
    lower.set_ylabel("ln(data/fit)")
    lower.set_xlabel("ln w" if record.kind == "weight" else "ln y")
    lower.set_ylim(-1, 1)
    lower.axhline(0, color=style.ink, linewidth=0.6)
    if density.any():
        upper.set_xlim(*_bulk(middle, density))
        upper.set_ylim(0, 1.6 * density.max())
    _legend(upper, style, loc="upper left")
    return figure


def gap_over_steps(history: Records, *, dark: bool = False) -> Figure:
    """The gap of every stream over optimizer steps, with the display bands.

    Weights are solid, activations dashed.  Equilibrium is below.

    Args:
        history: rows of many steps; counts are not needed.
        dark: for a dark page.
    """
    style = _DARK if dark else _LIGHT
    figure, (axes,) = _canvas(dark)
    streams: dict[tuple[str, str], list[Record]] = {}
    for record in history:
        streams.setdefault(record.key, []).append(record)
    colours = [*(colour for colour, _ in _COLOURS.values()), _DATA, *_MORE]
    for number, ((kind, name), rows) in enumerate(streams.items()):
        axes.plot(
            [row.step for row in rows],
            [max(row.gap, 1e-4) for row in rows],
            color=colours[number % len(colours)],
            linestyle="-" if kind == "weight" else "--",
            marker="." if len(rows) < 30 else None,
            label=f"{kind} {name}" if len(streams) <= _LEGEND_STREAMS else None,
        )
    for name, limit in BANDS.items():
        if np.isfinite(limit):
            axes.axhline(limit, color=style.start, linewidth=0.8, linestyle=":")
            axes.annotate(
                name,
                (1.0, limit),
                xycoords=("axes fraction", "data"),
                color=style.ink,
                fontsize=8,
                ha="right",
                va="top",
                xytext=(-3, -2),
                textcoords="offset points",
            )
    axes.set_yscale("log")
    axes.set_ylim(1e-4 if _smallest(history) < 1e-3 else 1e-3, 1.0)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("arbitrage gap (nats)")
    axes.set_title("distance to the best lognormal", color=style.ink, fontsize=11)
    if streams:
        _legend(axes, style, loc="lower left")
    return figure


# Curves ------------------------------------------------------------------------------------------


def _size_weighted(record: Record) -> tuple[Array, Array]:
    if record.paper_counts.size:
        linear = record.paper_counts.astype(np.float64)
    else:
        maximum = torch.tensor([record.max], dtype=torch.float64).nan_to_num(1.0)
        linear = linear_from_counts(counts_of([record]), maximum, PAPER_IOTA_BINS)[0].numpy()
    centres = (np.arange(linear.size) + 0.5) / linear.size
    return centres, centres * linear / max(linear.sum(), 1.0)


def _fitted(record: Record, centres: Array) -> Array:
    mu, sigma = torch.tensor([[record.paper_mu], [record.paper_sigma]], dtype=torch.float64)
    curve: Array = paper_curve(torch.from_numpy(centres), mu, sigma)[0].numpy()
    return record.paper_amplitude / max(record.n, 1) * curve


def _gaussian(record: Record, centres: Array) -> Array:
    scale = torch.tensor([record.rms / record.max], dtype=torch.float64)
    masses: Array = half_normal_masses(scale, centres.size)[0].numpy()
    return centres * masses


def _visible(centres: Array, weighted: Array) -> float:
    """Up to where the curve holds all but a thousandth of itself."""
    total = weighted.sum()
    if not total:
        return 1.0
    inside = np.searchsorted(weighted.cumsum(), 0.999 * total)
    return float(min(1.0, 1.1 * centres[min(inside, centres.size - 1)]))


def _density(record: Record) -> tuple[Array, Array]:
    """Middles of all bins between the lowest and the highest occupied one, and the density."""
    edges = log_edges().numpy()
    codes = record.codes[(record.codes > 0) & (record.codes < edges.size - 1)]
    if not codes.size:
        return np.zeros(1), np.zeros(1)
    span = np.arange(codes.min(), codes.max() + 1)
    counts = counts_of([record])[0].numpy()[span]
    widths = edges[span + 1] - edges[span]
    return (edges[span] + edges[span + 1]) / 2, counts / (counts.sum() * widths)


def _bulk(middle: Array, density: Array) -> tuple[float, float]:
    """Where all but the lowest hundredth and the highest thousandth are, with some room."""
    mass = density.cumsum() / density.sum()
    low, high = np.searchsorted(mass, [0.01, 0.999])
    return float(middle[low] - 0.5), float(middle[min(high, middle.size - 1)] + 0.5)


def _fits(record: Record) -> Sequence[Fit]:
    binned = occupied_bins(counts_of([record]))
    moments = log_moments(binned)
    return [fit_family(family, binned, moments) for family in FAMILIES]


def _family_density(fit: Fit, middle: Array) -> Array:
    half = 0.01
    lower, upper = (torch.from_numpy(middle + shift)[None] for shift in (-half, half))
    mass: Array = fit.family.log_mass(fit.parameters, lower, upper).exp()[0].numpy()
    return mass / (2 * half)


def _smallest(history: Records) -> float:
    return min((row.gap for row in history if np.isfinite(row.gap)), default=1.0)


# Paper and ink -----------------------------------------------------------------------------------


def _canvas(dark: bool, record: Record | None = None, rows: int = 1) -> tuple[Figure, list[Axes]]:
    style = _DARK if dark else _LIGHT
    figure = Figure(figsize=(6.4, 4.2 if rows == 1 else 5.2), dpi=120, layout="constrained")
    figure.set_facecolor(style.background)
    heights = [1] if rows == 1 else [3, 1]
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes in grid[:, 0]:
        axes.set_facecolor(style.background)
        axes.tick_params(colors=style.ink, which="both")
        axes.grid(color=style.faint, linewidth=0.5)
        for spine in axes.spines.values():
            spine.set_color(style.faint)
        axes.xaxis.label.set_color(style.ink)
        axes.yaxis.label.set_color(style.ink)
    if record is not None:
        grid[0, 0].set_title(_title(record), color=style.ink, fontsize=11, parse_math=False)
    return figure, list(grid[:, 0])


def _title(record: Record) -> str:
    name = record.name if len(record.name) <= 48 else f"…{record.name[-47:]}"
    verdict = f": {record.verdict}" if record.verdict else ""
    return f"{record.kind} {name} (n = {record.n:,}){verdict}"


def _legend(axes: Axes, style: _Style, loc: Any = "best") -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc=loc,
            fontsize=8,
            facecolor=style.background,
            edgecolor=style.faint,
            labelcolor=style.ink,
            framealpha=0.85,
        )
