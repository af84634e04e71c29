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

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from jaynes_callbacks import statistics
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.counts.two_way import FEWEST_PER_EFFECT, Layout
from jaynes_callbacks.instruments.base import FittingInstrument, Moment, State
from jaynes_callbacks.instruments.computing import fit_together
from jaynes_callbacks.instruments.cores import (
    QUANTITIES,
    ROWS,
    Core,
    core_of,
    cores_of_parts,
    fail_sums,
    state_of_cores,
)
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
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.scale_row import LENT, SCHEMA, ScaleRow
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.probes.weights import WeightWatch
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Array
from jaynes_callbacks.records.stream import WEIGHT, Stream
from jaynes_callbacks.statistics import LOGNORMAL
from jaynes_callbacks.statistics.two_way import (
    Spread,
    cumulant_factor,
    gaussian_core_gaps,
    variance_components,
)

__all__ = ["Scales", "with_cores"]

#: Scales of which less than this share of the variance is not chance have no law of their own: the
#: means of many values are nearly normal, whatever the law of the values.
_RELIABLE = 0.5


class _Counted(NamedTuple):
    """What the laws are fitted to: the rows of all moments with a count.

    Attributes:
        numbers: of rows of each moment.
        state: of the rows.
        n: number of values of each row.
        components: columns of the components of the variance of ln w, and `reliability`.
        counts: of the rows; none of scales that are no more spread than chance would have them.
    """

    numbers: Sequence[int]
    state: State
    n: Array
    components: Mapping[str, Array]
    counts: Int64[Tensor, "rows 4096"]


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
    quantities: ClassVar = QUANTITIES
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
            fail_sums(expected)
            raise
        whole = [each for each in weights if not each.sharded]
        parts = [each for each in weights if each.sharded]
        # The collective first: the ranks begin it together.
        of_parts = cores_of_parts(parts) if parts else []
        cores = [*(core_of(each.values) for each in whole), *of_parts]
        streams = [each.stream for each in (*whole, *parts)]
        shared = [False] * len(whole) + [True] * len(parts)
        return state_of_cores(streams, cores, shared)

    # Computing ------------------------------------------------------------------------------

    def counted(self, moments: Sequence[Moment]) -> _Counted:
        """Return the rows that have counts, and how their variance is made up."""
        states = [moment.state.take(_rows_with_counts(moment.state)) for moment in moments]
        state = states[0].joined(*states[1:])
        n = statistics.totals(state["counts"]).n.cpu().numpy().copy()
        components = _components(state, n)
        chance = torch.from_numpy(components["reliability"] < _RELIABLE)
        counts = state["counts"].masked_fill(chance[:, None].to(state.device), 0)
        return _Counted(list(map(len, states)), state, n, components, counts)

    def fitted(
        self, moments: Sequence[Moment], counted: _Counted, laws: Laws
    ) -> list[Frame[ScaleRow]]:
        """Measure; what is left of a law without its scales is not judged by itself."""
        if not len(counted.state):
            return [Frame(self.schema, {}) for _ in moments]
        columns = _columns(counted, laws)
        frames, begin = [], 0
        for moment, number in zip(moments, counted.numbers, strict=True):
            rows = range(begin, begin + number)
            own = {name: values[begin : begin + number] for name, values in columns.items()}
            begin += number
            frames.append(self.frame(moment._replace(state=counted.state.take(rows)), own))
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


@one_thread()
def _components(state: State, n: Array) -> dict[str, Array]:
    """Return the components of the variance of ln w, and how reliable scales are."""
    streams = [slot.stream for slot in state.slots]
    is_core = np.array([stream.kind == WEIGHT for stream in streams], dtype=bool)
    cores = statistics.occupied_bins(state["counts"][torch.from_numpy(is_core)])
    variance = statistics.log_moments(cores).std.square().cpu().numpy()
    row_squares, row_n, column_squares, column_n = state["spread"].cpu().numpy()[is_core].T
    found = variance_components(
        n[is_core], variance, Spread(row_squares, row_n), Spread(column_squares, column_n)
    )
    columns = {
        "scale_share": found.scale_share,
        "sd_rows": np.sqrt(found.rows),
        "sd_columns": np.sqrt(found.columns),
        "sd_rest": np.sqrt(found.rest),
    }
    table = {name: _placed(values, is_core) for name, values in columns.items()}
    return {**table, "reliability": _reliability(streams, table, n)}


def _placed(values: Array, rows: Array) -> Array:
    """Return a column that has values in some rows, and nan in the others."""
    column = np.full(len(rows), np.nan)
    column[rows] = values
    return column


def _reliability(streams: Sequence[Stream], table: Mapping[str, Array], n: Array) -> Array:
    """Return, of scales, V/(V + V_e m/n): of the means of n/m values each, m of them."""
    found = np.full(len(streams), np.nan)
    core = 0
    for place, stream in enumerate(streams):
        if stream.kind == WEIGHT:
            core = place
            continue
        is_rows = stream.name == streams[core].name + ROWS
        own = table["sd_rows" if is_rows else "sd_columns"][core] ** 2
        chance = table["sd_rest"][core] ** 2 * n[place] / n[core]
        found[place] = own / (own + chance) if own + chance > 0 else np.nan
    return found


def _columns(counted: _Counted, laws: Laws) -> dict[str, Array]:
    """Return the columns of all rows, without when and of which stream they are."""
    state = counted.state
    streams = [slot.stream for slot in state.slots]
    gaps = host(laws.gaps)
    own = reasons({name: fit.status for name, fit in laws.fits.items()})
    reliability = counted.components["reliability"].tolist()
    zeros = statistics.totals(state["counts"]).zeros.cpu().numpy().copy()
    return {
        "shape": objects([stream.shape for stream in streams]),
        "n": counted.n,
        "zeros": zeros,
        "core_gap": gaps[LOGNORMAL.name],
        **{f"core_gap_{name}": each for name, each in gaps.items() if name != LOGNORMAL.name},
        "core_gap_se": state["error"].cpu().numpy().copy(),
        "core_best_family": objects(best_families(gaps, counted.n)),
        **{f"core_{name}": each for name, each in host(laws.parameters).items()},
        **_shape(streams, laws, counted.n / np.maximum(counted.n + zeros, 1)),
        **counted.components,
        "status": objects(
            [_status(*about) for about in zip(streams, own, reliability, strict=True)]
        ),
        **sparse(state["counts"]),
    }


def _shape(streams: Sequence[Stream], laws: Laws, present: Array) -> dict[str, Array]:
    """Return moments without the bias of centring, and the gap of Gaussian weights.

    Args:
        streams: of the rows.
        laws: fitted to them.
        present: share of the values of each row that are not zero.
    """
    is_core = np.array([stream.kind == WEIGHT for stream in streams], dtype=bool)
    layouts = [Layout.of(stream.shape) for stream in streams if stream.kind == WEIGHT]
    shares = present[is_core].tolist()
    pairs = list(zip(layouts, shares, strict=True))
    moments = {"core_log_skew": laws.moments.skew, "core_log_kurtosis": laws.moments.kurtosis}
    columns = host(moments)
    second, third, fourth = (
        np.array([cumulant_factor(layout, order, share) for layout, share in pairs])
        for order in (2, 3, 4)
    )
    columns["core_log_skew"][is_core] *= second**1.5 / third
    columns["core_log_kurtosis"][is_core] *= second**2 / fourth
    gaussian = np.array(gaussian_core_gaps(layouts, shares))
    return {**columns, "core_gap_gaussian": _placed(gaussian, is_core)}


def _status(stream: Stream, reason: str, reliability: float) -> str:
    """Say what was not taken off, and then the reason of what is missing."""
    if stream.kind != WEIGHT:
        return "no more spread than chance would have them" if reliability < _RELIABLE else reason
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
