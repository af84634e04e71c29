"""Rows of the instrument `scales`: the core of a weight, or the scales of its rows or columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jaynes_callbacks.instruments.laws import OK, family_label, rival_keys
from jaynes_callbacks.records.schema import (
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
from jaynes_callbacks.statistics import FAMILIES

__all__ = ["LENT", "SCALE", "SCHEMA", "ScaleRow", "core_text", "share_text"]

#: Kind of the streams of the scales of rows and of columns.
SCALE = "scale"


class HasCore(Protocol):
    """A row of either table that has the core of a weight."""

    @property
    def core_gap(self) -> float: ...
    @property
    def core_gap_gaussian(self) -> float: ...
    @property
    def scale_share(self) -> float: ...


def core_text(row: "HasCore") -> str:
    """Return the core gap with that of Gaussian weights of the same shape.

    >>> core_text(ScaleRow(core_gap=0.1612, core_gap_gaussian=0.163))
    '0.161 (0.163)'
    """
    own = number_text(row.core_gap, 3)
    known = np.isfinite(row.core_gap_gaussian)
    return f"{own} ({number_text(row.core_gap_gaussian, 3)})" if known else own


def share_text(row: "HasCore") -> str:
    """Return the share of the scales as a percentage.

    >>> share_text(ScaleRow(scale_share=0.814))
    '81 %'
    """
    if not np.isfinite(row.scale_share):
        return number_text(row.scale_share, 2)
    return f"{100 * row.scale_share:.0f} %"


def _count_text(row: "ScaleRow") -> str:
    return count_text(row.n)


def _family_text(row: "ScaleRow") -> str:
    return family_label(row.core_best_family)


@dataclass(frozen=True, eq=False)
class ScaleRow(Row):
    """The core of a weight at one step, or the scales of its rows or columns.

    The core of scales is the scales themselves: nothing is taken off.
    """

    kind: str = column("", "weight, or scale: of a weight's rows or columns", WEIGHT, shown=True)
    shape: tuple[int, ...] = column("", "of the weight, or number of scales", ())
    n: int = column("values", "finite, non-zero", 0, shown=True, text=_count_text)
    zeros: int = column("values", "exact zeros and magnitudes up to 2**-126", 0)
    core_gap: float = column(
        "nats",
        "KL of the core to the best lognormal",
        label="core gap",
        curve=True,
        title="core gap, nats: without scales of rows and columns",
    )
    core_gap_gaussian: float = column(
        "nats", "core gap of Gaussian weights of the same shape", label="Gaussian", shown=True
    )
    core_gap_se: float = column("nats", "standard error of core_gap")
    core_rival_gaps: dict[str, float] = group("core_gap_", "nats", "KL of the core to the best {}")
    core_best_family: str = column(
        "",
        "law of the core: lognormal or the rival that Schwarz's criterion prefers",
        "",
        label="law of the core",
        shown=True,
        text=_family_text,
    )
    core_fits: dict[str, float] = group("core_", "", "of the core: {}")
    core_log_skew: float = column("1", "skewness of the core's ln w, without the bias of centring")
    core_log_kurtosis: float = column("1", "its excess kurtosis, likewise")
    scale_share: float = column(
        "1",
        "share of the variance of ln w that is scales of rows and columns",
        label="scales",
        digits=2,
        curve=True,
        title="share of scales in the spread of ln w",
        text=share_text,
    )
    sd_rows: float = column("ln w", "standard deviation of the rows' scales")
    sd_columns: float = column("ln w", "standard deviation of the columns' scales")
    sd_rest: float = column("ln w", "standard deviation within rows and columns")
    reliability: float = column(
        "1", "of scales: share of their variance that is not chance, the mean of few values"
    )
    status: str = column("", "ok, or what was not taken off, or the reason of each nan", OK)
    codes: Integers = counts_column("code", "occupied codes of the core", ColumnType.CODES)
    counts: Integers = counts_column("values", "their counts")


#: Fields of a weight's core that the table of magnitudes has beside the raw figures.
LENT = (
    "core_gap",
    "core_gap_gaussian",
    "core_gap_se",
    "core_rival_gaps",
    "core_best_family",
    "core_log_skew",
    "core_log_kurtosis",
    "scale_share",
    "sd_rows",
    "sd_columns",
    "sd_rest",
)


def _parameter_keys() -> Mapping[str, Key]:
    return {
        column: Key(parameter.meaning, parameter.unit)
        for family in FAMILIES
        for column, parameter in zip(family.columns, family.parameters, strict=True)
    }


SCHEMA: Schema[ScaleRow] = Schema(
    ScaleRow,
    "scales",
    "Cores and scales of weights",
    first_curve="core_gap",
    invariant=("core_*", "sd_rest"),
    ahead=(
        "kind",
        "name",
        "step",
        "n",
        "core_gap",
        "core_gap_gaussian",
        "core_best_family",
        "scale_share",
    ),
    keys={"core_rival_gaps": rival_keys(), "core_fits": _parameter_keys()},
)
