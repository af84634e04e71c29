"""The core of the weights: is the law lognormal beyond the scales of neurons?

In a network of ReLUs the weights into a neuron may be multiplied by a factor and those out of it
divided by it; nothing that the network computes changes, and yet the law of |w| does.  Factors
e^N(0, 1) bring untrained Gaussian weights within 0.02 nats of a lognormal.  So beside the gap of
|w| stands the gap of its *core*: what is left of |w| when the scales of rows and columns are taken
off by least squares of ln|w| (`counts.two_way`).  It is the same however rows and columns are
scaled, and zero of a lognormal whatever its shape.  ``docs/symmetry.md`` tells of which layers
scaling is a symmetry.

The scales themselves, e^r of the rows and e^c of the columns, are streams of kind ``scale``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from jaynes_callbacks import statistics
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.kernels import code_counts
from jaynes_callbacks.counts.two_way import (
    FEWEST_PER_EFFECT,
    Effects,
    Layout,
    LogSums,
    core_counts,
    effects_of,
    empty_sums,
    log_sums,
    two_way,
)
from jaynes_callbacks.instruments.base import FittingInstrument, Moment, Quantity, Slot, State
from jaynes_callbacks.instruments.computing import fit_together
from jaynes_callbacks.instruments.distribution import Batch, Tallied, summarise_batch
from jaynes_callbacks.instruments.laws import (
    OK,
    Laws,
    best_families,
    host,
    objects,
    reasons,
    sparse,
)
from jaynes_callbacks.instruments.ranks import summed
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.scale_row import LENT, SCALE, SCHEMA, ScaleRow
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Array
from jaynes_callbacks.records.stream import WEIGHT, Stream
from jaynes_callbacks.statistics import LOGNORMAL
from jaynes_callbacks.statistics.two_way import (
    Spread,
    core_standard_error,
    cumulant_factor,
    gaussian_core_gaps,
    variance_components,
)
from jaynes_callbacks.watch.selection import Coverage, Selection
from jaynes_callbacks.watch.weights import WeightValue, WeightWatch

__all__ = ["Core", "Scales", "core_of", "state_of_cores", "with_cores"]

#: What is appended to a weight's name for the scales of its rows and of its columns.
_ROWS, _COLUMNS = ".rows", ".columns"
#: Fewer scales say nothing of their law.
_FEWEST_SCALES = 100


class Core(NamedTuple):
    """The core of one weight, and the scales that were taken off.

    Attributes:
        counts: of the core on the universal grid.
        effects: of rows and columns on ln|w|.
        error: standard error of the core's gap; nan where there is none.
    """

    counts: Int64[Tensor, " 4096"]
    effects: Effects
    error: Float64[Tensor, ""]


class _Counted(NamedTuple):
    """What the laws are fitted to: the rows of all moments with a count."""

    rows: Sequence[Sequence[int]]
    counts: Int64[Tensor, "rows 4096"]


#: Quantities of a row: of a weight Σr², number of rows with values, Σc², number of such columns.
_SPREAD = 4


class Scales(FittingInstrument[ScaleRow, _Counted]):
    """Records the core of each weight, and the scales of its rows and columns.

    Weights that ranks hold in parts need their sums by row and column first: one collective of
    2 (R + C) numbers for each such weight.

    Args:
        cadence: when to record; None for whenever the recorder does.
    """

    name = "scales"
    schema = SCHEMA
    lends = LENT
    quantities: ClassVar = {
        "counts": Quantity((CODES,), torch.int64),
        "spread": Quantity((_SPREAD,), reduction=None),
        "error": Quantity(reduction=None),
    }
    _failed_begin: Exception | None = None

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Find the weights."""
        super().attach(model, selection)
        self._weights = WeightWatch(model, selection)
        if WEIGHT in selection.kinds:
            self._weights.find()

    @property
    def coverage(self) -> Coverage:
        """The weights, and what is left out."""
        return Coverage(tuple(self._weights.streams), tuple(self._weights.skipped))

    # Collecting -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Collect the untouched model; if that fails, there is no first record."""
        try:
            super().begin()
        except Exception as error:
            self._failed_begin = error
            raise

    def collect_once(self) -> State:
        """Return the state of `begin` the first time, or raise what it raised.

        To collect anew would be to sum over ranks that have their state already.
        """
        error, self._failed_begin = self._failed_begin, None
        if error is not None:
            raise error
        return super().collect_once()

    def collect(self) -> State:
        """Count the core of each weight; runs on every rank."""
        if WEIGHT not in self.selection.kinds:
            return State.empty(self.quantities)
        expected = self._weights.sharded
        try:
            weights = list(self._weights.read())
        except Exception:
            # The other ranks wait for this one's sums.
            _failed_sums(expected)
            raise
        whole = [each for each in weights if not each.sharded]
        parts = [each for each in weights if each.sharded]
        cores = _of_parts(parts) if parts else []
        cores = [*map(_of_whole, whole), *cores]
        streams = [each.stream for each in (*whole, *parts)]
        shared = [False] * len(whole) + [True] * len(parts)
        return state_of_cores(streams, cores, shared)

    # Computing ------------------------------------------------------------------------------

    def counted(self, moments: Sequence[Moment]) -> _Counted:
        """Return the counts of all rows that have any."""
        rows = [_rows_with_counts(moment.state) for moment in moments]
        tables = [moment.state["counts"][own] for moment, own in zip(moments, rows, strict=True)]
        return _Counted(rows, torch.cat(tables))

    def fitted(
        self, moments: Sequence[Moment], counted: _Counted, laws: Laws
    ) -> list[Frame[ScaleRow]]:
        """Measure; what is left of a law without its scales is not judged by itself."""
        states = [moment.state.take(own) for moment, own in zip(moments, counted.rows, strict=True)]
        if not any(map(len, states)):
            return [Frame(self.schema, {}) for _ in moments]
        columns = rows_of_cores(states[0].joined(*states[1:]), laws)
        frames, begin = [], 0
        for moment, state in zip(moments, states, strict=True):
            own = {name: values[begin : begin + len(state)] for name, values in columns.items()}
            begin += len(state)
            frames.append(self.frame(moment._replace(state=state), own))
        return frames


def with_cores(tallied: Tallied, cores: Sequence[Core]) -> Records:
    """Return the records of some weights at one moment, with what is known of their cores.

    Args:
        tallied: counts of the weights.
        cores: of the same weights.
    """
    scales, moment = Scales(), Moment(state_of_cores(tallied.streams, cores, with_scales=False))
    batch, counted = Batch.of([tallied]), scales.counted([moment])
    laws = fit_together({"magnitudes": batch, "scales": counted})
    (records,) = summarise_batch(batch, laws["magnitudes"])
    (frame,) = scales.fitted([moment], counted, laws["scales"])
    return records.beside(frame, LENT) if len(frame) else records


# Collecting ---------------------------------------------------------------------------------


def state_of_cores(
    streams: Sequence[Stream],
    cores: Sequence[Core],
    shared: Sequence[bool] = (),
    *,
    with_scales: bool = True,
) -> State:
    """Return the state of some weights: a row of each core, then rows of the scales.

    Args:
        streams: of the weights.
        cores: of the weights.
        shared: of each weight, whether the counts of its core are a part; of none by default.
        with_scales: whether the scales are streams of their own.
    """
    if not cores:
        return State.empty(Scales.quantities)
    shared = shared or [False] * len(cores)
    slots, counts, spread, errors, parts = [], [], [], [], []
    for stream, core, part in zip(streams, cores, shared, strict=True):
        slots.append(Slot(stream))
        counts.append(core.counts)
        spread.append(_spread(core.effects, Layout.of(stream.shape)))
        errors.append(core.error)
        parts.append(part)
        for scales, values in _scales_of(stream, core.effects) if with_scales else ():
            slots.append(Slot(scales))
            counts.append(code_counts(values))
            spread.append(torch.full_like(spread[-1], torch.nan))
            errors.append(torch.full_like(core.error, torch.nan))
            # Every rank knows all effects.
            parts.append(False)
    device = counts[0].device
    return State(
        slots,
        {
            "counts": torch.stack([each.to(device) for each in counts]),
            "spread": torch.stack([each.to(device) for each in spread]),
            "error": torch.stack([each.to(device, torch.float64) for each in errors]),
        },
        parts,
    )


def _scales_of(stream: Stream, effects: Effects) -> Iterator[tuple[Stream, Tensor]]:
    """Return the scales of rows and of columns where there are enough; 0 of what is all zeros."""
    layout = Layout.of(stream.shape)
    for centred, suffix, own, number in (
        (layout.centres_rows, _ROWS, effects.rows, effects.row_n),
        (layout.centres_columns, _COLUMNS, effects.columns, effects.column_n),
    ):
        if centred and len(own) >= _FEWEST_SCALES:
            scales = Stream(SCALE, stream.name + suffix, (len(own),))
            yield scales, torch.where(number > 0, own.exp(), 0.0)


def _spread(effects: Effects, layout: Layout) -> Float64[Tensor, " 4"]:
    nothing = effects.rows.new_full((), torch.nan)
    return torch.stack(
        [
            effects.rows.square().sum() if layout.centres_rows else nothing,
            (effects.row_n > 0).sum().to(torch.float64),
            effects.columns.square().sum() if layout.centres_columns else nothing,
            (effects.column_n > 0).sum().to(torch.float64),
        ]
    )


def _of_whole(weight: WeightValue) -> Core:
    return core_of(weight.values)


def core_of(values: Tensor) -> Core:
    """Count the core of a weight, and estimate the standard error of its gap."""
    counts, effects = two_way(values)
    return Core(counts, effects, core_standard_error(values, effects, counts))


def _of_parts(weights: Sequence[WeightValue]) -> list[Core]:
    """Count this rank's parts of the cores of weights, after one collective."""
    layouts = [Layout.of(each.stream.shape) for each in weights]
    device = weights[0].values.device
    try:
        own = [_placed_sums(each, layout) for each, layout in zip(weights, layouts, strict=True)]
        packed = torch.cat([part.to(device, torch.float64) for sums in own for part in sums])
    except Exception:
        _failed_sums([each.stream for each in weights])
        raise
    pieces = iter(summed(packed).split([size for each in layouts for size in _sizes(each)]))
    cores = []
    for weight, layout in zip(weights, layouts, strict=True):
        rows, row_n, columns, column_n = (next(pieces) for _ in range(4))
        effects = effects_of(LogSums(rows, row_n.long(), columns, column_n.long()), layout)
        unknown = effects.rows.new_full((), torch.nan)
        cores.append(Core(_part_of_core(weight, effects), effects, unknown))
    return cores


def _failed_sums(streams: Sequence[Stream]) -> None:
    """Take part in the collective with nothing, so that no rank waits for ever."""
    if streams:
        size = sum(sum(_sizes(Layout.of(stream.shape))) for stream in streams)
        summed(torch.full((size,), torch.nan, dtype=torch.float64))


def _sizes(layout: Layout) -> tuple[int, int, int, int]:
    return layout.rows, layout.rows, layout.columns, layout.columns


def _place(weight: WeightValue) -> tuple[slice, slice]:
    """Return the rows and columns of a weight of which this rank has values."""
    (top, left), (height, width) = weight.place[:2], weight.values.shape[:2]
    return slice(top, top + height), slice(left, left + width)


def _has_values(weight: WeightValue) -> bool:
    return weight.values.dim() >= 2 and weight.values.numel() > 0


def _placed_sums(weight: WeightValue, layout: Layout) -> LogSums:
    """Return the sums of this rank's part in their place in the whole."""
    whole = empty_sums(layout, weight.values.device)
    if _has_values(weight):
        own, (rows, columns) = log_sums(weight.values.detach()), _place(weight)
        whole.rows[rows], whole.row_n[rows] = own.rows, own.row_n
        whole.columns[columns], whole.column_n[columns] = own.columns, own.column_n
    return whole


def _part_of_core(weight: WeightValue, effects: Effects) -> Int64[Tensor, " 4096"]:
    if not _has_values(weight):
        return torch.zeros(CODES, dtype=torch.int64, device=weight.values.device)
    rows, columns = _place(weight)
    own = effects.mean + effects.rows[rows]
    return core_counts(weight.values.detach(), own, effects.columns[columns])


# Computing ----------------------------------------------------------------------------------


def _rows_with_counts(state: State) -> list[int]:
    """Return the rows that have counts, the scales of a weight behind its core.

    A reduction over ranks puts what they share, the cores of weights in parts, behind what every
    rank knows, the scales of all.
    """
    owners = [
        stream.name if stream.kind == WEIGHT else stream.name.rpartition(".")[0]
        for stream in (slot.stream for slot in state.slots)
    ]
    first = {name: place for place, name in reversed(list(enumerate(owners)))}
    rows = (state["counts"][:, 1:].sum(-1) > 0).nonzero().squeeze(-1).tolist()
    return sorted(
        rows, key=lambda row: (first[owners[row]], state.slots[row].stream.kind != WEIGHT, row)
    )


def rows_of_cores(state: State, laws: Laws) -> dict[str, Array]:
    """Return the columns of some rows, without when and of which stream they are.

    Args:
        state: of `state_of_cores`, whose rows all have counts.
        laws: fitted to its counts.
    """
    streams = [slot.stream for slot in state.slots]
    totals = torch.stack(statistics.totals(state["counts"])).cpu().numpy().copy()
    gaps = host(laws.gaps)
    statuses = {name: fit.status for name, fit in laws.fits.items()}
    own = reasons(statuses)
    return {
        "shape": objects([stream.shape for stream in streams]),
        "n": totals[0],
        "zeros": totals[1],
        "core_gap": gaps[LOGNORMAL.name],
        **{f"core_gap_{name}": each for name, each in gaps.items() if name != LOGNORMAL.name},
        "core_best_family": objects(best_families(gaps, totals[0])),
        **{f"core_{name}": each for name, each in host(laws.parameters).items()},
        **_shape(streams, state, laws, totals[0]),
        "status": objects(
            [_status(stream, reason) for stream, reason in zip(streams, own, strict=True)]
        ),
        **sparse(state["counts"]),
    }


def _shape(streams: Sequence[Stream], state: State, laws: Laws, n: Array) -> dict[str, Array]:
    """Return moments and components, and what Gaussian weights of the same shapes would have."""
    is_core = [stream.kind == WEIGHT for stream in streams]
    layouts = [Layout.of(stream.shape) for stream in streams if stream.kind == WEIGHT]
    variance, skew, kurtosis = host(
        {
            "variance": laws.moments.std.square(),
            "skew": laws.moments.skew,
            "kurtosis": laws.moments.kurtosis,
        }
    ).values()
    row_squares, row_n, column_squares, column_n = state["spread"].cpu().numpy()[is_core].T
    found = variance_components(
        n[is_core].astype(np.float64),
        variance[is_core],
        Spread(row_squares, row_n),
        Spread(column_squares, column_n),
    )
    second, third, fourth = (
        np.array([cumulant_factor(layout, order) for layout in layouts]) for order in (2, 3, 4)
    )
    skew[is_core] *= second**1.5 / third
    kurtosis[is_core] *= second**2 / fourth
    columns = {
        "core_gap_gaussian": np.array(gaussian_core_gaps(layouts)),
        "scale_share": found.scale_share,
        "sd_rows": np.sqrt(found.rows),
        "sd_columns": np.sqrt(found.columns),
        "sd_rest": np.sqrt(found.rest),
    }
    table = {name: np.full(len(streams), np.nan) for name in columns}
    for name, values in columns.items():
        table[name][is_core] = values
    return {
        **table,
        "core_gap_se": state["error"].cpu().numpy().copy(),
        "core_log_skew": skew,
        "core_log_kurtosis": kurtosis,
        "reliability": _reliability(streams, table, n),
    }


def _reliability(streams: Sequence[Stream], table: Mapping[str, Array], n: Array) -> Array:
    """Return, of scales, V/(V + V_e m/n): of the means of n/m values each, m of them."""
    found = np.full(len(streams), np.nan)
    core = 0
    for place, stream in enumerate(streams):
        if stream.kind == WEIGHT:
            core = place
            continue
        is_rows = stream.name == streams[core].name + _ROWS
        own = table["sd_rows" if is_rows else "sd_columns"][core] ** 2
        chance = table["sd_rest"][core] ** 2 * n[place] / n[core]
        found[place] = own / (own + chance) if own + chance > 0 else np.nan
    return found


def _status(stream: Stream, reason: str) -> str:
    """Say what was not taken off, and then the reason of what is missing."""
    if stream.kind != WEIGHT:
        return reason
    layout = Layout.of(stream.shape)
    kept = [
        name
        for name, number, centred in (
            ("rows", layout.rows, layout.centres_rows),
            ("columns", layout.columns, layout.centres_columns),
        )
        if number > 1 and not centred
    ]
    if not kept:
        return reason
    said = (
        f"scales of {' and '.join(kept)} not taken off: fewer than {FEWEST_PER_EFFECT} values each"
    )
    return said if reason == OK else f"{said}; {reason}"
