"""Recorder: weights and activations of a plain PyTorch model, no trainer needed."""

import math
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from jaynes_callbacks.record import Kind, Records, Stream
from jaynes_callbacks.sources.activations import ActivationWatch
from jaynes_callbacks.sources.counted import pack_counts, restore_counts
from jaynes_callbacks.sources.parameters import (
    WeightStream,
    find_weights,
    relative_distance,
    sample,
)
from jaynes_callbacks.sources.selection import Coverage, Selection, Skipped, shorten
from jaynes_callbacks.sources.state import pack, unpack
from jaynes_callbacks.summary import summarise
from jaynes_callbacks.tally import Tally, tally_of_counts, tally_of_tensors

__all__ = ["IOTA_VALUES_PER_CALL", "MIN_SIZE", "Recorder"]

#: Weights with fewer elements say nothing about a distribution.
MIN_SIZE = 64
#: Most values counted of one activation call.
IOTA_VALUES_PER_CALL = 1 << 18


class Recorder:
    """Records how a model's weights and activations are distributed.

    As a context manager it watches every forward of the model; `snapshot` then returns one record
    per stream: the weights as they are, and the activations counted since the last snapshot.

    Args:
        model: any module.
        kinds: ``weight``, ``iota`` or both.
        include: glob patterns on stream names; only matching streams are watched.
        exclude: glob patterns on stream names that are not watched.
        min_size: weights with fewer elements are skipped.
        iota_values_per_call: most values counted of one activation call.
        run: name of the run in the records.

    Raises:
        ValueError: for an unknown kind or a negative size; at `attach` for a pattern that can
            match nothing, or if no stream is left to watch.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU())
        >>> with Recorder(model) as recorder:
        ...     _ = model(torch.randn(64, 8))
        ...     records = recorder.snapshot(step=0)
        >>> [(record.kind, record.name) for record in records]
        [('weight', '0.weight'), ('iota', '1')]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        kinds: Sequence[Kind] | Kind = ("weight", "iota"),
        include: Sequence[str] | str = "*",
        exclude: Sequence[str] | str = (),
        min_size: int = MIN_SIZE,
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        run: str = "",
    ) -> None:
        if not isinstance(iota_values_per_call, int) or iota_values_per_call < 1:
            raise ValueError(
                f"iota_values_per_call must be a positive integer, got {iota_values_per_call!r}"
            )
        self.model = model
        self.selection = Selection.of(kinds, include, exclude, min_size)
        self.run = run
        self.start = Records()
        self._watch = ActivationWatch(model, self.selection.admits, iota_values_per_call)
        self._weights: list[WeightStream] = []
        self._skipped: list[Skipped] = []
        self._first: dict[str, Tensor] = {}
        self._held: tuple[Tally, list[float]] | None = None
        self._listened = False
        self._collected = False

    # Attaching ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.attach()
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def attach(self) -> None:
        """Find the streams; activations are counted between `open` and `close`."""
        parameters = [name for name, _ in self.model.named_parameters(remove_duplicate=False)]
        self.selection.check(parameters, [name for name, _ in self.model.named_modules()])
        if "weight" in self.selection.kinds:
            self._weights, self._skipped = find_weights(self.model, self.selection)
            if not self._weights:
                self._refuse_if_meant()
        if "iota" in self.selection.kinds:
            self._watch.attach()
        if not self._first:
            self._first = {weight.stream.name: sample(weight) for weight in self._weights}

    def detach(self) -> None:
        """Take every hook off."""
        self._watch.detach()

    def open(self, *, one_forward: bool = False) -> None:
        """Count activations from here on.

        Args:
            one_forward: take all until `close` as one forward, however many modules are called.
        """
        if "iota" in self.selection.kinds:
            self._watch.open(one_forward=one_forward)
            self._listened = True

    def close(self) -> None:
        """Cease to count activations, until the next `open`; the model is free of hooks."""
        self._watch.close()

    @property
    def has_listened(self) -> bool:
        """Whether activations have been watched since the last snapshot."""
        return self._listened

    # What is watched ------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams known so far; activations appear with their first forward."""
        return (*(weight.stream for weight in self._weights), *self._watch.ledger.streams)

    @property
    def coverage(self) -> Coverage:
        """What is watched and what is not, with the reasons."""
        skipped = (*self._skipped, *self._watch.ledger.skipped)
        return Coverage(self.streams, skipped, self._note())

    def _note(self) -> str:
        if "iota" not in self.selection.kinds or self._watch.ledger.streams:
            return ""
        if not self._collected:
            return "activations appear with the first forward that is counted"
        return "no ReLU was applied in a counted forward: weights only"

    # Recording ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the weights as they are now for the start, and for the next snapshot.

        For a training loop whose first forward, and so the first snapshot, cannot be told from its
        first update.
        """
        self._first = {weight.stream.name: sample(weight) for weight in self._weights}
        self._held = self._tally(), self._moved()

    def snapshot(self, step: int = 0, epoch: int = 0) -> Records:
        """Records of the weights as they are and of the activations since the last snapshot.

        Streams that saw no forward since then are left out.  Under `torch.distributed` the counts
        of activations are summed over ranks, so every rank must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.
        """
        with self._watch.paused():
            return self._snapshot(step, epoch)

    def _snapshot(self, step: int, epoch: int) -> Records:
        weights, moved = self._held or (self._tally(), self._moved())
        self._held = None
        seen, counts = self._collect()
        streams = [*(weight.stream for weight in self._weights), *seen]
        tally = weights.joined(tally_of_counts(counts))
        moved = moved + [math.nan] * (len(streams) - len(moved))
        start = self.start.by_stream()
        records = summarise(
            streams, tally, run=self.run, step=step, epoch=epoch, moved=moved, start=start
        )
        self.start += Records(record for record in records if record.key not in start)
        return records

    def _collect(self) -> tuple[list[Stream], Tensor]:
        if self._listened and not self._collected:
            self._collected = True
            self._say_unmatched()
        self._listened = False
        return self._watch.ledger.collect()

    def _say_unmatched(self) -> None:
        """Only after a forward are all streams known; by then it is too late for an error."""
        names = [stream.name for stream in self.streams]
        if unmatched := self.selection.unmatched(names):
            warnings.warn(
                f"include patterns {unmatched} match no stream; there are {shorten(names)}",
                stacklevel=2,
            )

    def _tally(self) -> Tally:
        return tally_of_tensors([weight.parameter for weight in self._weights])

    def _moved(self) -> list[float]:
        """‖w − w₀‖/‖w₀‖ of every weight, one copy to the host for all; nan where w₀ is unknown."""
        if not self._weights:
            return []
        ratios = [
            relative_distance(sample(weight), self._first.get(weight.stream.name))
            for weight in self._weights
        ]
        return torch.stack([ratio.to(ratios[0].device) for ratio in ratios]).tolist()

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins only."""
        return {
            "start": [pack(record) for record in self.start],
            "first": {name: values.cpu() for name, values in self._first.items()},
            "counted": pack_counts(self._watch.ledger) if self._listened else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.start = Records(unpack(row) for row in state["start"])
        self._first = dict(state["first"])
        if counted := state.get("counted"):
            self._listened = True
            restore_counts(self._watch.ledger, counted)

    def _refuse_if_meant(self) -> None:
        """No weight is left: an error where arguments did it, not where the model is just small."""
        selection = self.selection
        too_small = selection.min_size > MIN_SIZE and any(
            skipped.reason.startswith("fewer than min_size") for skipped in self._skipped
        )
        if too_small or (selection.kinds == ("weight",) and selection.is_narrowed):
            reasons = sorted({skipped.reason for skipped in self._skipped})
            raise ValueError(
                f"no weight is left to watch: all {len(self._skipped)} parameters are skipped "
                f"({'; '.join(reasons)}); lower min_size={selection.min_size}, widen "
                f"include={list(selection.include)}, or watch kinds=['iota'] alone"
            )
