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

from jaynes_callbacks.instruments.laws import OK, family_label, rival_keys
from jaynes_callbacks.instruments.scale_row import SCHEMA as SCALE_SCHEMA
from jaynes_callbacks.instruments.scale_row import ScaleRow, core_text
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
    same_column,
)
from jaynes_callbacks.records.stream import WEIGHT
from jaynes_callbacks.records.text import count_text, number_text
from jaynes_callbacks.statistics import (
    FAMILIES,
    FAMILY_BY_NAME,
    FEWEST_WEIGHTS,
    GENERALIZED_GAMMA,
    Status,
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
    "is_by_scale",
    "law_text",
    "paper_remarks",
    "paper_text",
    "plain_reasons",
    "remarks",
    "tilt_text",
    "verdict_text",
]

#: Upper limits of the display bands of a gap, in nats per value.
BANDS = {"lognormal-like": 0.003, "near": 0.02, "far": 0.08, "no": math.inf}
#: The gap below which a distribution counts as lognormal.
NEAR = BANDS["near"]
#: What the star beside a paper figure means.
LEFT_OUT = f"* the paper leaves out layers of fewer than {FEWEST_WEIGHTS:,} weights."
#: The share of scales in the variance of ln w from which a verdict is said to be by scale.
_BY_SCALE = 0.2
_LARGEST_Q = GENERALIZED_GAMMA.parameters[2].high


def band(gap: float) -> str:
    """Return the name of a gap's display band; ``undetermined`` for nan.

    >>> band(0.163), band(0.001)
    ('no', 'lognormal-like')
    """
    return next((name for name, limit in BANDS.items() if gap < limit), "undetermined")


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


def is_by_scale(record: "Record") -> bool:
    """Tell whether a weight is near a lognormal by the scales of its rows and columns alone."""
    nears = record.verdict in ("emerged", "present from the start", "approaching")
    return nears and record.core_gap >= NEAR and record.scale_share >= _BY_SCALE


def verdict_text(record: "Record") -> str:
    """Return the verdict, and whether it is by scale.

    >>> verdict_text(Record(verdict="emerged", core_gap=0.16, scale_share=0.8))
    'emerged by scale'
    """
    return record.verdict + " by scale" * is_by_scale(record)


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
    return family_label(record.best_family_2)


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
        shown=False,
        text=_tilt_text,
    )
    rival_gaps: dict[str, float] = group("gap_", "nats", "KL to the best {}")
    best_family: str = column(
        "",
        "lognormal or the rival that Schwarz's criterion prefers",
        "",
        label="best family",
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
    paper_r2: float = column("1", "R² by the paper's protocol", label="R² (Gauss)", text=paper_text)
    paper_mu: float = column("ln(w/max)", "μ' by the paper's protocol")
    paper_sigma: float = column("1", "σ' by the paper's protocol")
    paper_amplitude: float = column("w/max × values", "A' by the paper's protocol")
    paper_r2_gaussian: float = column(
        "1", "mean R² of as many Gaussian weights (z*y: pre-activations, squared) at this max/rms"
    )
    paper_bins: int = column("bins", "equal bins of the paper's protocol; 0: not recorded", 0)
    core_gap: float = same_column(
        ScaleRow, "core_gap", curve=False, label="core (Gauss)", text=core_text
    )
    core_gap_gaussian: float = same_column(ScaleRow, "core_gap_gaussian", shown=False)
    core_gap_se: float = same_column(ScaleRow, "core_gap_se")
    core_rival_gaps: dict[str, float] = same_column(ScaleRow, "core_rival_gaps")
    core_best_family: str = same_column(ScaleRow, "core_best_family", shown=False)
    core_log_skew: float = same_column(ScaleRow, "core_log_skew")
    core_log_kurtosis: float = same_column(ScaleRow, "core_log_kurtosis")
    scale_share: float = same_column(ScaleRow, "scale_share", curve=False, shown=False)
    sd_rows: float = same_column(ScaleRow, "sd_rows")
    sd_columns: float = same_column(ScaleRow, "sd_columns")
    sd_rest: float = same_column(ScaleRow, "sd_rest")
    moved: float = column("1", "‖w − w₀‖/‖w₀‖ since the first record")
    gap_closed: float = column("1", "share of the gap at the start that closed since")
    start_step: int = column("optimizer steps", "when the stream's first record was made", 0)
    verdict: str = column(
        "", "by the rule fixed before any experiment", "", shown=True, text=verdict_text
    )
    verdict_2: str = column("", "by version 2 of the rule, which stands beside it", "")
    status: str = column("", "ok, or the reason of each nan", OK)
    codes: Integers = counts_column("code", "occupied codes", ColumnType.CODES)
    counts: Integers = counts_column("values", "their counts")
    paper_counts: Integers = counts_column(
        "values",
        "counts of the paper's equal bins on [0, max]; empty where only codes were counted",
    )


#: What a fit's outcome means for a reader, and what to do: of the lognormal, and of another part
#: ``{}`` of a record (a law, or a curve of the paper's protocol).
_PLAIN = {
    Status.EMPTY: ("no finite value but zero; is this layer in use?", ""),
    Status.TOO_FEW_BINS: (
        "too few different values for any fit; leave small layers out (min_size)",
        "no {}: values lie in too few bins; go by the gap",
    ),
    Status.AT_BOUND: (
        "the fit ended at a bound; go by the figure of ln w",
        "no {}: fit at a bound",
    ),
    Status.NOT_CONVERGED: (
        "the fit found no optimum; go by the figure of ln w",
        "no {}: its fit found no optimum; go by the other laws",
    ),
    Status.SKEW_OUT_OF_RANGE: (
        "ln w is too lopsided for a fit; go by the figure of ln w",
        "no {}: ln w is too lopsided for it; go by the other laws",
    ),
    Status.NO_INTERIOR_OPTIMUM: (
        "",
        "no {}: its curve fits ever better off the data; go by the gap",
    ),
}
_PARTS = {"paper protocol": "R²", "Gaussian reference": "R² of Gaussian weights"}


def plain_reasons(status: str) -> list[str]:
    """Return what a status says in plain words, and what to do; other texts as they are.

    >>> plain_reasons("half_normal: fit did not converge")
    ['no half-normal: its fit found no optimum; go by the other laws']
    >>> plain_reasons("cannot be read")
    ['cannot be read']
    """
    return [_plain_reason(part) for part in status.split("; ")]


def _plain_reason(text: str) -> str:
    part, _, reason = text.rpartition(": ")
    outcome = next((each for each in _PLAIN if each.reason == reason), None)
    if outcome is None:
        return text
    own, of_part = _PLAIN[outcome]
    plain = of_part.format(_PARTS.get(part, family_label(part))) if part else own
    return plain or text


def remarks(records: Sequence[Record]) -> list[str]:
    """Return each reason of missing figures once, with its number of rows."""
    numbers = Counter(
        reason
        for record in records
        if record.status != OK
        for reason in plain_reasons(record.status)
    )
    return [f"{number} of {len(records)}: {reason}" for reason, number in numbers.items()]


def paper_remarks(records: Sequence[Record]) -> list[str]:
    """Return what belongs below a table with R²: of how many bins it is, and what a star means."""
    stars = [LEFT_OUT] if any(map(is_left_out, records)) else []
    return [*_bins_remark(records), *stars]


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


_KEYS = {
    "rival_gaps": rival_keys(),
    "vuong_z": rival_keys(),
    "fits": _parameter_keys(),
    "core_rival_gaps": SCALE_SCHEMA.keys["core_rival_gaps"],
}
#: Of the table of records.
SCHEMA: Schema[Record] = Schema(
    Record,
    "magnitudes",
    "Magnitudes",
    main=True,
    first_curve="gap",
    required=frozenset({"run", "step", "epoch", "kind", "name", "n", "gap", "codes", "counts"}),
    ahead=("kind", "name", "step", "n", "gap", "core_gap", "best_family_2", "verdict"),
    keys=_KEYS,
    aggregate=aggregates,
    remarks=remarks,
    invariant=("core_*", "sd_rest"),
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
