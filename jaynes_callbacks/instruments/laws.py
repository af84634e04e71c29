"""The laws fitted to some counts: the part of a record that several instruments share.

A fit of a few streams costs nearly as much as one of a hundred, so a recorder fits the counts of
all its instruments in one batch (`instruments.base.FittingInstrument`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks import statistics
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.records.schema import Array, Key
from jaynes_callbacks.statistics import (
    FAMILIES,
    FAMILY_BY_NAME,
    LOGNORMAL,
    RIVALS_2,
    Binned,
    Family,
    Fit,
    LogMoments,
    Status,
)

__all__ = [
    "OK",
    "Laws",
    "best_families",
    "criterion",
    "family_label",
    "fit_laws",
    "gap_column",
    "host",
    "objects",
    "reasons",
    "rival_keys",
    "sparse",
]


#: Status of a row of which nothing is missing.
OK = "ok"


def family_label(name: str) -> str:
    """Return a family's name as people write it; other texts as they are.

    >>> family_label("half_student_t"), family_label("")
    ('Student t', '')
    """
    return FAMILY_BY_NAME[name].label if name in FAMILY_BY_NAME else name


def rival_keys() -> dict[str, Key]:
    """Describe the columns of a group that has one for each family but the lognormal."""
    return {family.name: Key(family.label) for family in FAMILIES if family is not LOGNORMAL}


class _Fitted(NamedTuple):
    occupied: Binned
    binned: Binned
    moments: LogMoments
    fits: Mapping[str, Fit]


class Laws(_Fitted):
    """Every family fitted to some streams.

    Attributes:
        occupied: the grid's occupied bins, from which magnitudes follow.
        binned: the same, merged where values are few: laws are fitted and compared on these.
        moments: of w and ln w.
        fits: by the family's name.
    """

    @cached_property
    def gaps(self) -> dict[str, Float64[Tensor, " streams"]]:
        """The gap of each family, by its name."""
        return {name: statistics.gap(self.binned, fit) for name, fit in self.fits.items()}

    @property
    def parameters(self) -> dict[str, Float64[Tensor, " streams"]]:
        """Parameters of every family by the names of their columns."""
        return {
            column: values
            for family in FAMILIES
            for column, values in zip(
                family.columns, self.fits[family.name].parameters.unbind(-1), strict=True
            )
        }

    def take(self, rows: slice) -> "Laws":
        """Return the laws of some of the streams."""
        return Laws(
            Binned(*(each[rows] for each in self.occupied)),
            Binned(*(each[rows] for each in self.binned)),
            LogMoments(*(each[rows] for each in self.moments)),
            {
                name: fit._replace(
                    parameters=fit.parameters[rows],
                    log_mass=fit.log_mass[rows],
                    status=fit.status[rows],
                    iterations=fit.iterations[rows],
                )
                for name, fit in self.fits.items()
            },
        )


def fit_laws(counts: Int64[Tensor, "streams 4096"]) -> Laws:
    """Fit every family to some counts.

    On the CPU torch works with one thread meanwhile, and families are fitted side by side.
    """
    with one_thread() as threads:
        occupied = statistics.occupied_bins(counts)
        moments, binned = statistics.log_moments(occupied), occupied.merged()
        return Laws(occupied, binned, moments, statistics.fit_families(binned, moments, threads))


def host(figures: Mapping[str, Float64[Tensor, " streams"]]) -> dict[str, Array]:
    """Bring figures to the host in one copy.

    It is a copy on the CPU too: a history that shares a tensor's memory keeps the tensor.
    """
    values = torch.stack(list(figures.values())).cpu().numpy().copy()
    return dict(zip(figures, values, strict=True))


def objects(values: Sequence[Any]) -> Array:
    """Return a column of texts, tuples or arrays."""
    packed = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        packed[place] = value
    return packed


def sparse(counts: Int64[Tensor, "streams 4096"]) -> dict[str, Array]:
    """Return the occupied codes of each stream and their counts, as columns."""
    table = counts.cpu().numpy()
    row, code = table.nonzero()
    ends = np.searchsorted(row, np.arange(1, len(table)))
    return {
        "codes": objects(np.split(code, ends)),
        "counts": objects(np.split(table[row, code], ends)),
    }


def gap_column(family: str) -> str:
    """Return the name of the column of a family's gap."""
    return "gap" if family == LOGNORMAL.name else f"gap_{family}"


def criterion(gap: Array, n: Array, parameters: int | Array) -> Array:
    """Return Schwarz's criterion of a family per value, up to what all families share, in nats.

    It is gap + p (ln n - 1)/(2n): the bias correction of the gap has taken p/(2n) back already
    (G. Schwarz, Ann. Statist. 6 (1978) 461).

    Args:
        gap: of some streams.
        n: number of values of each stream.
        parameters: their number, p.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(gap + parameters * (np.log(n) - 1) / (2 * n))


def best_families(
    gaps: Mapping[str, Array], n: Array, rivals: Sequence[Family] = RIVALS_2
) -> list[str]:
    """Return which of lognormal and rivals Schwarz's criterion prefers, per value.

    A special case beats its generalisation.  Nothing where the lognormal itself has no fit: then
    nothing was compared.

    Args:
        gaps: of each stream, by family.
        n: number of values of each stream.
        rivals: that are compared; those of version 1 of the verdict, or of version 2.
    """
    compared = (LOGNORMAL, *rivals)
    table = np.stack([gaps[family.name] for family in compared])
    number = np.array([[len(family.parameters)] for family in compared])
    best = np.where(np.isfinite(table), criterion(table, n, number), np.inf).argmin(0)
    known = np.isfinite(table[0]).tolist()
    return [compared[place].name if own else "" for place, own in zip(best, known, strict=True)]


def reasons(
    statuses: Mapping[str, Int64[Tensor, " streams"]], curves: Sequence[str] = ()
) -> list[str]:
    """Return for each row ``ok``, or why figures are nan: the lognormal's reason, then others'.

    Args:
        statuses: a `Status` for each row, by what has it.
        curves: names of what has no numbers at a bound either, unlike a family.
    """
    names = list(statuses)
    table = torch.stack([statuses[name] for name in names], -1).tolist()
    return [
        _reason(dict(zip(names, row, strict=True)), curves) if any(row) else OK for row in table
    ]


def _reason(statuses: Mapping[str, int], curves: Sequence[str]) -> str:
    own = statuses[LOGNORMAL.name]
    found = [Status(own).reason] if _has_no_numbers(own, LOGNORMAL.name in curves) else []
    found += [
        f"{name}: {Status(status).reason}"
        for name, status in statuses.items()
        if status != own and _has_no_numbers(status, name in curves)
    ]
    return "; ".join(found) or OK


def _has_no_numbers(status: int, is_curve: bool) -> bool:
    """Tell whether a fit has no numbers; at a bound a family has some, the paper's curves none."""
    return status != Status.CONVERGED and (is_curve or status != Status.AT_BOUND)
