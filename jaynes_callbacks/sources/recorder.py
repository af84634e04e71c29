"""Recorder: weights and activations of a plain PyTorch model, no trainer needed."""

import math
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from jaynes_callbacks.record import Kind, Records, Stream
from jaynes_callbacks.sources.activations import ActivationWatch
from jaynes_callbacks.sources.parameters import (
    Values,
    WeightStream,
    find_weights,
    relative_distance,
    sample,
)
from jaynes_callbacks.sources.selection import Coverage, Selection, Skipped, shorten
from jaynes_callbacks.sources.state import pack, unpack
from jaynes_callbacks.summary import Moment, summarise
from jaynes_callbacks.tally import Tally, tally_of_counts, tally_of_tensors

__all__ = ["IOTA_VALUES_PER_CALL", "MIN_SIZE", "Recorder"]

#: Weights with fewer elements say nothing about a distribution.
MIN_SIZE = 64
#: Most values counted of one activation call.
IOTA_VALUES_PER_CALL = 1 << 18


class _Weights(NamedTuple):
    """The weights at one moment: what was counted of each, and how far it has moved."""

    streams: list[Stream]
    tally: Tally
    moved: list[float]


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
        self._held: _Weights | None = None
        self._listened = False
        self._collected = False
        self._resumed = False

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
        self._find_weights()
        if "weight" in self.selection.kinds and not self._weights:
            self._refuse_if_meant()
        if "iota" in self.selection.kinds:
            self._watch.attach()

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
        return "no activation function was applied in a counted forward: weights only"

    # Recording ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the weights as they are now for the start, and for the next snapshot.

        For a training loop whose first forward, and so the first snapshot, cannot be told from its
        first update.
        """
        self._first = {}
        self._held = self._weigh()

    def snapshot(self, step: int = 0, epoch: int = 0) -> Records:
        """Records of the weights as they are and of the activations since the last snapshot.

        Streams that saw no forward since then are left out.  Under `torch.distributed` the counts
        of activations are summed over ranks, so every rank must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.
        """
        return self.summarise([self.count(step, epoch)])[0]

    def count(self, step: int = 0, epoch: int = 0) -> Moment:
        """What a snapshot would be made of; `summarise` makes the records of many at once.

        Under `torch.distributed` the counts of activations are summed over ranks, so every rank
        must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.
        """
        with self._watch.paused():
            weights, self._held = self._held or self._weigh(), None
            seen, counts = self._collect()
        return Moment(
            [*weights.streams, *seen],
            weights.tally.joined(tally_of_counts(counts)),
            weights.moved + [math.nan] * len(seen),
            self.run,
            step,
            epoch,
        )

    def summarise(self, moments: Sequence[Moment]) -> list[Records]:
        """The records of some moments, in their order; the first of a stream is its start.

        Args:
            moments: from `count`, in the order in which they were counted.
        """
        with self._watch.paused():
            finished = summarise(moments, self.start.by_stream())
        for records in finished:
            known = self.start.by_stream()
            self.start += Records(record for record in records if record.key not in known)
        return finished

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

    def _find_weights(self) -> None:
        """Anew for every record: weights may be made late (lazy), or be exchanged."""
        if "weight" not in self.selection.kinds:
            return
        self._weights, self._skipped = find_weights(self.model, self.selection)
        if not self._resumed:
            new = [weight for weight in self._weights if weight.stream.name not in self._first]
            self._first |= {weight.stream.name: sample(weight) for weight in new}

    def _weigh(self) -> _Weights:
        self._find_weights()
        streams = [weight.stream for weight in self._weights]
        return _Weights(streams, tally_of_tensors(Values(self._weights)), self._moved())

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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.start = Records(unpack(row) for row in state["start"])
        self._first, self._resumed = dict(state["first"]), True

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
