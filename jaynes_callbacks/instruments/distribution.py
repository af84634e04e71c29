"""Turn counts into finished records: how the magnitudes of streams are distributed.

Every statistic is computed once, for all streams of all moments at once, on the counts' device: a
fit of a few streams costs no less than one of a hundred.  One stacked copy brings the figures to
the host, another the counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks import statistics
from jaynes_callbacks.counts.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.instruments.base import Moment
from jaynes_callbacks.instruments.judge import Judge
from jaynes_callbacks.instruments.laws import (
    Laws,
    best_families,
    fit_laws,
    gap_column,
    host,
    objects,
    reasons,
    sparse,
)
from jaynes_callbacks.instruments.record import SCHEMA, Record, Records
from jaynes_callbacks.instruments.tally import PAPER_BINS, Tally, tally_of_counts, tally_of_state
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Array
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.statistics import (
    LOGNORMAL,
    RIVALS,
    RIVALS_2,
    Binned,
    Fit,
    LogMoments,
    PaperFit,
)

__all__ = [
    "GAUSSIAN",
    "PAPER",
    "PAPER_IOTA_BINS",
    "Batch",
    "Measured",
    "Tallied",
    "counts_of",
    "gaussian_power",
    "measure",
    "paper_bins",
    "paper_bins_of",
    "recompute",
    "summarise",
    "summarise_batch",
    "tallied",
]

#: Equal bins of the paper's protocol for iota.
PAPER_IOTA_BINS = 1000
#: What a status belongs to besides a family.
PAPER, GAUSSIAN = "paper protocol", "Gaussian reference"
_PAPER_FIGURES = ("r2", "mu", "sigma", "amplitude", "r2_gaussian")
#: Variables of neurons, whose histograms the paper draws finer, and powers of Gaussian ones.
_OF_NEURONS = ("y", "z*y")


class Tallied(NamedTuple):
    """Counts of some streams at one moment of a run.

    Attributes:
        streams: in the order of the tally's rows.
        tally: the counts.
        moved: ‖w − w₀‖/‖w₀‖ of each stream; empty if nothing is known of that.
        run: name of the run.
        step: optimizer step.
        epoch: epoch.
    """

    streams: Sequence[Stream]
    tally: Tally
    moved: Sequence[float] = ()
    run: str = ""
    step: int = 0
    epoch: int = 0


class Batch(NamedTuple):
    """What was counted at some moments, the rows of all in one tally."""

    moments: Sequence[Tallied]
    tally: Tally

    @classmethod
    def of(cls, moments: Sequence[Tallied]) -> "Batch":
        """Join the tallies of some moments."""
        if not moments:
            return cls((), tally_of_counts(torch.zeros(0, CODES, dtype=torch.int64)))
        return cls(moments, reduce(Tally.joined, (moment.tally for moment in moments)))

    @property
    def counts(self) -> Int64[Tensor, "streams 4096"]:
        """The counts to which laws are fitted."""
        return self.tally.counts

    @property
    def streams(self) -> list[Stream]:
        """The streams of all rows."""
        return [stream for moment in self.moments for stream in moment.streams]


class Measured(NamedTuple):
    """Figures of L streams on the device.

    Attributes:
        figures: columns of the record, by name.
        statuses: `Status` of each family's fit, of the paper's protocol and its Gaussian reference,
            and of the lognormal's fits to the tilted and the censored counts.
    """

    figures: Mapping[str, Float64[Tensor, " streams"]]
    statuses: Mapping[str, Int64[Tensor, " streams"]]


# Counts to records --------------------------------------------------------------------------


def summarise(
    moments: Sequence[Tallied],
    start: Mapping[tuple[str, str], Record] | None = None,
) -> list[Records]:
    """Fit and measure what was counted at some moments, and judge; see `Judge`."""
    batch = Batch.of(moments)
    return Judge(start or {}).judged(summarise_batch(batch, fit_laws(batch.counts)))


def summarise_batch(batch: Batch, laws: Laws) -> list[Records]:
    """Return the finished records of some moments, in their order, without a verdict.

    Args:
        batch: what was counted.
        laws: fitted to the batch's counts.

    Returns:
        For each moment, one record per stream.
    """
    if not batch.streams:
        return [Records() for _ in batch.moments]
    rows = _records(batch.streams, batch.tally, laws)
    finished, begin = [], 0
    for moment in batch.moments:
        end = begin + len(moment.streams)
        finished.append(_at(rows.take(slice(begin, end)), moment))
        begin = end
    return finished


def tallied(moment: Moment) -> Tallied:
    """Return what a state tells of distributions; streams without a count are left out."""
    streams, tally, moved = tally_of_state(moment.state)
    return Tallied(streams, tally, moved, moment.run, moment.step, moment.epoch)


def recompute(records: Iterable[Record]) -> Records:
    """Compute records again from their saved counts.

    What cannot follow from one row's counts (`gap_se` of streams counted in the paper's bins,
    `gap_change_se`, the core, `moved`, verdicts) is carried over.

    Args:
        records: with their counts; weights in one number of the paper's bins.
    """
    rows = list(records)
    if not rows:
        return Records()
    bins = next((paper_bins_of(row) for row in rows if row.variable not in _OF_NEURONS), PAPER_BINS)
    tally = tally_of_counts(counts_of(rows), bins)
    for index, row in enumerate(rows):
        tally.change_errors[index] = row.gap_change_se
        if row.variable not in _OF_NEURONS:
            tally.errors[index] = row.gap_se
        if row.paper_counts.size:
            tally.linear[index], tally.maximum[index] = torch.from_numpy(row.paper_counts), row.max
            tally.exact[index] = True
    streams = [Stream(row.kind, row.name, row.shape, (), row.variable) for row in rows]
    found, kept = _records(streams, tally, fit_laws(tally.counts)), Frame.from_rows(SCHEMA, rows)
    return found.replaced(
        **{name: values for name, values in kept.columns.items() if name not in found.columns}
    )


def counts_of(records: Sequence[Record]) -> Int64[Tensor, "streams 4096"]:
    """Return the saved counts of some records as they were counted, one row each."""
    counts = torch.zeros(len(records), CODES, dtype=torch.int64)
    for index, record in enumerate(records):
        counts[index, torch.from_numpy(record.codes)] = torch.from_numpy(record.counts)
    return counts


def _at(records: Records, moment: Tallied) -> Records:
    """Say when some rows were recorded, and how far their weights have moved."""
    number = len(records)
    return records.replaced(
        run=objects([moment.run] * number),
        step=np.full(number, moment.step),
        epoch=np.full(number, moment.epoch),
        moved=np.array(moment.moved or [np.nan] * number, dtype=float),
    )


def _records(streams: Sequence[Stream], tally: Tally, laws: Laws) -> Records:
    """Measure streams: one row each, of no moment yet."""
    measured, bins = measure(tally, streams, laws), tally.linear.shape[1]
    figures = host(measured.figures)
    gaps = {name: figures[gap_column(name)] for name in laws.fits}
    totals = torch.stack(statistics.totals(tally.counts)).cpu().numpy().copy()
    columns: dict[str, Array] = {
        "kind": objects([stream.kind for stream in streams]),
        "name": objects([stream.name for stream in streams]),
        "variable": objects([stream.variable for stream in streams]),
        "shape": objects([stream.shape for stream in streams]),
        **dict(zip(("n", "zeros", "nonfinite"), totals, strict=True)),
        **figures,
        "best_family": objects(best_families(gaps, totals[0], RIVALS)),
        "best_family_2": objects(best_families(gaps, totals[0], RIVALS_2)),
        "paper_bins": np.array([paper_bins(each.variable, bins) for each in streams]),
        "status": objects(reasons(measured.statuses, (PAPER, GAUSSIAN))),
        **sparse(tally.counts),
        "paper_counts": objects(
            [
                own if exact else own[:0]
                for own, exact in zip(tally.linear.cpu().numpy(), tally.exact.tolist(), strict=True)
            ]
        ),
    }
    return Records._like(SCHEMA, columns)


# Counts to figures --------------------------------------------------------------------------


@one_thread()
def measure(tally: Tally, streams: Sequence[Stream], laws: Laws) -> Measured:
    """Compute every statistic of the counts; on the CPU torch works with one thread meanwhile.

    Args:
        tally: the counts.
        streams: of its rows; they differ in where the paper's bins come from, and in what Gaussian
            values they are compared with.
        laws: fitted to the counts.
    """
    occupied, binned, moments, fits = laws
    lognormal = fits[LOGNORMAL.name]
    maximum = _maximum(tally)
    paper = _paper(tally, streams, maximum, moments.rms)
    chances, chance_statuses = _best_chances(occupied, binned, moments)
    figures = {
        "max": maximum,
        **_shape(moments),
        # Of bins, and so a little beyond the largest value where all lie in one.
        "rms": torch.minimum(moments.rms, maximum),
        **_of_lognormal(binned, lognormal, tally.errors),
        "gap_change_se": tally.change_errors,
        **_of_theory(occupied, lognormal, maximum),
        **{gap_column(name): gap for name, gap in laws.gaps.items()},
        "gap_best_rival": _least([laws.gaps[rival.name] for rival in RIVALS]),
        **{
            f"vuong_z_{rival.name}": statistics.vuong_z(binned, lognormal, fits[rival.name])
            for rival in RIVALS_2
        },
        **laws.parameters,
        **chances,
        **{f"paper_{name}": getattr(paper, name) for name in _PAPER_FIGURES},
    }
    return Measured(
        figures,
        {
            **{name: fit.status for name, fit in fits.items()},
            PAPER: paper.status,
            GAUSSIAN: paper.gaussian_status,
            **chance_statuses,
        },
    )


def gaussian_power(variable: str) -> float:
    """Return the power of Gaussian values that a variable is compared with in the paper's protocol.

    Z = z·y goes as the square of the pre-activation, the y of a ReLU as the pre-activation itself.
    """
    return 2.0 if variable == "z*y" else 1.0


def paper_bins(variable: str, of_weights: int = PAPER_BINS) -> int:
    """Return the number of equal bins in which the paper's protocol counts a variable.

    Args:
        variable: that is counted.
        of_weights: number for weights, for which the paper states none.
    """
    return PAPER_IOTA_BINS if variable in _OF_NEURONS else of_weights


def paper_bins_of(record: Record) -> int:
    """Return the number of equal bins of a record's protocol.

    Version 0.1 wrote none down, and always counted weights in the same number.
    """
    return record.paper_bins or paper_bins(record.variable)


def _least(gaps: Sequence[Tensor]) -> Tensor:
    """Return the smallest of the gaps that there are; nan where there is none."""
    stacked = torch.stack(list(gaps))
    least = stacked.nan_to_num(nan=torch.inf, posinf=torch.inf).amin(0)
    return torch.where(least.isfinite(), least, torch.nan)


def _shape(moments: LogMoments) -> dict[str, Tensor]:
    return {
        "log_mean": moments.mean,
        "log_std": moments.std,
        "log_skew": moments.skew,
        "log_kurtosis": moments.kurtosis,
    }


def _of_lognormal(binned: Binned, fit: Fit, clustered: Tensor) -> dict[str, Tensor]:
    """Measure how far the values are from the fitted lognormal.

    Args:
        binned: the bins, merged where values are few.
        fit: of the lognormal to them.
        clustered: standard errors of the gap that take dependence into account; nan for none.
    """
    independent = statistics.gap_standard_error(binned, fit)
    return {
        "gap_se": torch.where(clustered.isnan(), independent, clustered),
        **statistics.distances(binned, fit)._asdict(),
    }


def _of_theory(
    occupied: Binned, fit: Fit, maximum: Float64[Tensor, " streams"]
) -> dict[str, Tensor]:
    """Compute the theory's quantities of w/max, the paper's unit, in which layers compare."""
    unit = maximum.log()
    mu, sigma = fit.parameters.unbind(-1)
    theory = statistics.equilibrium(occupied.shifted(-unit), mu - unit, sigma)
    return {
        "alpha": theory.alpha,
        "beta": theory.beta,
        "utility_std": theory.utility_std,
        "potential": theory.potential,
        "entropy": theory.entropy,
    }


def _best_chances(
    occupied: Binned, binned: Binned, moments: LogMoments
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fit the lognormal where sizes count, and where the smallest values may be noise.

    Args:
        occupied: the grid's occupied bins, which are tilted: a merged bin has no one size.
        binned: the same, merged where values are few, which are censored.
        moments: of the occupied bins.

    Returns:
        Figures, and the statuses of the two fits.
    """
    tilted, censored = occupied.tilted(), binned.censored()
    tilted_moments = statistics.log_moments(tilted)
    tilted_fit = statistics.fit_family(LOGNORMAL, tilted, tilted_moments)
    # The open bin has no middle: the fit starts from the uncensored moments.
    censored_fit = statistics.fit_family(LOGNORMAL, censored, moments)
    figures = {
        "log_std_tilted": tilted_moments.std,
        "gap_tilted": statistics.gap(tilted, tilted_fit),
        "gap_censored": statistics.gap(censored, censored_fit),
    }
    return figures, {"tilted": tilted_fit.status, "censored": censored_fit.status}


def _maximum(tally: Tally) -> Float64[Tensor, " streams"]:
    """Return the known maximum, or the upper edge of the highest occupied code; nan for none."""
    occupied = tally.counts[:, FIRST_POSITIVE:FIRST_NONFINITE] > 0
    order = torch.arange(FIRST_POSITIVE, FIRST_NONFINITE, device=occupied.device)
    highest = (occupied * order).amax(-1)
    edge = edges(occupied.device)[highest + 1]
    bounded = torch.where(highest > 0, edge, torch.nan)
    return torch.where(tally.exact, tally.maximum, bounded)


def _paper(
    tally: Tally,
    streams: Sequence[Stream],
    maximum: Float64[Tensor, " streams"],
    rms: Float64[Tensor, " streams"],
) -> PaperFit:
    """Apply the paper's protocol to the streams' own bins, or else to bins made from the counts."""
    of_weights = tally.linear.shape[1]
    number = torch.tensor(
        [paper_bins(stream.variable, of_weights) for stream in streams], device=maximum.device
    )
    power = maximum.new_tensor([gaussian_power(stream.variable) for stream in streams])
    own = tally.exact.nonzero().squeeze(-1)
    fits = [statistics.paper_protocol(tally.linear[own], maximum[own], rms[own])]
    order = [own]
    for bins in dict.fromkeys((of_weights, PAPER_IOTA_BINS)):
        rows = (~tally.exact & (number == bins)).nonzero().squeeze(-1)
        if len(rows):
            counts = statistics.linear_from_counts(tally.counts[rows], maximum[rows], bins)
            fits.append(
                statistics.paper_protocol(
                    counts, maximum[rows], rms[rows], split=True, power=power[rows]
                )
            )
            order.append(rows)
    back = torch.cat(order).argsort()
    return PaperFit(*(torch.cat(column)[back] for column in zip(*fits, strict=True)))
