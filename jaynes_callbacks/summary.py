"""Counts to records: every statistic, once, for all streams of a snapshot."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks import statistics
from jaynes_callbacks.grid import CODES, FIRST_NONFINITE, FIRST_POSITIVE, edges
from jaynes_callbacks.record import Kind, Record, Records, Stream, Tally
from jaynes_callbacks.statistics import FAMILIES, LOGNORMAL, Fit, PaperFit, Status
from jaynes_callbacks.verdict import NEAR, rival_gaps, verdict

__all__ = ["PAPER_BINS", "PAPER_IOTA_BINS", "aggregates", "counts_of", "recompute", "summarise"]

#: Equal bins of the paper's protocol; the paper does not state its own for weights.
PAPER_BINS = 100
PAPER_IOTA_BINS = 1000


_PARAMETERS = {family.name: len(family.parameters) for family in FAMILIES}


class _Measured(NamedTuple):
    """Figures of L streams on the device, each a column of the record."""

    figures: dict[str, Float64[Tensor, " streams"]]
    rival_gaps: dict[str, Float64[Tensor, " streams"]]
    status: Int64[Tensor, " streams"]
    paper_status: Int64[Tensor, " streams"]


def summarise(
    streams: Sequence[Stream],
    tally: Tally,
    *,
    run: str = "",
    step: int = 0,
    epoch: int = 0,
    moved: Sequence[float] | None = None,
    start: Mapping[tuple[str, str], Record] | None = None,
) -> Records:
    """Finished rows of one snapshot.

    Everything is computed on the device of the counts; one stacked copy brings the figures to the
    host, another the counts.

    Args:
        streams: what was counted, in the order of the tally's rows.
        tally: the counts.
        run: name of the run.
        step: optimizer step.
        epoch: epoch.
        moved: ‖w − w₀‖/‖w₀‖ of each stream.
        start: first record of each stream, for the verdict; streams without one start here.

    Returns:
        One record per stream.
    """
    if not streams:
        return Records()
    measured = _measure(tally, [stream.kind for stream in streams])
    figures = _to_host({**measured.figures, **measured.rival_gaps})
    statuses = torch.stack([measured.status, measured.paper_status]).tolist()
    totals = torch.stack(statistics.totals(tally.counts)).tolist()
    counts = tally.counts.cpu().numpy()
    linear = tally.linear.cpu().numpy()
    rows = []
    for row, stream in enumerate(streams):
        codes = counts[row].nonzero()[0]
        columns: dict[str, Any] = {name: figures[name][row] for name in measured.figures}
        record = Record(
            run=run,
            step=step,
            epoch=epoch,
            kind=stream.kind,
            name=stream.name,
            shape=stream.shape,
            n=totals[0][row],
            zeros=totals[1][row],
            nonfinite=totals[2][row],
            rival_gaps={name: figures[name][row] for name in measured.rival_gaps},
            moved=math.nan if moved is None else moved[row],
            status=_reasons(statuses[0][row], statuses[1][row]),
            codes=codes,
            counts=counts[row][codes],
            paper_counts=linear[row] if stream.kind == "weight" else linear[row][:0],
            **columns,
        )
        rows.append(_judged(record, start or {}))
    return Records(rows)


def recompute(records: Iterable[Record]) -> Records:
    """The same records computed again from their saved counts.

    What cannot follow from one row's counts (`moved`, `verdict`) is carried over.
    """
    rows = list(records)
    if not rows:
        return Records()
    counts = counts_of(rows)
    linear = torch.zeros(len(rows), PAPER_BINS, dtype=torch.int64)
    maximum = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    for index, row in enumerate(rows):
        if row.kind == "weight":
            linear[index] = torch.from_numpy(row.paper_counts)
            maximum[index] = row.max
    streams = [Stream(row.kind, row.name, row.shape) for row in rows]
    again = summarise(streams, Tally(counts, maximum, linear))
    return Records(
        new.replace(
            run=old.run, step=old.step, epoch=old.epoch, moved=old.moved, verdict=old.verdict
        )
        for new, old in zip(again, rows, strict=True)
    )


def counts_of(records: Sequence[Record]) -> Int64[Tensor, "streams 4096"]:
    """The saved counts of some records as they were counted, one row each."""
    counts = torch.zeros(len(records), CODES, dtype=torch.int64)
    for index, record in enumerate(records):
        counts[index, torch.from_numpy(record.codes)] = torch.from_numpy(record.counts)
    return counts


def aggregates(records: Iterable[Record]) -> dict[str, float]:
    """The few numbers of a snapshot that loggers, early stopping and sweeps want.

    Returns:
        For each kind with a finite gap: ``equilibrium/<kind>/gap_median``, ``…/gap_worst`` and
        ``…/share_lognormal_like``, the share of streams with a gap below 0.02.
    """
    gaps: dict[Kind, list[float]] = {}
    for record in records:
        if not math.isnan(record.gap):
            gaps.setdefault(record.kind, []).append(record.gap)
    numbers = {}
    for kind, values in gaps.items():
        numbers[f"equilibrium/{kind}/gap_median"] = median(values)
        numbers[f"equilibrium/{kind}/gap_worst"] = max(values)
        near = sum(value < NEAR for value in values)
        numbers[f"equilibrium/{kind}/share_lognormal_like"] = near / len(values)
    return numbers


def _measure(tally: Tally, kinds: Sequence[Kind]) -> _Measured:
    binned = statistics.occupied_bins(tally.counts)
    moments = statistics.log_moments(binned)
    tilted = binned.tilted()
    tilted_moments = statistics.log_moments(tilted)
    censored = binned.censored()
    fits = [statistics.fit_family(family, binned, moments) for family in FAMILIES]
    lognormal = fits[0]
    tilted_fit = statistics.fit_family(LOGNORMAL, tilted, tilted_moments)
    # The open bin has no middle: the fit starts from the uncensored moments.
    censored_fit = statistics.fit_family(LOGNORMAL, censored, moments)
    mu, sigma = lognormal.parameters.unbind(-1)
    distances = statistics.distances(binned, lognormal)
    theory = statistics.equilibrium(binned, mu, sigma)
    maximum = _maximum(tally)
    paper = _paper(tally, kinds, maximum, moments.rms)
    figures = {
        "max": maximum,
        "rms": moments.rms,
        "log_mean": moments.mean,
        "log_std": moments.std,
        "log_std_tilted": tilted_moments.std,
        "log_skew": moments.skew,
        "log_kurtosis": moments.kurtosis,
        "mu": mu,
        "sigma": sigma,
        "gap": statistics.gap(binned, lognormal),
        "gap_se": statistics.gap_standard_error(binned, lognormal),
        "gap_tilted": statistics.gap(tilted, tilted_fit),
        "gap_censored": statistics.gap(censored, censored_fit),
        "tv": distances.tv,
        "ks": distances.ks,
        "w1": distances.w1,
        "n_star": distances.n_star,
        "alpha": theory.alpha,
        "beta": theory.beta,
        "utility_std": theory.utility_std,
        "potential": theory.potential,
        "entropy": theory.entropy,
        "paper_r2": paper.r2,
        "paper_mu": paper.mu,
        "paper_sigma": paper.sigma,
        "paper_amplitude": paper.amplitude,
        "paper_r2_gaussian": paper.r2_gaussian,
    }
    rival_gaps = {fit.family.name: statistics.gap(binned, fit) for fit in _rivals(fits)}
    return _Measured(figures, rival_gaps, lognormal.status, paper.status)


def _rivals(fits: Sequence[Fit]) -> list[Fit]:
    return [fit for fit in fits if fit.family is not LOGNORMAL]


def _maximum(tally: Tally) -> Float64[Tensor, " streams"]:
    """The known maximum, or the upper edge of the highest occupied code; nan if there is none."""
    occupied = tally.counts[:, FIRST_POSITIVE:FIRST_NONFINITE] > 0
    order = torch.arange(FIRST_POSITIVE, FIRST_NONFINITE, device=occupied.device)
    highest = (occupied * order).amax(-1)
    edge = edges(occupied.device)[highest + 1]
    bounded = torch.where(highest > 0, edge, torch.nan)
    return torch.where(tally.maximum.isnan(), bounded, tally.maximum)


def _paper(
    tally: Tally,
    kinds: Sequence[Kind],
    maximum: Float64[Tensor, " streams"],
    rms: Float64[Tensor, " streams"],
) -> PaperFit:
    """The paper's protocol for weights (their own bins) and iota (bins made from the counts)."""
    ours = [kind == "weight" for kind in kinds]
    own_bins = torch.tensor(ours, dtype=torch.bool, device=maximum.device)
    weights, iota = own_bins.nonzero().squeeze(-1), (~own_bins).nonzero().squeeze(-1)
    from_counts = statistics.linear_from_counts(tally.counts[iota], maximum[iota], PAPER_IOTA_BINS)
    fits = (
        statistics.paper_protocol(tally.linear[weights], maximum[weights], rms[weights]),
        statistics.paper_protocol(from_counts, maximum[iota], rms[iota]),
    )
    order = torch.cat([weights, iota]).argsort()
    return PaperFit(*(torch.cat(column)[order] for column in zip(*fits, strict=True)))


def _to_host(columns: Mapping[str, Tensor]) -> dict[str, list[float]]:
    stacked = torch.stack(list(columns.values())).cpu()
    return dict(zip(columns, stacked.tolist(), strict=True))


def _reasons(status: int, paper_status: int) -> str:
    """``ok``, or why figures of this row are nan."""
    reasons = [] if status == Status.CONVERGED else [Status(status).reason]
    if paper_status not in (Status.CONVERGED, status):
        reasons.append(f"paper protocol: {Status(paper_status).reason}")
    return "; ".join(reasons) or Status.CONVERGED.reason


def _judged(record: Record, start: Mapping[tuple[str, str], Record]) -> Record:
    gaps = rival_gaps(record)
    if math.isfinite(record.gap):
        gaps[LOGNORMAL.name] = record.gap
    best = min(gaps, key=lambda name: _criterion(gaps[name], name, record.n), default="")
    return record.replace(best_family=best, verdict=verdict(start.get(record.key, record), record))


def _criterion(gap: float, family: str, n: int) -> float:
    """Schwarz's criterion per value, up to a constant: a special case beats its generalisation.

    The bias correction of the gap has taken p/(2n) back already (G. Schwarz, Ann. Statist. 6
    (1978) 461).
    """
    return gap + _PARAMETERS[family] * (math.log(n) - 1) / (2 * n)
