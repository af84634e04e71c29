"""Compute a study's tables: means over seeds, per condition and kind."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from experiments.summaries.conditions import conditions, label
from experiments.summaries.runs import Run, streams
from jaynes_callbacks.instruments.record import NEAR, family_label
from jaynes_callbacks.instruments.verdict import FEWEST_VALUES
from jaynes_callbacks.records.stream import in_order

__all__ = ["CAPTION", "PAPERS_LOWEST", "VERDICTS", "Study", "layers", "relation", "summary"]

VERDICTS = ("emerged", "present from the start", "approaching", "not emerging")
#: Mean R² of the paper's worst network (BlazePose, Table II): what passed for lognormal there.
PAPERS_LOWEST = 0.93
ACCURACY = "test/accuracy"


class Study:
    """All runs of a study as data frames.

    Attributes:
        names: of what was varied.
        order: conditions as they are printed, numbers by their size.
        runs: one row per run: what was varied, ``condition`` (as it is printed), ``seed``,
            ``accuracy`` (of the test split), ``seconds``.
        streams: one row per run and stream, with the run's columns; only those that a verdict is
            passed on.
        left_out: number of streams without a verdict, of fewer than a thousand values or none.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        varied = conditions([run.result for run in runs])
        self.names = [str(name) for name in varied]
        texts = [label(row, self.names) for row in varied.itertuples(index=False, name=None)]
        self.runs = pd.DataFrame(
            {
                **varied,
                "condition": texts or ["all runs"] * len(runs),
                "seed": [run.result.config.get("seed") for run in runs],
                "accuracy": [run.result.metrics.get(ACCURACY) for run in runs],
                "seconds": [run.result.seconds for run in runs],
                "folder": [str(run.folder) for run in runs],
            }
        )
        ordered = self.runs.sort_values(self.names, key=_sortable) if self.names else self.runs
        self.order = list(ordered["condition"].drop_duplicates())
        everything = streams(runs).join(self.runs, on="run")
        judged = everything["verdict"].isin(VERDICTS)
        self.streams, self.left_out = everything[judged], int((~judged).sum())


def _sortable(values: pd.Series) -> pd.Series:
    return values if pd.api.types.is_numeric_dtype(values) else values.astype(str)


def summary(made: Study) -> pd.DataFrame:
    """Return a row per condition and kind.

    A run's gap is the median over its streams; means and standard deviations (n − 1) are over
    runs, that is over seeds.  Shares and counts are of streams, of all runs together.

    Returns:
        Columns ``kind``, ``condition``, ``runs``, ``streams``, ``gap_start``, ``gap_start_sd``,
        ``gap_end``, ``gap_end_sd``, a share for each verdict, ``families`` (best ones at the end,
        with their numbers), ``r2``, ``r2_gaussian``, ``r2_passes_start``, ``r2_passes_end`` (shares
        with at least the paper's lowest R²), ``near_start``, ``near_end`` (shares with a gap below
        `verdict.NEAR`), ``accuracy``, ``accuracy_sd``; of
        activations ``z_lognormal`` and ``z_exponential``.
    """
    rows = []
    for kind in in_order(made.streams["kind"]):
        of_kind = made.streams[made.streams["kind"] == kind]
        groups = dict(iter(of_kind.groupby("condition")))
        rows += [_row(kind, name, groups[name]) for name in made.order if name in groups]
    return pd.DataFrame(rows)


def _row(kind: str, condition: str, group: pd.DataFrame) -> dict[str, Any]:
    runs = group.groupby("run")
    row: dict[str, Any] = {
        "kind": kind, "condition": condition, "runs": len(runs), "streams": len(group),
    }  # fmt: skip
    for name, values in {
        "gap_start": runs["gap_start"].median(),
        "gap_end": runs["gap_end"].median(),
        "accuracy": runs["accuracy"].first().astype(float),
    }.items():
        row |= {name: values.mean(), f"{name}_sd": values.std()}
    row |= {verdict: (group["verdict"] == verdict).mean() for verdict in VERDICTS}
    row["families"] = counted(group["best_family_end"])
    row |= {
        "r2": group["paper_r2_end"].mean(),
        "r2_gaussian": group["paper_r2_gaussian_end"].mean(),
    }
    for moment in ("start", "end"):
        row[f"r2_passes_{moment}"] = (group[f"paper_r2_{moment}"] >= PAPERS_LOWEST).mean()
        row[f"near_{moment}"] = (group[f"gap_{moment}"] < NEAR).mean()
    return row | {name: group[name].median() for name in ("z_lognormal", "z_exponential")}


def counted(families: "pd.Series[str]") -> str:
    """Return families with their numbers, the most frequent first.

    >>> counted(pd.Series(["weibull", "lognormal", "weibull"]))
    'Weibull 2, lognormal 1'
    """
    numbers = Counter(families.replace("", "none")).most_common()
    return ", ".join(f"{family_label(name)} {number}" for name, number in numbers)


def layers(made: Study) -> pd.DataFrame:
    """Return a row per condition and stream: means and standard deviations over seeds.

    Returns:
        Columns ``kind``, ``condition``, ``name``, ``runs``, ``n``, ``gap_start``, ``gap_end``,
        ``gap_end_sd``, ``moved``, ``verdicts`` (with their numbers), ``families``.
    """
    rows = []
    place = made.streams["condition"].map(made.order.index)
    ordered = made.streams.assign(place=place).sort_values("place", kind="stable")
    for (kind, condition, name), group in ordered.groupby(
        ["kind", "condition", "name"], sort=False
    ):
        rows.append({
            "kind": kind, "condition": condition, "name": name, "runs": len(group),
            "n": group["n_end"].mean(), "gap_start": group["gap_start"].mean(),
            "gap_end": group["gap_end"].mean(), "gap_end_sd": group["gap_end"].std(),
            "q": group["q_end"].mean(), "moved": group["moved"].mean(),
            "verdicts": counted(group["verdict"]), "families": counted(group["best_family_end"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def relation(made: Study) -> pd.DataFrame:
    """Return Spearman's rank correlation of test accuracy and a run's median gap at the end.

    Returns:
        One row per kind: ``kind``, ``runs``, ``spearman`` (nan where either is constant).
    """
    rows = []
    for kind, group in made.streams.dropna(subset="accuracy").groupby("kind", sort=False):
        runs = group.groupby("run")
        accuracy, gap = runs["accuracy"].first().astype(float), runs["gap_end"].median()
        constant = accuracy.nunique() < 2 or gap.nunique() < 2
        rho = float("nan") if constant else float(spearmanr(accuracy, gap).statistic)
        rows.append({"kind": kind, "runs": len(runs), "spearman": rho})
    return pd.DataFrame(rows, columns=["kind", "runs", "spearman"])


#: Printed below every table.
CAPTION = (
    "gap: nats to the best lognormal, median over a run's streams, mean ± sd over runs.\n"
    "E/P/A/N: % of streams emerged / present from the start / approaching / not emerging; what\n"
    "was present from the start may have been lost since: the gap at the end says so.\n"
    "R²: by the paper's protocol, mean; in brackets what as many Gaussian weights score.\n"
    f"Streams of fewer than {FEWEST_VALUES} values are left out: no verdict is passed on them."
)
