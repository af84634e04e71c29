"""Figures to records: finished rows on the host, judged; and again, from what was saved."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks import statistics
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.distribution import GAUSSIAN, PAPER, measure
from jaynes_callbacks.instruments.record import Kind, Record, Records, Stream
from jaynes_callbacks.instruments.tally import Tally, tally_of_counts
from jaynes_callbacks.instruments.verdict import BANDS, band, rival_gaps, verdict
from jaynes_callbacks.statistics import FAMILIES, LOGNORMAL, Status

__all__ = ["Moment", "aggregates", "counts_of", "recompute", "summarise"]

_PARAMETERS = {family.name: len(family.parameters) for family in FAMILIES}


class Moment(NamedTuple):
    """What was counted of some streams at one moment of a run.

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


def summarise(
    moments: Sequence[Moment], start: Mapping[tuple[str, str], Record] | None = None
) -> list[Records]:
    """Finished rows of some moments, in their order.

    Everything is computed on the device of the counts, for all moments at once: a fit of a few
    streams costs no less than one of a hundred.  One stacked copy brings the figures to the host,
    another the counts.

    Args:
        moments: what was counted.
        start: first record of each stream, for the verdict; streams without one start here.

    Returns:
        For each moment, one record per stream.
    """
    streams = [stream for moment in moments for stream in moment.streams]
    if not streams:
        return [Records() for _ in moments]
    tally = reduce(Tally.joined, (moment.tally for moment in moments))
    rows = iter(_rows(streams, tally))
    first = dict(start or {})
    finished = []
    for moment in moments:
        records = Records(_of_moment(moment, rows, first))
        first = {**records.by_stream(), **first}
        finished.append(records)
    return finished


def _of_moment(
    moment: Moment, rows: Iterator[Record], start: Mapping[tuple[str, str], Record]
) -> Iterator[Record]:
    moved = moment.moved or [math.nan] * len(moment.streams)
    for distance, row in zip(moved, islice(rows, len(moment.streams)), strict=True):
        record = row.replace(run=moment.run, step=moment.step, epoch=moment.epoch, moved=distance)
        yield record.replace(verdict=verdict(start.get(record.key, record), record))


def _rows(streams: Sequence[Stream], tally: Tally) -> list[Record]:
    """One record per stream, of no moment yet."""
    measured = measure(tally, streams)
    figures, gaps, vuong = (_to_host(columns) for columns in measured[:3])
    statuses = _to_host(measured.statuses)
    totals = torch.stack(statistics.totals(tally.counts)).tolist()
    counts = tally.counts.cpu().numpy()
    linear, known = tally.linear.cpu().numpy(), (~tally.maximum.isnan()).tolist()
    rows = []
    for row, stream in enumerate(streams):
        codes = counts[row].nonzero()[0]
        columns: dict[str, Any] = _row(figures, row)
        record = Record(
            kind=stream.kind,
            name=stream.name,
            variable=stream.variable,
            shape=stream.shape,
            n=totals[0][row],
            zeros=totals[1][row],
            nonfinite=totals[2][row],
            rival_gaps=_row(gaps, row),
            vuong_z=_row(vuong, row),
            status=_reasons(_row(statuses, row)),
            codes=codes,
            counts=counts[row][codes],
            paper_counts=linear[row] if known[row] else linear[row][:0],
            **columns,
        )
        rows.append(record.replace(best_family=_best_family(record)))
    return rows


def recompute(records: Iterable[Record]) -> Records:
    """The same records computed again from their saved counts.

    What cannot follow from one row's counts (`gap_se` of weights, `moved`, `verdict`) is carried
    over.
    """
    rows = list(records)
    if not rows:
        return Records()
    tally = tally_of_counts(counts_of(rows))
    for index, row in enumerate(rows):
        if row.kind == "weight":
            tally.errors[index] = row.gap_se
        if row.paper_counts.size:
            tally.linear[index], tally.maximum[index] = torch.from_numpy(row.paper_counts), row.max
    streams = [Stream(row.kind, row.name, row.shape, (), row.variable) for row in rows]
    return Records(
        new.replace(
            run=old.run, step=old.step, epoch=old.epoch, moved=old.moved, verdict=old.verdict
        )
        for new, old in zip(_rows(streams, tally), rows, strict=True)
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
        For each kind with a finite gap: ``equilibrium/<kind>/gap_median``, ``…/gap_worst``, and
        the share of its streams in each band of `verdict.BANDS`: ``…/share_lognormal_like`` (a gap
        below 0.003 nats), ``…/share_near`` (to 0.02), ``…/share_far`` (to 0.08), ``…/share_no``;
        they add up to one.

    Example:
        >>> from jaynes_callbacks.instruments.record import Record
        >>> numbers = aggregates([Record(gap=0.001), Record(gap=0.163)])
        >>> numbers["equilibrium/weight/gap_worst"], numbers["equilibrium/weight/share_no"]
        (0.163, 0.5)
    """
    gaps: dict[Kind, list[float]] = {}
    for record in records:
        if math.isfinite(record.gap):
            gaps.setdefault(record.kind, []).append(record.gap)
    numbers = {}
    for kind, values in gaps.items():
        numbers[f"equilibrium/{kind}/gap_median"] = median(values)
        numbers[f"equilibrium/{kind}/gap_worst"] = max(values)
        found = Counter(map(band, values))
        for name in BANDS:
            tag = f"equilibrium/{kind}/share_{name.replace('-', '_')}"
            numbers[tag] = found[name] / len(values)
    return numbers


def _to_host(columns: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """One copy for all columns."""
    return dict(zip(columns, torch.stack(list(columns.values())).tolist(), strict=True))


def _row(columns: Mapping[str, list[Any]], row: int) -> dict[str, Any]:
    return {name: column[row] for name, column in columns.items()}


def _reasons(statuses: Mapping[str, int]) -> str:
    """``ok``, or why figures of this row are nan: the lognormal's own reason, then others'."""
    own = statuses[LOGNORMAL.name]
    reasons = [Status(own).reason] if _is_nan(LOGNORMAL.name, own) else []
    reasons += [
        f"{name}: {Status(status).reason}"
        for name, status in statuses.items()
        if status != own and _is_nan(name, status)
    ]
    return "; ".join(reasons) or Status.CONVERGED.reason


def _is_nan(name: str, status: int) -> bool:
    """Whether a fit has no numbers; at a bound a family has some, the paper's curves have none."""
    curve = name in (PAPER, GAUSSIAN)
    return status != Status.CONVERGED and (curve or status != Status.AT_BOUND)


def _best_family(record: Record) -> str:
    """Nothing where the lognormal itself has no fit: then nothing was compared."""
    if not math.isfinite(record.gap):
        return ""
    gaps = {LOGNORMAL.name: record.gap, **rival_gaps(record)}
    return min(gaps, key=lambda name: _criterion(gaps[name], name, record.n))


def _criterion(gap: float, family: str, n: int) -> float:
    """Schwarz's criterion per value, up to a constant: a special case beats its generalisation.

    The bias correction of the gap has taken p/(2n) back already (G. Schwarz, Ann. Statist. 6
    (1978) 461).
    """
    return gap + _PARAMETERS[family] * (math.log(n) - 1) / (2 * n)
