"""The magnitudes of weights and activations: are they distributed as the theory says?

Weights are counted whole at every record, activations while forwards are listened to, both on the
universal grid.  What is computed from the counts is in `instruments.distribution`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import nn

from jaynes_callbacks.instruments.base import FittingInstrument, Moment, State
from jaynes_callbacks.instruments.change import GapChanges
from jaynes_callbacks.instruments.distribution import Batch, summarise_batch, tallied
from jaynes_callbacks.instruments.judge import Judge
from jaynes_callbacks.instruments.laws import Laws
from jaynes_callbacks.instruments.ranks import is_alone
from jaynes_callbacks.instruments.record import SCHEMA, Record
from jaynes_callbacks.instruments.tally import (
    PAPER_BINS,
    QUANTITIES,
    checked_bins,
    counts_state,
    quantities,
    weights_state,
)
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.ledger import pack_counts, restore_counts
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.probes.weights import WeightWatch
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import IOTA, WEIGHT
from jaynes_callbacks.schedule import Cadence

__all__ = ["IOTA_GROUPS", "IOTA_VALUES_PER_CALL", "Magnitudes"]

#: Most values counted of one activation call.
IOTA_VALUES_PER_CALL = 1 << 18
#: Groups of samples where values of one sample depend on each other.
IOTA_GROUPS = 8


class Magnitudes(FittingInstrument[Record, Batch]):
    """Records how the magnitudes of weights and activations are distributed.

    Args:
        iota_values_per_call: most values counted of one activation call.
        iota_groups: groups of samples for the standard error of an iota's gap: what is counted
            between one `open` and the next goes into the next group, and each group is left out
            once (jackknife).  32 KiB per stream and group.  0: values count as independent.  None:
            eight groups for streams of which one sample gives several values of a neuron
            (convolutions, sequences), 0 for all others.
        paper_bins: number of equal bins of the paper's protocol for weights.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for a size that is not positive, or a single group.
    """

    name = "magnitudes"
    schema = SCHEMA
    quantities: ClassVar = QUANTITIES

    def __init__(
        self,
        *,
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        iota_groups: int | None = None,
        paper_bins: int = PAPER_BINS,
        cadence: Cadence | None = None,
    ) -> None:
        if not isinstance(iota_values_per_call, int) or iota_values_per_call < 1:
            raise ValueError(
                f"iota_values_per_call must be a positive integer, got {iota_values_per_call!r}"
            )
        if iota_groups is not None and (
            not isinstance(iota_groups, int) or iota_groups < 0 or iota_groups == 1
        ):
            raise ValueError(
                f"iota_groups must be 0 or an integer from 2 on, got {iota_groups!r}; 8 is usual"
            )
        super().__init__(cadence)
        self._limit, self._groups = iota_values_per_call, iota_groups
        self._bins = checked_bins(paper_bins)
        self.quantities = quantities(self._bins)  # type: ignore[misc]
        self._changes = GapChanges()
        self._listened = self._collected = False
        self._recent: dict[tuple[str, str], list[float]] = {}

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Find the weights, and the modules in whose forward an activation may be applied.

        Raises:
            ValueError: if no weight is left to watch although the arguments mean some.
        """
        super().attach(model, selection)
        self.kinds = selection.kinds
        groups = IOTA_GROUPS if self._groups is None else max(1, self._groups)
        self._activations = ActivationWatch(
            model, selection.admits, self._limit, groups, deals_all=self._groups is not None
        )
        self._ledger = self._activations.ledger
        self._weights = WeightWatch(model, selection)
        if WEIGHT in self.kinds:
            self._weights.find()
            if not self._weights.streams:
                selection.refuse_if_meant(self._weights.skipped)
        if IOTA in self.kinds:
            self._activations.attach()

    def detach(self) -> None:
        """Take every hook off."""
        self._activations.detach()

    def open(self, *, one_forward: bool = False) -> None:
        """Count activations from here on, in the next group of samples if there are groups."""
        if IOTA in self.kinds:
            if self._listened:
                self._ledger.next_group()
            self._activations.open(one_forward=one_forward)
            self._listened = True

    def close(self) -> None:
        """Cease to count activations, until the next `open`."""
        self._activations.close()

    @property
    def wants_forward(self) -> bool:
        """True if no activations have been watched since the last record."""
        return IOTA in self.kinds and not self._listened

    @property
    def coverage(self) -> Coverage:
        """The streams that are watched; activations appear with their first forward."""
        streams = (*self._weights.streams, *self._ledger.streams)
        skipped = (*self._weights.skipped, *self._ledger.skipped)
        return Coverage(streams, skipped, self._note())

    def _note(self) -> str:
        if IOTA not in self.kinds or self._ledger.streams:
            return ""
        if not self._collected:
            return "activations appear with the first forward that is counted"
        return "no activation function was applied in a counted forward: weights only"

    # Recording ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the weights as they are now for the start, and for the next record.

        The activations of that record are those of the first forward.
        """
        if WEIGHT in self.kinds:
            self._weights.begin()
            self._changes.begin()
            self._untouched = self._of_weights()

    def collect_once(self) -> State:
        """Join the untouched weights with the activations of the forwards since."""
        return self._joined(self.take_untouched())

    def collect(self) -> State:
        """Count the weights as they are, and take what was counted of activations."""
        return self._joined(None)

    def counted(self, moments: Sequence[Moment]) -> Batch:
        """Return the tallies of some moments."""
        return Batch.of([tallied(moment) for moment in moments])

    def fitted(self, moments: Sequence[Moment], counted: Batch, laws: Laws) -> list[Frame[Record]]:
        """Measure and judge: the first record of a stream is its start."""
        judge = Judge(self.start, self._recent)
        judged = judge.judged(summarise_batch(counted, laws))
        self._recent = judge.recent
        return list(judged)

    def paused(self) -> AbstractContextManager[None]:
        """Let go of the function mode that a watch is, under which every operation is slower."""
        return self._activations.paused()

    def _joined(self, weights: State | None) -> State:
        listened, self._listened = self._listened, False
        self._collected |= listened
        with self._activations.paused():
            if weights is None and WEIGHT in self.kinds:
                weights = self._of_weights()
            counted = self._ledger.take()
        activations = counts_state(counted.streams, counted.counts, counted.groups, self._bins)
        return activations if weights is None else weights.joined(activations)

    def _of_weights(self) -> State:
        with self._activations.paused():
            return weights_state(
                self._weights.read(), _device(self.model), self._changes, self._bins
            )

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept of the first weights, and what was counted since the last record."""
        return {
            "changes": self._changes.state_dict(),
            "first": {name: values.cpu() for name, values in self._weights.first.items()},
            "counted": pack_counts(self._ledger) if self._listened else None,
            "group": self._ledger.group,
            "recent": [[*key, gaps] for key, gaps in self._recent.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._weights.resume(state["first"])
        # Version 0.1 kept neither.
        self._recent = {(kind, name): gaps for kind, name, gaps in state.get("recent", ())}
        self._changes.load_state_dict(state.get("changes", {}))
        # A checkpoint holds what the first rank had counted: several ranks begin to count anew.
        if state.get("counted") is not None and is_alone():
            self._listened = True
            restore_counts(self._ledger, state["counted"], state["group"])


def _device(model: nn.Module) -> torch.device:
    """Return where counts are added up: with the model."""
    devices = (parameter.device for parameter in model.parameters() if not parameter.is_meta)
    return next(devices, torch.device("cpu"))
