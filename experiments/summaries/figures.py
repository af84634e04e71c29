"""Draw a study: gaps from start to end, accuracy against gap, gaps along a number."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.summaries.tables import Study
from jaynes_callbacks.figures.look import LIGHT, canvas, legend, printable
from jaynes_callbacks.instruments.record import NEAR
from jaynes_callbacks.records.stream import IOTA, WEIGHT, kind_label

__all__ = ["draw"]

_COLORS = {WEIGHT: "#d55e00", IOTA: "#3a8fd6"}
_MARKERS = "osD^vPX*"
#: Gaps are drawn on a logarithmic axis, which has no zero.
_FLOOR = 1e-3


def draw(made: Study, rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the figures that the study has data for.

    Args:
        made: the study.
        rows: of `tables.summary`.
        folder: where to; it exists.

    Returns:
        Their file names.
    """
    figures = {"gaps": _gaps(rows)}
    if made.runs["accuracy"].notna().any():
        figures["accuracy_and_gap"] = _accuracy(made)
    along = _numeric(made)
    if along is not None:
        figures[f"gap_along_{along.rsplit('.', 1)[-1]}"] = _along(made, along)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    return [Path(f"{name}.png") for name in figures]


def _numeric(made: Study) -> str | None:
    """Return the number that was varied if nothing else was."""
    if len(made.names) != 1:
        return None
    (name,) = made.names
    return name if pd.api.types.is_numeric_dtype(made.runs[name].infer_objects()) else None


def _gaps(rows: pd.DataFrame) -> Figure:
    """Draw each condition's gap from start (open) to end (full), with the spread over seeds."""
    names = list(rows["condition"].drop_duplicates())
    figure, (axes,) = canvas(LIGHT, [0.9 + 0.24 * len(names)], width=7.0)
    places = {name: place for place, name in enumerate(names)}
    for offset, (kind, color) in zip((-0.14, 0.14), _COLORS.items(), strict=True):
        of_kind = rows[rows["kind"] == kind]
        y = [places[name] + offset for name in of_kind["condition"]]
        start, end = (of_kind[key].clip(lower=_FLOOR) for key in ("gap_start", "gap_end"))
        axes.hlines(y, start, end, color=color, linewidth=1, alpha=0.6)
        axes.scatter(start, y, s=20, facecolors="none", edgecolors=color)
        error = of_kind["gap_end_sd"].fillna(0.0)
        axes.errorbar(
            end, y, xerr=error, fmt="o", color=color, markersize=4, label=kind_label(kind)
        )
    axes.set_yticks(range(len(names)), [printable(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.axvline(NEAR, color=LIGHT.muted, linestyle="--", linewidth=1)
    axes.set_xlabel("gap in nats, median over layers: ○ start, ● end; dashed: near lognormal")
    handles, labels = axes.get_legend_handles_labels()
    legend(figure, LIGHT, list(zip(handles, labels, strict=True)))
    return figure


def _accuracy(made: Study) -> Figure:
    """Draw a mark per run: test accuracy against the gap at the end."""
    figure, (axes,) = canvas(LIGHT, [3.2])
    for kind, color in _COLORS.items():
        runs = made.streams[made.streams["kind"] == kind].groupby("run")
        gap = runs["gap_end"].median().clip(lower=_FLOOR)
        accuracy = runs["accuracy"].first()
        axes.scatter(gap, accuracy, s=18, color=color, alpha=0.7, label=kind_label(kind))
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.axvline(NEAR, color=LIGHT.muted, linestyle="--", linewidth=1)
    axes.set(xlabel="gap at the end in nats, median over layers", ylabel="test accuracy")
    handles, labels = axes.get_legend_handles_labels()
    legend(figure, LIGHT, list(zip(handles, labels, strict=True)))
    return figure


def _along(made: Study, name: str) -> Figure:
    """Draw each layer's gap at the end along what was varied, with the spread over seeds."""
    figure, (axes,) = canvas(LIGHT, [3.4])
    values = made.runs[name].astype(float)
    for kind, color in _COLORS.items():
        of_kind = made.streams[made.streams["kind"] == kind]
        for number, (stream, layer) in enumerate(of_kind.groupby("name", sort=False)):
            gaps = layer.groupby(name)["gap_end"].agg(["mean", "std"])
            _line(axes, gaps, color, _MARKERS[number % len(_MARKERS)], printable(str(stream)))
    ticks = sorted(values.unique())
    if ticks[0] > 0:
        axes.set_xscale("log")
    elif len(ticks) > 1:
        axes.set_xscale("symlog", linthresh=ticks[1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axhline(NEAR, color=LIGHT.muted, linestyle="--", linewidth=1)
    axes.set(xlabel=name.rsplit(".", 1)[-1], ylabel="gap at the end in nats", yscale="log")
    _plain_numbers(axes.yaxis)
    handles, labels = axes.get_legend_handles_labels()
    legend(figure, LIGHT, list(zip(handles, labels, strict=True)))
    return figure


def _line(axes: Axes, gaps: pd.DataFrame, color: str, marker: str, text: str) -> None:
    x = [float(value) for value in gaps.index]
    axes.errorbar(
        x, gaps["mean"].clip(lower=_FLOOR), yerr=gaps["std"].fillna(0.0), color=color,
        marker=marker, markersize=4, linewidth=1, label=text,
    )  # fmt: skip


def _plain_numbers(axis: Axis) -> None:
    """Label 1, 2 and 5 of each decade of a logarithmic axis by plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _number(float(x))))
    axis.set_minor_formatter(NullFormatter())


def _number(gap: float) -> str:
    """Write a gap; below the floor it is drawn at the floor."""
    return f"≤ {gap:g}" if gap < 1.01 * _FLOOR else f"{gap:g}"
