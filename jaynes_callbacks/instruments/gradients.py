"""The magnitudes of gradients and of updates: how are they distributed, how large are the steps?

A record at step t shows the gradients that led to it, ∇L at w_{t−1}, as the optimizer was about to
see them (complete, unscaled, before clipping), and the updates w_t − w_{t−1} that it made of them.
Both are distributions like those of the weights, with all columns of `instruments.record` but
`moved` and `verdict`; updates also have ‖w_t − w_{t−1}‖/‖w_{t−1}‖.

Only steps after which a record is due cost anything: the parameters that are about to be updated
are copied, and let go when the record is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from jaynes_callbacks.instruments.base import FittingInstrument, Moment, Quantity, State
from jaynes_callbacks.instruments.distribution import Batch, summarise_batch, tallied
from jaynes_callbacks.instruments.laws import Laws
from jaynes_callbacks.instruments.record import SCHEMA, Record
from jaynes_callbacks.instruments.tally import QUANTITIES, weights_state
from jaynes_callbacks.probes.gradients import GRADIENT, UPDATE, Gradient, GradientWatch, Update
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.probes.weights import WeightValue
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Array, Schema, column, medians
from jaynes_callbacks.schedule import Cadence

__all__ = ["GRADIENT", "UPDATE", "GradientRecord", "Gradients"]


@dataclass(frozen=True, eq=False)
class GradientRecord(Record):
    """How gradients or updates of one parameter are distributed, and how large an update was."""

    update_ratio: float = column(
        "1",
        "‖update‖/‖w‖, w before the update; nan for gradients",
        label="‖Δw‖/‖w‖",
        digits=5,
        curve=True,
    )


class Gradients(FittingInstrument[GradientRecord, Batch]):
    """Records how gradients and updates are distributed, and how large updates are.

    A trainer's host shows the gradients by itself.  In a loop of your own, call
    `Recorder.before_step` between ``backward`` and ``step`` (after unscaling, before clipping), in
    the iterations that end with a record only, and `Recorder.record` after the step.

    Args:
        cadence: when to record; None for whenever the recorder does.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> model = torch.nn.Linear(32, 32)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Recorder(model, instruments="gradients") as recorder:
        ...     for step in range(1, 11):
        ...         optimizer.zero_grad()
        ...         model(torch.randn(8, 32)).square().mean().backward()
        ...         if step % 5 == 0:
        ...             recorder.before_step(list(model.parameters()))
        ...         optimizer.step()
        ...         if step % 5 == 0:
        ...             records = recorder.record(step)["gradients"]
        >>> [(record.kind, record.name, record.step, record.n) for record in records]
        [('gradient', 'weight', 10, 1024), ('update', 'weight', 10, 1024)]
        >>> 0 < records[1].update_ratio < 0.1
        True
    """

    name = "gradients"
    schema = Schema(
        GradientRecord,
        "gradients",
        "Gradients and updates",
        required=SCHEMA.required,
        ahead=("kind", "name", "step", "n", "update_ratio", "gap", "best_family", "q"),
        keys=SCHEMA.keys,
        aggregate=medians,
        remarks=SCHEMA.remarks,
        version=SCHEMA.version,
        upgrade=SCHEMA.upgrade,
    )
    quantities: ClassVar = {**QUANTITIES, "squares": Quantity((2,))}

    def __init__(self, cadence: Cadence | None = None) -> None:
        super().__init__(cadence)
        self._nothing = self._gradients = State.empty(self.quantities)
        self._failure: Exception | None = None

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Take the model to watch; its parameters are found at each step that is recorded."""
        super().attach(model, selection)
        self._watch = GradientWatch(model, selection)

    def detach(self) -> None:
        """Let go of counts and copies."""
        self.forget()

    @property
    def coverage(self) -> Coverage:
        """A stream of gradients and one of updates for each trained parameter."""
        return self._watch.coverage

    def before_step(self, parameters: Sequence[nn.Parameter]) -> None:
        """Count the gradients as they are now, and copy the parameters.

        What an earlier step showed of the same parameters is dropped.  An error is raised by
        `collect`: if it were raised here, other ranks would add up a state without this rank's
        part.

        Args:
            parameters: that are about to be updated.
        """
        if self._failure is not None:
            return
        try:
            counted = self._state(self._watch.before_step(parameters))
            new = {slot.stream.name for slot in counted.slots}
            kept = [
                row
                for row, slot in enumerate(self._gradients.slots)
                if slot.stream.name in self._watch.copied - new
            ]
            self._gradients = self._gradients.take(kept).joined(counted)
        except Exception as error:
            self.forget()
            self._failure = error

    def collect(self) -> State:
        """Return the gradients that were counted, and count the updates that followed.

        Raises:
            Exception: the one that kept `before_step` from counting.
        """
        gradients, failure = self._gradients, self._failure
        try:
            if failure is not None:
                raise failure
            return gradients.joined(self._state(list(self._watch.after_step())))
        finally:
            self.forget()

    def counted(self, moments: Sequence[Moment]) -> Batch:
        """Return the tallies of some moments."""
        return Batch.of([tallied(moment) for moment in moments])

    def fitted(
        self, moments: Sequence[Moment], counted: Batch, laws: Laws
    ) -> list[Frame[GradientRecord]]:
        """Measure; nothing is judged, for the theory says nothing of gradients."""
        finished = summarise_batch(counted, laws)
        return [
            Frame(self.schema, {**records.columns, "update_ratio": _ratios(moment.state, records)})
            for moment, records in zip(moments, finished, strict=True)
        ]

    def forget(self) -> None:
        """Let go of what `before_step` showed: no record is made of it."""
        self._gradients, self._failure = self._nothing, None
        self._watch.forget()

    def _state(self, values: Sequence[Gradient] | Sequence[Update]) -> State:
        """Count gradients or updates, with the squared norms of updates beside the counts."""
        if not values:
            return self._nothing
        device = values[0].values.device
        unknown = torch.full((2,), torch.nan, dtype=torch.float64, device=device)
        state = weights_state(
            [WeightValue(each.stream, each.values, each.sharded, unknown[0]) for each in values],
            device,
        )
        squares = {
            each.stream: each.squares.to(device) for each in values if isinstance(each, Update)
        }
        rows = [squares.get(slot.stream, unknown) for slot in state.slots]
        return replace(state, tensors={**state.tensors, "squares": torch.stack(rows)})


def _ratios(state: State, records: Frame[Record]) -> Array:
    """Return ‖update‖/‖w‖ of each record; nan for gradients, and for weights that are all zero."""
    update, weight = state["squares"].unbind(-1)
    ratios = (update / weight).sqrt()
    known = torch.where(ratios.isfinite(), ratios, torch.nan).tolist()
    by_key = {slot.stream.key: ratio for slot, ratio in zip(state.slots, known, strict=True)}
    keys = zip(records["kind"], records["name"], strict=True)
    return np.array([by_key[key] for key in keys], dtype=np.float64)
