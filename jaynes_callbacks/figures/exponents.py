"""The exponents α and β of every layer, beside those of Gaussian weights and of the paper."""

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
from jaynes_callbacks.figures.inputs import Rows, as_frame
from jaynes_callbacks.figures.look import LIGHT, Look, blank, canvas, heading, legend, printable
from jaynes_callbacks.instruments.distribution import gaussian_power, paper_bins_of
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.stream import IOTA, WEIGHT, in_order, kind_label
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    LOGNORMAL,
    gaussian_masses,
    paper_protocol,
)
from jaynes_callbacks.statistics.equilibrium import exponents
from jaynes_callbacks.statistics.published import TABLE_TWO

__all__ = ["LARGE_NETWORKS", "exponents_over_layers"]

#: Means of μ' and σ' over the layers of the paper's large networks; left out is BlazePose, σ' 1.49.
LARGE_NETWORKS = [
    (row.mu[0], row.sigma[0]) for name, row in TABLE_TWO.items() if name != "BlazePose"
]
#: Names of the two exponents in the order of `_Exponents`: Eq. 13, and Eq. 24 of activations.
_NAMES, _NAMES_OF_IOTA = ("α", "β"), ("η", "ζ")


class _Exponents(NamedTuple):
    """Exponents of a series of layers, the magnitudes taken over their maximum.

    Attributes:
        linear: coefficients of ln w: α.
        square: coefficients of −ln² w: β.
    """

    linear: Array
    square: Array


class _Series(NamedTuple):
    """One of the things that are compared.

    Attributes:
        label: in the legend.
        marker: options of matplotlib's lines; their colour is ink by default.
        exponents: of every layer; nan where there is no fit.
    """

    label: str
    marker: dict[str, Any]
    exponents: _Exponents


def exponents_over_layers(records: Rows, *, look: Look = LIGHT) -> Figure:
    """Draw α and β (of activations η and ζ; Eqs 13, 24) of every layer, w taken over its maximum.

    Dots are fits of the paper's protocol to the data, diamonds the same fits to Gaussian weights
    of the same max/rms, crosses the lognormal of maximum likelihood; the band holds the networks
    of the paper's Table II.  Where dots lie on diamonds, the protocol finds in the layer what it
    finds in random weights, so that a band that holds both is no evidence of equilibrium.

    Args:
        records: one record of each stream, see `inputs.Rows`; of several the last.  Counts are not
            needed.
        look: of the page, `LIGHT` or `DARK`.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> row = Record(name="fc.weight", n=10, max=1.0, rms=0.3, paper_mu=-2.4, paper_sigma=0.65)
        >>> [axes.get_ylabel() for axes in exponents_over_layers([row]).axes]
        ['β of weights', 'α of weights']
    """
    layers = list(as_frame(records).by_stream().values())
    kinds = in_order(row.kind for row in layers) or [WEIGHT]
    figure, rows = canvas(look, [1.7] * (2 * len(kinds)), sharex=False)
    entries: list[tuple[Artist, str]] = []
    for number, kind in enumerate(kinds):
        series = _series([row for row in layers if row.kind == kind])
        names = _NAMES_OF_IOTA if kind == IOTA else _NAMES
        label = printable(kind_label(kind))
        for axes, part in zip(rows[2 * number : 2 * number + 2], (1, 0), strict=True):
            axes.set_ylabel(f"{names[part]} of {label}")
            found = _draw(axes, look, series, part, has_table=kind == WEIGHT)
            entries = entries or found
        rows[2 * number + 1].set_xlabel(f"layer, in the network's order ({label})")
    heading(rows[0], look, "Are the exponents universal, and are they more than chance's?")
    legend(figure, look, entries)
    return figure


def _series(records: Sequence[Record]) -> list[_Series]:
    """Return the exponents by the paper's protocol, of Gaussian weights, by the likelihood."""
    columns = ("paper_mu", "paper_sigma", "mu", "sigma", "max")
    mu_paper, sigma_paper, mu, sigma, maximum = (_column(records, name) for name in columns)
    gaussian = FAMILY_BY_NAME["half_normal"].color
    return [
        _Series(
            "paper's protocol",
            {"marker": "o", "markersize": 4.5},
            _of_size_weighted(mu_paper, sigma_paper),
        ),
        _Series(
            "the same on Gaussian weights",
            {"marker": "D", "markersize": 6, "fillstyle": "none", "color": gaussian},
            _of_size_weighted(*_gaussian(records)),
        ),
        _Series(
            "greatest likelihood",
            {"marker": "x", "markersize": 5, "color": LOGNORMAL.color},
            _of(mu - maximum.log(), sigma),
        ),
    ]


def _gaussian(records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """Return μ' and σ' of Gaussian values with each layer's max/rms, by the paper's protocol."""
    scale = _column(records, "rms") / _column(records, "max")
    power = torch.tensor([gaussian_power(row.variable) for row in records], dtype=torch.float64)
    bins = torch.tensor([paper_bins_of(row) for row in records])
    mu, sigma = torch.full_like(scale, torch.nan), torch.full_like(scale, torch.nan)
    for number in bins.unique().tolist():
        known = (bins == number) & scale.isfinite() & (scale > 0)
        if known.any():
            masses = gaussian_masses(scale[known], number, power[known])
            fit = paper_protocol(masses, torch.ones_like(scale[known]), scale[known])
            mu[known], sigma[known] = fit.mu, fit.sigma
    return mu, sigma


def _of_size_weighted(mu: Tensor, sigma: Tensor) -> _Exponents:
    """Return the exponents of μ' and σ': size-weighted, a lognormal has μ' = μ + σ² and σ' = σ."""
    return _of(mu - sigma**2, sigma)


def _of(mu: Tensor, sigma: Tensor) -> _Exponents:
    """Return the exponents of a lognormal's μ and σ (Eq. 13)."""
    linear, square = exponents(mu, sigma)
    return _Exponents(linear.numpy(), square.numpy())


def _column(records: Sequence[Record], name: str) -> Tensor:
    return torch.tensor([getattr(record, name) for record in records], dtype=torch.float64)


def _draw(
    axes: Axes, look: Look, series: Sequence[_Series], part: int, *, has_table: bool
) -> list[tuple[Artist, str]]:
    """Draw one exponent of all layers; return legend entries.

    Args:
        axes: where to draw.
        look: colours of the page.
        series: what is compared.
        part: which of the `_Exponents`.
        has_table: whether the paper's Table II has layers of this kind.
    """
    shown = [found for each in series if (found := _finite(each.exponents[part])).size]
    if not shown:
        blank(axes, look, "no fits")
        return []
    entries: list[tuple[Artist, str]] = []
    for each in series:
        values = each.exponents[part]
        style = {"color": look.ink, **each.marker}
        (line,) = axes.plot(range(len(values)), values, linestyle="none", **style)
        entries.append((line, each.label))
    low, high = _limits(shown)
    if has_table:
        table = _of_size_weighted(*torch.tensor(LARGE_NETWORKS, dtype=torch.float64).T)
        band = axes.axhspan(table[part].min(), table[part].max(), color=look.data, zorder=0)
        entries.append((band, "networks of the paper's Table II"))
        low, high = min(low, table[part].min()), max(high, table[part].max())
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return entries


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _limits(shown: Sequence[Array]) -> tuple[float, float]:
    """Return limits near the central nine tenths of the values.

    The fit of a single layer without a peak may be far off, and must not squeeze all others.
    """
    values = np.concatenate(shown)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    spread = max(high - low, 0.2 * abs(middle), 0.2)
    return float(max(values.min(), low - spread)), float(min(values.max(), high + spread))
