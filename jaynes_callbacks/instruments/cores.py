"""Count the cores of weights, and of weights that ranks hold in parts, into one state.

A core is what is left of a weight's magnitudes when the scales of its rows and columns are taken
off (`counts.two_way`).  `instruments.scales` measures it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.kernels import code_counts
from jaynes_callbacks.counts.two_way import (
    Effects,
    Layout,
    LogSums,
    core_counts,
    effects_of,
    empty_sums,
    log_sums,
    two_way,
)
from jaynes_callbacks.instruments.base import Quantity, Slot, State
from jaynes_callbacks.instruments.ranks import summed
from jaynes_callbacks.instruments.scale_row import SCALE
from jaynes_callbacks.probes.weights import WeightValue
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.statistics.two_way import core_standard_error

__all__ = [
    "COLUMNS",
    "QUANTITIES",
    "ROWS",
    "Core",
    "core_of",
    "cores_of_parts",
    "fail_sums",
    "state_of_cores",
]

#: What is appended to a weight's name for the scales of its rows and of its columns.
ROWS, COLUMNS = ".rows", ".columns"
#: Fewer scales say nothing of their law.
_FEWEST_SCALES = 100
#: Of a weight Σr², number of rows with values, Σc², number of such columns.
_SPREAD = 4
#: What is collected of each core, and of the scales that were taken off.
QUANTITIES: Mapping[str, Quantity] = {
    "counts": Quantity((CODES,), torch.int64),
    "spread": Quantity((_SPREAD,), reduction=None),
    "error": Quantity(reduction=None),
}


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
        return State.empty(QUANTITIES)
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
        (layout.centres_rows, ROWS, effects.rows, effects.row_n),
        (layout.centres_columns, COLUMNS, effects.columns, effects.column_n),
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


def core_of(values: Tensor) -> Core:
    """Count the core of a weight, and estimate the standard error of its gap."""
    counts, effects = two_way(values)
    return Core(counts, effects, core_standard_error(values, effects, counts))


def cores_of_parts(weights: Sequence[WeightValue]) -> list[Core]:
    """Count this rank's parts of the cores of weights, after one collective."""
    layouts = [Layout.of(each.stream.shape) for each in weights]
    device = weights[0].values.device
    try:
        own = [_placed_sums(each, layout) for each, layout in zip(weights, layouts, strict=True)]
        packed = torch.cat([part.to(device, torch.float64) for sums in own for part in sums])
    except Exception:
        fail_sums([each.stream for each in weights])
        raise
    pieces = iter(summed(packed).split([size for each in layouts for size in _sizes(each)]))
    cores = []
    for weight, layout in zip(weights, layouts, strict=True):
        rows, row_n, columns, column_n = (next(pieces) for _ in range(4))
        effects = effects_of(LogSums(rows, row_n.long(), columns, column_n.long()), layout)
        unknown = effects.rows.new_full((), torch.nan)
        cores.append(Core(_part_of_core(weight, effects), effects, unknown))
    return cores


def fail_sums(streams: Sequence[Stream]) -> None:
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
