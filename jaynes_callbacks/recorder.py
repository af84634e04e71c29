"""Recorder: weights and activations of a plain PyTorch model, no trainer needed."""

import math
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from jaynes_callbacks.instruments.counted import pack_counts, restore_counts
from jaynes_callbacks.instruments.record import Kind, Records, Stream
from jaynes_callbacks.instruments.state import pack, unpack
from jaynes_callbacks.instruments.summary import Moment, summarise
from jaynes_callbacks.instruments.tally import tally_of_groups
from jaynes_callbacks.watch.activations import ActivationWatch
from jaynes_callbacks.watch.parameters import weight_names
from jaynes_callbacks.watch.ranks import Counted, RankSum, is_alone
from jaynes_callbacks.watch.selection import MIN_SIZE, Coverage, Selection, shorten
from jaynes_callbacks.watch.weights import Weighed, WeightWatch

__all__ = ["IOTA_VALUES_PER_CALL", "MIN_SIZE", "Recorder"]

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
        iota_groups: groups of samples for the standard error of an iota's gap: what is counted
            between one `open` and the next goes into the next group, and each group is left out
            once (jackknife).  32 KiB per stream and group.  0: values count as independent.
        run: name of the run in the records.

    Raises:
        ValueError: for an unknown kind, a negative size or a single group; at `attach` for a
            pattern that can match nothing, or if no stream is left to watch.

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
        iota_groups: int = 0,
        run: str = "",
    ) -> None:
        if not isinstance(iota_values_per_call, int) or iota_values_per_call < 1:
            raise ValueError(
                f"iota_values_per_call must be a positive integer, got {iota_values_per_call!r}"
            )
        if not isinstance(iota_groups, int) or iota_groups < 0 or iota_groups == 1:
            raise ValueError(
                f"iota_groups must be 0 or an integer from 2 on, got {iota_groups!r}; 8 is usual"
            )
        self.model = model
        self.selection = Selection.of(kinds, include, exclude, min_size)
        self.run = run
        self.start = Records()
        groups = max(1, iota_groups)
        self._watch = ActivationWatch(model, self.selection.admits, iota_values_per_call, groups)
        self._ranks = RankSum(groups)
        self._weights = WeightWatch(model, self.selection)
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
        modules = [name for name, _ in self.model.named_modules()]
        self.selection.check(weight_names(self.model), modules)
        self._weights.find()
        if "weight" in self.selection.kinds and not self._weights.streams:
            self.selection.refuse_if_meant(self._weights.skipped)
        if "iota" in self.selection.kinds:
            self._watch.attach()

    def detach(self) -> None:
        """Take every hook off."""
        self._watch.detach()

    def open(self, *, one_forward: bool = False) -> None:
        """Count activations from here on, in the next group of samples if there are groups.

        Args:
            one_forward: take all until `close` as one forward, however many modules are called.
        """
        if "iota" in self.selection.kinds:
            if self._listened:
                self._watch.ledger.next_group()
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
        """The streams known so far, on any rank; activations appear with their first forward."""
        own = (*self._weights.streams, *self._watch.ledger.streams)
        known = {stream.key: stream for stream in (*own, *self._ranks.streams)}
        return tuple(sorted(known.values(), key=lambda stream: stream.kind, reverse=True))

    @property
    def coverage(self) -> Coverage:
        """What is watched and what is not, with the reasons."""
        skipped = (*self._weights.skipped, *self._watch.ledger.skipped)
        return Coverage(self.streams, skipped, self._note())

    def _note(self) -> str:
        seen = any(stream.kind == "iota" for stream in self.streams)
        if "iota" not in self.selection.kinds or seen:
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
        self._weights.begin()

    def snapshot(self, step: int = 0, epoch: int = 0) -> Records:
        """Records of the weights as they are and of the activations since the last snapshot.

        Streams that saw no forward since then are left out.  Under `torch.distributed` the counts
        of activations and of sharded weights are summed over ranks, so every rank must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.

        Raises:
            RuntimeError: if counting failed on another rank; none then has a record of this step.
        """
        return self.summarise([self.count(step, epoch)])[0]

    def count(self, step: int = 0, epoch: int = 0) -> Moment:
        """What a snapshot would be made of; `summarise` makes the records of many at once.

        Under `torch.distributed` the counts of activations and of sharded weights are summed over
        ranks, so every rank must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.

        Raises:
            RuntimeError: if counting failed on another rank; none then has a record of this step.
        """
        with self._watch.paused():
            weights, seen = self._collect()
        streams = [*weights.streams, *seen.streams]
        return Moment(
            streams,
            weights.tally.joined(tally_of_groups(seen.counts)),
            [weights.moved.get(stream.name, math.nan) for stream in streams],
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

    def _collect(self) -> tuple[Weighed, Counted]:
        """The weights, and what all ranks together have counted of shares and activations."""
        first, self._listened = self._listened and not self._collected, False
        self._collected |= first
        device = _device(self.model)
        try:
            activations = self._watch.ledger.take()
            weights = self._weights.weigh()
            own = weights.shares.joined(activations)
        except Exception:
            self._ranks.abstain(device)
            raise
        seen = self._ranks.sum(own, device)
        if first:
            self._say_unmatched()
        return weights, seen

    def _say_unmatched(self) -> None:
        """Only after a forward are all streams known; by then it is too late for an error."""
        names = [stream.name for stream in self.streams]
        if unmatched := self.selection.unmatched(names):
            warnings.warn(
                f"include patterns {unmatched} match no stream; there are {shorten(names)}",
                stacklevel=2,
            )

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins only."""
        return {
            "start": [pack(record) for record in self.start],
            "first": {name: values.cpu() for name, values in self._weights.first.items()},
            "counted": pack_counts(self._watch.ledger) if self._listened else [],
            "group": self._watch.ledger.group,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.start = Records(unpack(row) for row in state["start"])
        self._weights.resume(state["first"])
        # A checkpoint holds what the first rank had counted: several ranks begin to count anew.
        if (counted := state.get("counted")) and is_alone():
            self._listened = True
            restore_counts(self._watch.ledger, counted, state["group"])


def _device(model: nn.Module) -> torch.device:
    """Where counts are added up: with the model, which is on the same type of device everywhere."""
    devices = (parameter.device for parameter in model.parameters() if not parameter.is_meta)
    return next(devices, torch.device("cpu"))
