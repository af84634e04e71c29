"""Rows of magnitudes: how the values of one stream are distributed at one step.

A `Record` is one row, `Records` a table of them.  Both are finished results on the host: plain
numbers, and the sparse counts from which every figure can be computed again.  A new column is a
field here and its value in `instruments.distribution`; tables, curves, files, the report and the
documentation follow from the field.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import (
    Array,
    ColumnType,
    Integers,
    Key,
    Row,
    Schema,
    column,
    counts_column,
    group,
)
from jaynes_callbacks.records.stream import WEIGHT
from jaynes_callbacks.records.text import count_text, number_text
from jaynes_callbacks.statistics import (
    FAMILIES,
    FAMILY_BY_NAME,
    FEWEST_WEIGHTS,
    GENERALIZED_GAMMA,
    LOGNORMAL,
)

__all__ = [
    "BANDS",
    "LEFT_OUT",
    "NEAR",
    "OK",
    "SCHEMA",
    "Record",
    "Records",
    "aggregates",
    "band",
    "family_label",
    "law_text",
    "paper_text",
    "remarks",
    "tilt_text",
]

#: Upper limits of the display bands of a gap, in nats per value.
BANDS = {"lognormal-like": 0.003, "near": 0.02, "far": 0.08, "no": math.inf}
#: The gap below which a distribution counts as lognormal.
NEAR = BANDS["near"]
#: What the star beside a paper figure means.
LEFT_OUT = f"* the paper leaves out layers of fewer than {FEWEST_WEIGHTS:,} weights."
#: Status of a row of which nothing is missing.
OK = "ok"
_LARGEST_Q = GENERALIZED_GAMMA.parameters[2].high


def band(gap: float) -> str:
    """Return the name of a gap's display band; ``undetermined`` for nan.

    >>> band(0.163), band(0.001)
    ('no', 'lognormal-like')
    """
    return next((name for name, limit in BANDS.items() if gap < limit), "undetermined")


def family_label(name: str) -> str:
    """Return a family's name as people write it; other texts as they are.

    >>> family_label("half_student_t"), family_label("")
    ('Student t', '')
    """
    return FAMILY_BY_NAME[name].label if name in FAMILY_BY_NAME else name


def tilt_text(q: float) -> str:
    """Return Prentice's q, or that it is at its bound.

    >>> tilt_text(1.414), tilt_text(10.0), tilt_text(-10.0)
    ('1.41', '≥ 10', '≤ -10')
    """
    if abs(q) >= _LARGEST_Q:
        return f"≥ {_LARGEST_Q:.0f}" if q > 0 else f"≤ -{_LARGEST_Q:.0f}"
    return number_text(q, 2)


def is_left_out(record: "Record") -> bool:
    """Tell whether the paper would have left a layer out, and R² is known all the same."""
    small = record.kind == WEIGHT and 0 < record.n < FEWEST_WEIGHTS
    return small and math.isfinite(record.paper_r2)


def paper_text(record: "Record") -> str:
    """Return R² (that of Gaussian weights), with a star where the paper leaves the layer out.

    >>> paper_text(Record(n=5120, paper_r2=0.92, paper_r2_gaussian=0.9))
    '0.92 (0.90)*'
    """
    star = "*" if is_left_out(record) else ""
    return f"{number_text(record.paper_r2, 2)} ({number_text(record.paper_r2_gaussian, 2)}){star}"


def _count_text(record: "Record") -> str:
    return count_text(record.n)


def _tilt_text(record: "Record") -> str:
    return tilt_text(record.q)


def _family_text(record: "Record") -> str:
    return family_label(record.best_family)


def law_text(record: "Record", name: str) -> str:
    """Return a family's name with the parameter of its shape, as the record has it.

    >>> law_text(Record(fits={"half_student_t_dof": 7.04}), "half_student_t")
    'Student t, ν 7.0'
    """
    family = FAMILY_BY_NAME.get(name)
    if family is None:
        return name
    flat = record.to_dict(counts=False)
    pairs = zip(family.parameters, family.columns, strict=True)
    shapes = [
        f"{parameter.symbol} {number_text(flat.get(column, math.nan), 1)}"
        for parameter, column in pairs
        if parameter.symbol
    ]
    return ", ".join([family.label, *shapes])


def _law_text(record: "Record") -> str:
    return law_text(record, record.best_family_2)


@dataclass(frozen=True, eq=False)
class Record(Row):
    """Figures of one stream at one step; nan where `status` says why.

    Gaps are in nats per weight (or neuron); mu is in ln of the tensor's own unit.
    """

    kind: str = column("", "what the values are: weight, iota, …", WEIGHT, shown=True)
    variable: str = column("", "w, y (ReLU, whose Z is y²) or z*y: what was counted", "w")
    shape: tuple[int, ...] = column("", "of the parameter, or of one sample's activation", ())
    n: int = column("values", "finite, non-zero", 0, shown=True, text=_count_text)
    zeros: int = column("values", "exact zeros and magnitudes below 2**-130", 0)
    nonfinite: int = column("values", "inf and nan", 0)
    max: float = column("w", "largest finite magnitude, or its bin's upper edge")
    rms: float = column("w", "root mean square of the n values")
    log_mean: float = column("ln w", "mean of ln w")
    log_std: float = column("ln w", "standard deviation of ln w")
    log_std_tilted: float = column("ln w", "the same of the size-weighted law")
    log_skew: float = column("1", "skewness of ln w")
    log_kurtosis: float = column("1", "excess kurtosis of ln w")
    mu: float = column("ln w", "lognormal's μ")
    sigma: float = column("ln w", "lognormal's σ")
    gap: float = column(
        "nats",
        "KL to the best lognormal: the arbitrage gap",
        curve=True,
        title="gap to the lognormal, nats",
    )
    gap_best_rival: float = column(
        "nats",
        "KL to the best of the rivals; below gap, a rival describes the values better",
        curve=True,
        title="gap to the best rival, nats",
        tag="gap_{kind}_best_rival",
        shown=False,
    )
    gap_se: float = column(
        "nats",
        "standard error of gap; clusters: rows and columns of weights, groups of samples of iota",
        label="± se",
        digits=4,
        shown=True,
    )
    gap_change_se: float = column(
        "nats", "standard error of gap less the first record's; nan at the first and for iota"
    )
    gap_tilted: float = column("nats", "gap of the size-weighted law; few large values decide it")
    gap_censored: float = column("nats", "gap with the lowest 5 % as one open bin")
    q: float = column(
        "1",
        "Prentice's tilt away from lognormal, in [-10, 10]",
        curve=True,
        title="tilt q: 0 lognormal, √2 Gaussian",
        text=_tilt_text,
    )
    rival_gaps: dict[str, float] = group("gap_", "nats", "KL to the best {}")
    best_family: str = column(
        "",
        "lognormal or the rival that Schwarz's criterion prefers",
        "",
        label="best family",
        shown=True,
        text=_family_text,
    )
    best_family_2: str = column(
        "",
        "the same with the generalized normal among the rivals, as in version 2 of the verdict",
        "",
        label="best law",
        text=_law_text,
    )
    vuong_z: dict[str, float] = group("vuong_z_", "1", "lognormal against {}, Vuong's z")
    fits: dict[str, float] = group("fit_", "", "{}")
    tv: float = column("1", "total variation to the best lognormal")
    ks: float = column("1", "Kolmogorov-Smirnov distance on the bin edges")
    w1: float = column("σ", "Wasserstein-1 distance in ln w over σ")
    n_star: float = column("values", "sample size at which a KS test rejects half the time")
    alpha: float = column("1, of w/max", "α (iota: η), Eq. 13 (24), of w/max as in the paper")
    beta: float = column("1", "β (iota: ζ), Eq. 13 (24)")
    utility_std: float = column("nats", "spread of the effective utility over bins")
    potential: float = column("nats, of w/max", "φ, Eqs 8-11, 25, of w/max as in the paper")
    entropy: float = column("nats, of w/max", "φ_s, the entropy part of φ, likewise")
    paper_r2: float = column(
        "1", "R² by the paper's protocol", label="R² (Gauss)", shown=True, text=paper_text
    )
    paper_mu: float = column("ln(w/max)", "μ' by the paper's protocol")
    paper_sigma: float = column("1", "σ' by the paper's protocol")
    paper_amplitude: float = column("w/max × values", "A' by the paper's protocol")
    paper_r2_gaussian: float = column(
        "1", "mean R² of as many Gaussian weights (z*y: pre-activations, squared) at this max/rms"
    )
    paper_bins: int = column("bins", "equal bins of the paper's protocol; 0: not recorded", 0)
    moved: float = column("1", "‖w − w₀‖/‖w₀‖ since the first record")
    verdict: str = column("", "by the rule fixed before any experiment", "", shown=True)
    status: str = column("", "ok, or the reason of each nan", OK)
    codes: Integers = counts_column("code", "occupied codes", ColumnType.CODES)
    counts: Integers = counts_column("values", "their counts")
    paper_counts: Integers = counts_column(
        "values",
        "counts of the paper's equal bins on [0, max]; empty where only codes were counted",
    )


def remarks(records: Sequence[Record]) -> list[str]:
    """Return what R² and a star mean, and each reason of missing figures once with its number."""
    numbers = Counter(record.status for record in records if record.status != OK)
    reasons = [f"{number} of {len(records)}: {reason}" for reason, number in numbers.items()]
    stars = [LEFT_OUT] if any(map(is_left_out, records)) else []
    return [*_bins_remark(records), *stars, *reasons]


def _bins_remark(records: Sequence[Record]) -> list[str]:
    """Say of how many equal bins R² is; nothing where no row has one, or none says of how many."""
    kinds: dict[int, list[str]] = {}
    for record in records:
        if record.paper_bins and math.isfinite(record.paper_r2):
            of_bins = kinds.setdefault(record.paper_bins, [])
            if record.kind not in of_bins:
                of_bins.append(record.kind)
    bins = [f"{number:,} equal bins ({', '.join(found)})" for number, found in kinds.items()]
    return [f"R²: of {' and '.join(bins)} on [0, max]."] if bins else []


def aggregates(records: Frame[Any]) -> dict[str, float]:
    """Return the few numbers of a record that loggers, early stopping and sweeps want.

    Returns:
        For each kind with a finite gap: ``equilibrium/<kind>/gap_median``, ``…/gap_worst``, and
        the share of its streams in each of `BANDS`: ``…/share_lognormal_like`` (a gap below 0.003
        nats), ``…/share_near`` (to 0.02), ``…/share_far`` (to 0.08), ``…/share_no``; they add up
        to one.

    Example:
        >>> numbers = aggregates(Records([Record(gap=0.001), Record(gap=0.163)]))
        >>> numbers["equilibrium/weight/gap_worst"], numbers["equilibrium/weight/share_no"]
        (0.163, 0.5)
    """
    gaps: dict[str, list[float]] = {}
    for kind, gap in zip(records["kind"].tolist(), records["gap"].tolist(), strict=True):
        if math.isfinite(gap):
            gaps.setdefault(kind, []).append(gap)
    numbers = {}
    for kind, values in gaps.items():
        numbers[f"equilibrium/{kind}/gap_median"] = median(values)
        numbers[f"equilibrium/{kind}/gap_worst"] = max(values)
        found = Counter(map(band, values))
        for name in BANDS:
            tag = f"equilibrium/{kind}/share_{name.replace('-', '_')}"
            numbers[tag] = found[name] / len(values)
    return numbers


def _parameter_keys() -> dict[str, Key]:
    """Describe the columns of the families' parameters that have no column of their own."""
    return {
        name.removeprefix("fit_"): Key(parameter.meaning, parameter.unit)
        for family in FAMILIES
        for name, parameter in zip(family.columns, family.parameters, strict=True)
        if name.startswith("fit_")
    }


def _upgraded(columns: Mapping[str, Array], version: int) -> Mapping[str, Array]:
    """Return the columns of an older table in today's units.

    Version 1 had α, φ and φ_s in the unit of w itself.  With L = ln max, at w/max they are α − 2βL,
    φ − (α + 1)L + βL² and φ_s − L: exact identities, since σ and β do not depend on the unit.
    """
    needed = ("max", "alpha", "beta", "potential", "entropy")
    if version >= 2 or any(name not in columns for name in needed):
        return columns
    maximum, alpha, beta, potential, entropy = (columns[name] for name in needed)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.log(maximum)
        return {
            **columns,
            "alpha": alpha - 2 * beta * unit,
            "potential": potential - (alpha + 1) * unit + beta * unit**2,
            "entropy": entropy - unit,
        }


_RIVALS = {family.name: Key(family.label) for family in FAMILIES if family is not LOGNORMAL}
_KEYS = {"rival_gaps": _RIVALS, "vuong_z": _RIVALS, "fits": _parameter_keys()}
#: Of the table of records.
SCHEMA: Schema[Record] = Schema(
    Record,
    "magnitudes",
    "Magnitudes",
    main=True,
    first_curve="gap",
    required=frozenset({"run", "step", "epoch", "kind", "name", "n", "gap", "codes", "counts"}),
    ahead=(
        "kind",
        "name",
        "step",
        "n",
        "gap",
        "gap_se",
        "best_family",
        "q",
        "paper_r2",
        "verdict",
    ),
    keys=_KEYS,
    aggregate=aggregates,
    remarks=remarks,
    version=2,
    upgrade=_upgraded,
)


class Records(Frame[Record]):
    """An immutable table of records.

    Example:
        >>> records = Records([Record(name="fc.weight", n=10)])
        >>> records.to_pandas()[["kind", "name", "n"]].values.tolist()
        [['weight', 'fc.weight', 10]]
    """

    def __init__(self, rows: Iterable[Record] = ()) -> None:
        frame = rows if isinstance(rows, Frame) else Frame.from_rows(SCHEMA, rows)
        super().__init__(frame.schema, frame.columns)
