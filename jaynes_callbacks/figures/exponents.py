"""The claim of universality: α and β of every layer, beside Gaussian weights and the paper's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from jaynes_callbacks.figures.curves import Array
from jaynes_callbacks.figures.layers import HEADINGS, paths_by_kind
from jaynes_callbacks.figures.look import (
    LIGHT,
    Look,
    blank,
    canvas,
    family_line,
    heading,
    legend,
)
from jaynes_callbacks.instruments.distribution import PAPER_IOTA_BINS, gaussian_power
from jaynes_callbacks.instruments.record import Kind, Record
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.statistics import LOGNORMAL, gaussian_masses, paper_protocol
from jaynes_callbacks.statistics.equilibrium import exponents

__all__ = ["TABLE_TWO", "exponents_over_layers"]

#: Means of μ' and σ' over the layers of the paper's large networks (arXiv 2405.10955, Table II;
#: left out is BlazePose, σ' 1.49).
TABLE_TWO = {
    "Xception": (-2.87, 0.70),
    "VGG16": (-2.36, 0.68),
    "BERT-Small": (-2.47, 0.65),
    "BERT-Large": (-2.37, 0.64),
    "Llama-2-7B": (-2.96, 0.66),
    "Llama-2-13B": (-3.02, 0.67),
}
_NAMES: dict[Kind, tuple[str, str]] = {"weight": ("α", "β"), "iota": ("η", "ζ")}


class _Exponents(NamedTuple):
    """Of one series of layers: the coefficients of ln w and of −ln² w, w over its maximum."""

    linear: Array
    square: Array


def exponents_over_layers(records: Sequence[Record], *, look: Look = LIGHT) -> Figure:
    """α and β (of activations η and ζ, Eqs 13 and 24) of every layer, w taken over its maximum.

    Dots are the paper's protocol on the data, diamonds the same protocol on Gaussian weights of
    the same max/rms, crosses the lognormal of greatest likelihood; the band holds the networks of
    the paper's Table II.  Where dots lie on the diamonds, the protocol finds in the layer what it
    finds in random weights; so a band that holds both is no evidence of equilibrium.

    Args:
        records: one row of each stream; counts are not needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> row = Record(name="fc.weight", n=10, max=1.0, rms=0.3, paper_mu=-2.4, paper_sigma=0.65)
        >>> [axes.get_ylabel() for axes in exponents_over_layers([row]).axes]
        ['β of weights', 'α of weights']
    """
    kinds = list(paths_by_kind(records)) or ["weight"]
    figure, rows = canvas(look, [1.7] * (2 * len(kinds)), sharex=False)
    entries: list[tuple[Artist, str]] = []
    for number, kind in enumerate(kinds):
        of_kind = [record for record in records if record.kind == kind]
        series = _series(of_kind)
        for axes, part in zip(rows[2 * number : 2 * number + 2], (1, 0), strict=True):
            axes.set_ylabel(f"{_NAMES[kind][part]} of {HEADINGS[kind]}")
            found = _draw(axes, look, [(name, pair[part]) for name, pair in series], kind, part)
            entries = entries or found
        rows[2 * number + 1].set_xlabel(f"layer, in the network's order ({HEADINGS[kind]})")
    heading(rows[0], look, "Are the exponents universal, and are they more than chance's?")
    legend(figure, look, entries)
    return figure


def _series(records: Sequence[Record]) -> list[tuple[str, _Exponents]]:
    """The data's by the paper's protocol, the same of Gaussian weights, the likelihood's."""
    if not records:
        return []
    columns = ("paper_mu", "paper_sigma", "mu", "sigma", "max")
    mu_paper, sigma_paper, mu, sigma, maximum = (_column(records, name) for name in columns)
    return [
        ("paper's protocol", _of_size_weighted(mu_paper, sigma_paper)),
        ("the same on Gaussian weights", _of_size_weighted(*_gaussian(records))),
        ("greatest likelihood", _of(mu - maximum.log(), sigma)),
    ]


def _gaussian(records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """μ' and σ' of Gaussian weights with each layer's max/rms, by the paper's protocol."""
    scale = _column(records, "rms") / _column(records, "max")
    power = torch.tensor([gaussian_power(row.variable) for row in records], dtype=torch.float64)
    bins = PAPER_BINS if records[0].kind == "weight" else PAPER_IOTA_BINS
    known = scale.isfinite() & (scale > 0)
    mu = torch.full_like(scale, torch.nan)
    sigma = mu.clone()
    if known.any():
        masses = gaussian_masses(scale[known], bins, power[known])
        fit = paper_protocol(masses, torch.ones_like(scale[known]), scale[known])
        mu[known], sigma[known] = fit.mu, fit.sigma
    return mu, sigma


def _of_size_weighted(mu: Tensor, sigma: Tensor) -> _Exponents:
    """The size-weighted lognormal has μ' = μ + σ² and the same σ (THEORY §6)."""
    return _of(mu - sigma**2, sigma)


def _of(mu: Tensor, sigma: Tensor) -> _Exponents:
    linear, square = exponents(mu, sigma)
    return _Exponents(linear.numpy(), square.numpy())


def _column(records: Sequence[Record], name: str) -> Tensor:
    return torch.tensor([getattr(record, name) for record in records], dtype=torch.float64)


def _draw(
    axes: Axes, look: Look, series: Sequence[tuple[str, Array]], kind: Kind, part: int
) -> list[tuple[Artist, str]]:
    shown = [values[np.isfinite(values)] for _, values in series]
    if not any(values.size for values in shown):
        blank(axes, look, "no fits")
        return []
    styles: Sequence[dict[str, Any]] = (
        {"marker": "o", "color": look.ink, "markersize": 4.5},
        {
            "marker": "D",
            "color": family_line("half_normal").color,
            "markersize": 6,
            "fillstyle": "none",
        },
        {"marker": "x", "color": family_line(LOGNORMAL.name).color, "markersize": 5},
    )
    entries: list[tuple[Artist, str]] = []
    for (name, values), style in zip(series, styles, strict=True):
        (line,) = axes.plot(range(len(values)), values, linestyle="none", **style)
        entries.append((line, name))
    low, high = _limits([values for values in shown if values.size])
    if kind == "weight":
        table = _of_size_weighted(*torch.tensor(list(TABLE_TWO.values()), dtype=torch.float64).T)
        band = axes.axhspan(table[part].min(), table[part].max(), color=look.data, zorder=0)
        entries.append((band, "networks of the paper's Table II"))
        low, high = min(low, table[part].min()), max(high, table[part].max())
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return entries


def _limits(shown: Sequence[Array]) -> tuple[float, float]:
    """All but the wildest tenth of the values: one layer without a peak must not hide the rest."""
    values = np.concatenate(shown)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    spread = max(high - low, 0.2 * abs(middle), 0.2)
    return float(max(values.min(), low - spread)), float(min(values.max(), high + spread))
