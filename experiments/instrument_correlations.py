"""``python -m experiments.instrument_correlations RUNS``: what do instruments tell of each other?

Reads the datasets of finished runs, whatever instruments wrote them, and correlates every curve
(`Schema.curves`; the median over streams, per kind and step) by Spearman's ρ:

*course*
    in each run, over its steps, with the gap and the core gap of weights; *changes* correlates the
    differences between successive records instead.  Two curves that both slow down still go
    together then, so *by chance* is the same of a curve in one run and the other curve in a run of
    another condition, where nothing but such a common course can relate them.  Seeds are averaged
    within conditions; the mean over conditions has a confidence interval by Student's t.
*ends*
    between runs, of the curve's last value with the accuracy and what is left of it under damage.
    *Within condition* ranks the runs of each condition and takes the ranks' mean off, so that a
    difference between conditions is no correlation; *pooled* does not, and is confounded by them.
    The interval is Fisher's, of ``1.06/√(n − conditions − 2)`` (Fieller, Hartley and Pearson 1957).
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from scipy import stats

from experiments.correlation_tables import CAPTION, markdown, terminal_tables
from experiments.result import FILE, Result
from experiments.robustness import CORRUPTIONS
from experiments.summaries.conditions import conditions, label
from jaynes_callbacks.instruments.record import SCHEMA
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parts import read_parts
from jaynes_callbacks.sinks.dataset import instrument_folders

__all__ = ["Run", "course", "curves", "ends", "main", "nearest", "outcomes", "read"]

#: Curves with which every other is correlated over the course of a run, as they are headed.
REFERENCES: Mapping[str, str] = {
    "gap": "magnitudes/weight/gap",
    "core gap": "scales/weight/core_gap",
}
#: What is kept under so many kinds of damage are outcomes, beside the accuracy itself.
_OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "corrupted": tuple(CORRUPTIONS),
    "pruned": ("pruned",),
    "rounded": ("bits",),
}
ACCURACY = "test/accuracy"
#: Fewer steps, or runs, give no correlation.
_FEWEST = 5
_CONFIDENCE = 0.95
_WIDTH = 100

_Numbers = np.ndarray[Any, np.dtype[np.float64]]
_Texts = np.ndarray[Any, np.dtype[np.str_]]


class Run(NamedTuple):
    """A finished run as this module needs it.

    Attributes:
        condition: as it is printed.
        curves: a column ``<instrument>/<kind>/<column>`` for each curve, a row per step.
        outcomes: numbers of the end, by name.
    """

    condition: str
    curves: pd.DataFrame
    outcomes: Mapping[str, float]


# Reading --------------------------------------------------------------------------------------


def read(folders: Sequence[Path]) -> list[Run]:
    """Read all finished runs below some folders.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if one cannot be read, or has no dataset.
    """
    finished = sorted({file.parent for folder in folders for file in folder.rglob(FILE)})
    if not finished:
        raise FileNotFoundError(f"no finished run ({FILE}) below {', '.join(map(str, folders))}")
    results = [Result.read(folder) for folder in finished]
    varied = conditions(results)
    names = [str(name) for name in varied]
    texts = [label(row, names) for row in varied.itertuples(index=False, name=None)]
    runs = []
    for folder, result, text in zip(
        finished, results, texts or ["all runs"] * len(results), strict=True
    ):
        if result.dataset is None:
            raise ValueError(f"{folder} has no dataset of a monitor: run it with one")
        runs.append(Run(text, curves(folder / result.dataset), outcomes(result.metrics)))
    return runs


def curves(dataset: Path) -> pd.DataFrame:
    """Return the curves of every instrument of a dataset, medians over streams, by step."""
    frames = [(SCHEMA.instrument, read_parts(dataset, SCHEMA, counts=False))]
    frames += [
        (name, read_parts(folder, counts=False))
        for name, folder in instrument_folders(dataset).items()
    ]
    parts = [_medians(instrument, frame) for instrument, frame in frames]
    return pd.concat([part for part in parts if len(part.columns)], axis=1).sort_index()


def _medians(instrument: str, frame: Frame[Any]) -> pd.DataFrame:
    names = [each.name for each in frame.schema.curves if each.name in frame.columns]
    rows = pd.DataFrame({name: np.ma.filled(frame[name], np.nan) for name in names})
    rows = rows.replace([np.inf, -np.inf], np.nan).assign(step=frame["step"], kind=frame["kind"])
    wide = rows.pivot_table(index="step", columns="kind", values=names, aggfunc="median")
    found, kinds = (wide.columns.get_level_values(level) for level in (0, 1))
    wide.columns = [f"{instrument}/{kind}/{name}" for name, kind in zip(found, kinds, strict=True)]
    return wide


def outcomes(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the accuracy, and the share of it kept under corruption, pruning and rounding.

    Strengths are averaged within a kind of damage, then kinds: none counts more for having more
    strengths.
    """
    accuracy = metrics.get(ACCURACY, np.nan)
    found = {"accuracy": accuracy} if ACCURACY in metrics else {}
    for name, damages in _OUTCOMES.items():
        kinds = [_scores(metrics, damage) for damage in damages]
        if scores := [np.mean(each) for each in kinds if each]:
            found[name] = float(np.mean(scores)) / accuracy if accuracy > 0 else np.nan
    return found


def _scores(metrics: Mapping[str, float], damage: str) -> list[float]:
    """Return the accuracies under all strengths of a kind of damage."""
    return [
        value
        for key, value in metrics.items()
        if key.startswith("robust/") and key.removeprefix("robust/").rpartition("_")[0] == damage
    ]


# Over the course of runs ------------------------------------------------------------------------


def course(runs: Sequence[Run]) -> pd.DataFrame:
    """Return Spearman's ρ of each two curves, over the steps of each run.

    Returns:
        Columns ``run``, ``condition``, ``curve``, ``other``, ``course``, ``changes``, ``chance``;
        each pair once in either order, without those that have no ρ in the run.
    """
    tables = []
    for number, run in enumerate(runs):
        stranger = _stranger(runs, number)
        correlations = {
            "course": _correlated(run.curves, run.curves),
            "changes": _correlated(_changes(run), _changes(run)),
            "chance": _correlated(_changes(run), _changes(stranger or run)),
        }
        table = pd.concat(correlations, axis=1).reset_index()
        table = table.assign(run=number, condition=run.condition)
        if stranger is None:
            table["chance"] = np.nan
        known = table[["course", "changes"]].notna().any(axis=1)
        tables.append(table[known & (table["curve"] != table["other"])])
    return pd.concat(tables, ignore_index=True)


def _changes(run: Run) -> pd.DataFrame:
    """Return the differences between successive records, at the later step."""
    return run.curves.diff().iloc[1:]


def _stranger(runs: Sequence[Run], number: int) -> Run | None:
    """Return the next run of another condition; None if there is only one."""
    following = [*runs[number + 1 :], *runs[:number]]
    return next((each for each in following if each.condition != runs[number].condition), None)


def _correlated(ours: pd.DataFrame, theirs: pd.DataFrame) -> "pd.Series[float]":
    """Return Spearman's ρ of each of our curves with each of theirs, at the steps of both."""
    both = pd.concat({"curve": ours, "other": theirs}, axis=1, join="inner")
    square = both.corr(method="spearman", min_periods=_FEWEST)
    table = square.loc[["curve"], ["other"]].droplevel(0, axis=0).droplevel(0, axis=1)
    long = table.rename_axis("curve").reset_index().melt("curve", var_name="other")
    found: pd.Series[float] = long.set_index(["curve", "other"])["value"]
    return found


def course_means(pairs: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return the mean over conditions of ρ with each reference, and half its interval's width.

    Runs of one condition are no independent witnesses of what holds for others: they are averaged.

    Args:
        pairs: of `course`.
        by: further columns to group by, such as ``condition``.

    Returns:
        A row per curve (and group), columns ``<reference>, course``, ``…, changes`` and
        ``…, chance``, with ``… ±`` beside each, and ``runs``.
    """
    rows = []
    for key, group in pairs.groupby([*by, "curve"], sort=False):
        row: dict[str, object] = dict(zip([*by, "curve"], key, strict=True))
        for reference, name in REFERENCES.items():
            chosen = group[group["other"] == name]
            for what in ("course", "changes", "chance"):
                mean, half = _mean(chosen.groupby("condition")[what].mean().dropna().to_numpy())
                row |= {f"{reference}, {what}": mean, f"{reference}, {what} ±": half}
        rows.append(row | {"runs": group["run"].nunique()})
    return pd.DataFrame(rows).sort_values([*by, "curve"], key=_ahead, ignore_index=True)


def _ahead(names: "pd.Series[str]") -> "pd.Series[str]":
    """Return texts by which the main instrument's curves are sorted before all others."""
    return names.str.replace(rf"^{SCHEMA.instrument}/", " ", regex=True)


def nearest(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return for each curve the one of another instrument that goes with it the most.

    That is the greatest mean over runs of |ρ| of their changes: what is small, no other instrument
    tells.  Curves that are known in fewer runs than this one are no candidates, for the mean of few
    is large by chance more often.  How large the greatest is where the candidates are those of runs
    of other conditions stands beside it.

    Returns:
        A row per curve: ``curve``, ``nearest``, ``rho`` (the mean of ρ itself), ``chance`` (the
        greatest mean |ρ| with a stranger's curves).
    """
    runs = pairs.dropna(subset="changes").groupby("curve")["run"].nunique()
    apart = pairs[_instrument(pairs["curve"]) != _instrument(pairs["other"])]
    sized = apart.assign(size=apart["changes"].abs(), lucky=apart["chance"].abs())
    means = sized.groupby(["curve", "other"], sort=False).agg(
        rho=("changes", "mean"),
        size=("size", "mean"),
        known=("changes", "count"),
        lucky=("lucky", "mean"),
    )
    table = means.dropna(subset="rho").reset_index()
    table = table[table["known"] >= table["curve"].map(runs)]
    by_curve = table.groupby("curve", sort=False)
    best = table.loc[by_curve["size"].idxmax()].set_index("curve")
    best["chance"] = by_curve["lucky"].max()
    return best.reset_index().rename(columns={"other": "nearest"})[
        ["curve", "nearest", "rho", "chance"]
    ]


def _instrument(names: "pd.Series[str]") -> "pd.Series[str]":
    return names.str.split("/").str[0]


def _mean(values: _Numbers) -> tuple[float, float]:
    """Return a mean and half the width of its confidence interval, by Student's t."""
    number = len(values)
    if number < 2:
        return (float(values[0]) if number else np.nan), np.nan
    quantile = stats.t.ppf((1 + _CONFIDENCE) / 2, number - 1)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(number))


# Between runs ----------------------------------------------------------------------------------


def ends(runs: Sequence[Run], *, within: bool) -> pd.DataFrame:
    """Return Spearman's ρ, between runs, of each curve's last value with each outcome.

    Args:
        runs: of the study.
        within: whether ranks are within condition.

    Returns:
        Columns ``curve``, ``outcome``, ``runs``, ``rho``, ``low``, ``high`` (the interval; nan
        with too few runs); curves and outcomes that are constant or too few are left out.
    """
    last = pd.DataFrame([run.curves.ffill().iloc[-1] for run in runs])
    found = pd.DataFrame([dict(run.outcomes) for run in runs])
    condition = np.array([run.condition if within else "" for run in runs])
    rows = []
    for curve in last:
        for outcome in found:
            row = _end(last[curve].to_numpy(), found[outcome].to_numpy(), condition)
            if row is not None:
                rows.append({"curve": curve, "outcome": outcome, **row})
    return pd.DataFrame(rows, columns=["curve", "outcome", "runs", "rho", "low", "high"])


def _end(x: _Numbers, y: _Numbers, condition: _Texts) -> dict[str, float] | None:
    """Return one row of `ends`, of a value and an outcome of each run."""
    places = [
        np.flatnonzero((condition == each) & np.isfinite(x) & np.isfinite(y))
        for each in np.unique(condition)
    ]
    # A condition with one run says nothing of what is within it.
    groups = [place for place in places if len(place) > 1]
    number = sum(map(len, groups))
    if number < _FEWEST:
        return None
    first, second = (
        np.concatenate([stats.rankdata(values[place]) - (len(place) + 1) / 2 for place in groups])
        for values in (x, y)
    )
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    if scale == 0:
        return None
    rho = float((first * second).sum() / scale)
    low = high = np.nan
    # Of ranks in the same order throughout the interval would have no width.
    if (room := number - len(groups) - 2) > 0 and abs(rho) < 1 - 1e-9:
        half = 1.06 / np.sqrt(room) * stats.norm.ppf((1 + _CONFIDENCE) / 2)
        low, high = np.tanh([np.arctanh(rho) - half, np.arctanh(rho) + half])
    return {"runs": number, "rho": rho, "low": float(low), "high": float(high)}


# The command -----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Read runs, print the tables, write them.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 1 if there was nothing to correlate, told on the standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.instrument_correlations",
        description="Rank correlations between instruments' curves, the gaps and the accuracies.",
    )
    parser.add_argument("runs", metavar="RUNS", nargs="+", type=Path, help="multirun/instruments")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where to write the tables")
    options = parser.parse_args(arguments)
    try:
        runs = read(options.runs)
        pairs = course(runs)
    except (FileNotFoundError, ValueError) as error:
        print(f"experiments.instrument_correlations: {error}", file=sys.stderr)  # noqa: T201
        return 1
    tables = {
        "course": course_means(pairs).merge(nearest(pairs), on="curve", how="left"),
        "course by condition": course_means(pairs, by=["condition"]),
        "ends, within condition": ends(runs, within=True),
        "ends, pooled": ends(runs, within=False),
    }
    console = Console(width=_WIDTH)
    for table in terminal_tables(tables, number=len(runs)):
        console.print(table)
    console.print(CAPTION, highlight=False, markup=False)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "correlations.md").write_text(
            markdown(tables, options.runs, number=len(runs))
        )
        pairs.to_csv(options.output / "pairs.csv", index=False)
        for name, table in tables.items():
            table.to_csv(options.output / f"{name.replace(', ', '_').replace(' ', '_')}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
