"""Draw the pictures of the atlas of trained networks, and write its tables as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaynes_callbacks.figures import microstructure_map
from jaynes_callbacks.figures.look import LIGHT, canvas, heading
from jaynes_callbacks.files.roles import ROLES
from jaynes_callbacks.instruments.record import NEAR, Record, family_label
from jaynes_callbacks.records.text import count_text, number_text

if TYPE_CHECKING:
    from experiments.atlas import Network, Wheel

__all__ = ["gaussian_times_scales", "write_page"]

_COLORS = {
    "convolution": "#4c78a8",
    "mlp": "#e45756",
    "attention": "#54a24b",
    "embedding": "#b279a2",
    "head": "#eeca3b",
    "norm": "#9d755d",
    "other": "#8a929a",
}
#: Gap of Gaussian weights, in nats.
_GAUSSIAN = 0.163
_DPI = 130
#: Limits of the axes of gaps; what lies beyond them is drawn at the edge.
_LOWEST, _HIGHEST = 0.008, 2.5
#: Likewise, of the axes of the microstructure map.
_SKEW, _KURTOSIS = (-2.7, 0.7), (-2.0, 8.5)


def write_page(
    weights: pd.DataFrame,
    networks: pd.DataFrame,
    sources: "Mapping[str, tuple[Wheel, Network]]",
    output: Path,
) -> None:
    """Write ``tables.md`` and four pictures.

    Args:
        weights: of at least `atlas.FEWEST` values, a row for each.
        networks: a row for each network.
        sources: the wheel and the file of each network.
        output: folder to write into.
    """
    figures = {
        "raw_core": _raw_against_core(weights),
        "scale_share": _scale_shares(weights, networks),
        "microstructure": _microstructure(weights),
        "gap_scales": _gap_against_scales(weights),
    }
    for name, figure in figures.items():
        figure.savefig(output / f"{name}.png", dpi=_DPI)
    (output / "tables.md").write_text(_tables(weights, networks, sources))


def gaussian_times_scales(sd: float) -> float:
    """Return the gap of Gaussian weights times e^{sd N}, N standard normal, in nats.

    It is the entropy of a normal law of the variance of ln|w|, π²/8 + sd², less the entropy of
    ln|w|, whose density is that of ln|N| folded with a normal law.

    >>> [round(gaussian_times_scales(sd), 4) for sd in (0.0, 0.5, 1.0, 2.0)]
    [0.163, 0.0855, 0.0277, 0.0028]
    """
    step = 0.01
    x = np.arange(-40, 40, step)
    density = np.sqrt(2 / np.pi) * np.exp(x - np.exp(2 * np.minimum(x, 5)) / 2)
    if sd > 0:
        reach = np.arange(-8 * sd, 8 * sd + step / 2, step)
        kernel = np.exp(-((reach / sd) ** 2) / 2)
        density = np.convolve(density, kernel / kernel.sum(), mode="same")
    positive = density[density > 0]
    entropy = -float((positive * np.log(positive)).sum()) * step
    return 0.5 * float(np.log(2 * np.pi * np.e * (np.pi**2 / 8 + sd**2))) - entropy


# Pictures -----------------------------------------------------------------------------------------


def _scatter(axes: Axes, weights: pd.DataFrame, x: "pd.Series[Any]", y: str) -> None:
    """Draw a point for each weight in the colour of its role, at the axes' edge if it is beyond."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for role in ROLES:
        own = (weights["role"] == role) & x.notna() & weights[y].notna()
        if own.any():
            axes.scatter(
                x[own].clip(left, right), weights[y][own].clip(bottom, top), s=8, alpha=0.6,
                color=_COLORS[role], linewidths=0, label=role, clip_on=False, zorder=3,
            )  # fmt: skip


def _lines(axes: Axes, *, across: bool) -> None:
    """Draw where a gap counts as lognormal, and the gap of Gaussian weights."""
    for gap, style in ((NEAR, "--"), (_GAUSSIAN, ":")):
        axes.axhline(gap, color=LIGHT.muted, linestyle=style, linewidth=0.8)
        if across:
            axes.axvline(gap, color=LIGHT.muted, linestyle=style, linewidth=0.8)


def _raw_against_core(weights: pd.DataFrame) -> Figure:
    figure, (axes,) = canvas(LIGHT, [4.0])
    known = weights[weights["taken_off"] == "rows columns"]
    axes.set(xscale="log", yscale="log", xlim=(_LOWEST, _HIGHEST), ylim=(_LOWEST, _HIGHEST))
    axes.set(xlabel="gap, nats", ylabel="core gap, nats")
    _lines(axes, across=True)
    axes.axline((0.1, 0.1), (1, 1), color=LIGHT.ink, linewidth=0.8)
    _scatter(axes, known, known["gap"], "core_gap")
    heading(
        axes, LIGHT, "With and without the scales of rows and columns\ndashed 0.02, dotted Gaussian"
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _scale_shares(weights: pd.DataFrame, networks: pd.DataFrame) -> Figure:
    order = networks.sort_values("scale_share")["network"].tolist()
    figure, (axes,) = canvas(LIGHT, [0.16 * len(order) + 0.8], width=6.0)
    for place, name in enumerate(order):
        own = weights[weights["network"] == name]
        colors = [_COLORS[role] for role in own["role"]]
        axes.scatter(
            own["scale_share"], np.full(len(own), place), s=9, alpha=0.5, c=colors, linewidths=0
        )
        axes.plot(own["scale_share"].median(), place, "|", color=LIGHT.ink, markersize=8)
    axes.set_yticks(range(len(order)), order, fontsize=7)
    axes.set(xlim=(-0.01, 1.0), ylim=(-0.7, len(order) - 0.3))
    axes.set_xlabel("share of scales in the spread of ln w")
    heading(axes, LIGHT, "A point for each weight, a bar at the median")
    return figure


def _microstructure(weights: pd.DataFrame) -> Figure:
    """Draw all weights in the map, coloured from the least to the greatest share of scales."""
    ordered = weights[weights["scale_share"].notna()].sort_values("scale_share")
    records = [
        Record(
            name=f"{100 * row['scale_share']:.0f} % scales: {row['network']}, {place}",
            log_skew=float(np.clip(row["log_skew"], *_SKEW)),
            log_kurtosis=float(np.clip(row["log_kurtosis"], *_KURTOSIS)),
        )
        for place, row in enumerate(ordered.to_dict("records"))
    ]
    figure = microstructure_map(records)
    for points in figure.axes[0].collections:
        points.set_alpha(0.5)
    for name in figure.axes[0].texts:
        name.set_zorder(10)
    heading(figure.axes[0], LIGHT, "All weights, from the least to the greatest share of scales")
    return figure


def _gap_against_scales(weights: pd.DataFrame) -> Figure:
    figure, (axes,) = canvas(LIGHT, [3.6])
    known = weights[weights["taken_off"] == "rows columns"]
    axes.set(yscale="log", xlim=(0, 3), ylim=(_LOWEST, _HIGHEST))
    axes.set(xlabel="standard deviation of scales, ln w", ylabel="gap, nats")
    _lines(axes, across=False)
    scales = (known["sd_rows"] ** 2 + known["sd_columns"] ** 2) ** 0.5
    _scatter(axes, known, scales, "gap")
    sds = np.linspace(0, 2.0, 41)
    curve = [gaussian_times_scales(sd) for sd in sds]
    axes.plot(sds, curve, color=LIGHT.ink, linewidth=1.4, label="Gaussian × e^(sN)", zorder=4)
    heading(axes, LIGHT, "Gap against scales: dashed 0.02, dotted Gaussian")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


# Tables -------------------------------------------------------------------------------------------


def _tables(
    weights: pd.DataFrame,
    networks: pd.DataFrame,
    sources: "Mapping[str, tuple[Wheel, Network]]",
) -> str:
    parts = [
        "# The atlas, in tables",
        "Written by `make atlas`. Gaps are in nats; medians are over the weights of at least 4096 "
        "values; in brackets, the core gap of Gaussian weights of the same shapes.",
        "## Networks",
        _table(_NETWORKS, (_network_cells(row) for row in networks.to_dict("records"))),
        "## Roles",
        _table(_ROLES, _role_cells(weights)),
        f"## Weights with a gap below {NEAR}",
        _table(_WEIGHTS, map(_weight_cells, _below(weights, "gap"))),
        f"## Cores with a gap below {NEAR}",
        _table(_WEIGHTS, map(_weight_cells, _below(weights, "core_gap"))),
        "## Where the files are",
        _table(_SOURCES, (_source_cells(*each) for each in sources.values())),
    ]
    return "\n\n".join(parts) + "\n"


_NETWORKS = ("network", "for", "weights", "of them ≥ 4096", "values", "gap", "core gap", "scales",
             "best law of most", "gap < 0.02")  # fmt: skip
_ROLES = ("role", "weights", "gap", "core gap", "scales", "sd of rows", "sd of columns")
_WEIGHTS = ("network", "weight", "shape", "gap ± se", "gap of best law", "core gap", "scales",
            "best law", "law of the core")  # fmt: skip
_SOURCES = ("network", "what it is", "package", "licence", "file", "sha256 of the file")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in lines)


def _below(weights: pd.DataFrame, column: str) -> "list[dict[Any, Any]]":
    found = weights[weights[column] < NEAR]
    return found.sort_values(column).to_dict("records")


def _core(row: Mapping[Any, Any]) -> str:
    return f"{number_text(row['core_gap'], 3)} ({number_text(row['core_gap_gaussian'], 3)})"


def _share(row: Mapping[Any, Any]) -> str:
    return f"{100 * row['scale_share']:.0f} %"


def _network_cells(row: Mapping[Any, Any]) -> list[str]:
    return [
        str(row["network"]),
        str(row["kind"]),
        str(row["weights"]),
        str(int(row["large"])),
        count_text(row["values"]),
        number_text(row["gap"], 3),
        _core(row),
        _share(row),
        family_label(row["law"]),
        str(int(row["near"])),
    ]


def _role_cells(weights: pd.DataFrame) -> list[list[str]]:
    groups = {role: weights[weights["role"] == role] for role in ROLES}
    rows = []
    for role, own in [*groups.items(), ("all", weights)]:
        if len(own):
            row = own.median(numeric_only=True).to_dict()
            numbers = [number_text(row[name], 2) for name in ("sd_rows", "sd_columns")]
            gap = number_text(row["gap"], 3)
            rows.append([role, str(len(own)), gap, _core(row), _share(row), *numbers])
    return rows


def _weight_cells(row: Mapping[Any, Any]) -> list[str]:
    return [
        str(row["network"]),
        f"`{row['name']}`",
        str(row["shape"]).replace("x", "×"),
        f"{number_text(row['gap'], 3)} ± {number_text(row['gap_se'], 3)}",
        number_text(row["law_gap"], 3),
        _core(row),
        _share(row),
        str(row["law"]),
        family_label(row["core_best_family"]),
    ]


def _source_cells(wheel: "Wheel", network: "Network") -> list[str]:
    file = f"`{network.member}`"
    return [
        network.name, network.about, wheel.package, wheel.licence, file, f"`{network.sha256[:16]}…`"
    ]  # fmt: skip
