"""The survey of one checkpoint: which of its tensors are measured, and their records."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.pages import expect, forget
from jaynes_callbacks.files.streaming import RESIDENT, Counted, SliceCounter, slice_counter
from jaynes_callbacks.instruments.record import Records, Stream
from jaynes_callbacks.instruments.summary import Moment, summarise
from jaynes_callbacks.instruments.tally import Tally, reason_not_to_count
from jaynes_callbacks.statistics import clustered_standard_errors
from jaynes_callbacks.watch.selection import Selection, Skipped, shorten

__all__ = ["Survey"]

#: What is fitted together: so many tensors or so many bytes, whichever comes first.  A fit of one
#: costs nearly what that of a hundred does, and what is fitted is not lost any more.
_GROUP, _GROUP_BYTES = 64, 1 << 31


class _Held(NamedTuple):
    """A tensor that is counted and waits for the others of its group."""

    entry: Entry
    tensor: Tensor
    counted: Counted


class Survey:
    """One checkpoint under measurement.

    Attributes:
        checkpoint: what is measured.
        chosen: its tensors that are; as in a training run, weights of two or more dimensions.
        skipped: the others, each with the reason.
        problems: what could not be read, of the checkpoint's files and, as they come, its tensors.

    Args:
        checkpoint: the opened one.
        selection: name patterns and smallest size.

    Raises:
        ValueError: if a pattern to include matches no name.
    """

    def __init__(self, checkpoint: Checkpoint, selection: Selection) -> None:
        self.checkpoint = checkpoint
        self.problems: list[Problem] = list(checkpoint.problems)
        self.chosen: list[Entry] = []
        self.skipped: list[Skipped] = []
        names = [name for entry in checkpoint.entries for name in (entry.name, *entry.aliases)]
        if unmatched := selection.unmatched(names) if names else []:
            raise ValueError(
                f"include pattern {unmatched[0]!r} matches no tensor of {checkpoint.path}; names "
                f"look like {shorten(names)}"
            )
        for entry in checkpoint.entries:
            if reason := self._reason_to_skip(entry, selection):
                self.skipped.append(Skipped(entry.name, reason))
            else:
                self.chosen.append(entry)

    @property
    def nbytes(self) -> int:
        """What the chosen tensors take in the files."""
        return sum(entry.nbytes for entry in self.chosen)

    def remarks(self) -> list[str]:
        """One line for each reason for which tensors are skipped."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.skipped:
            by_reason.setdefault(reason, []).append(name)
        return [
            f"not {len(names)}: {reason} ({shorten(names)})" for reason, names in by_reason.items()
        ]

    def records(
        self,
        *,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Records]:
        """Measure; the records come in groups, as they are finished, in the file's order.

        Args:
            device: where values are counted.
            threads: that count; by default as many as torch works with.
            progress: told how many bytes were counted, again and again.
        """
        group: list[_Held] = []
        with slice_counter(device, threads, progress) as counter:
            for entry, tensor in self._loaded():
                counted = counter.count(tensor, mapped=entry.mapped)
                group.append(_Held(entry, tensor, counted))
                _let_go(entry, tensor)
                if _is_full(group):
                    yield self._finished(group, counter)
                    group = []
            if group:
                yield self._finished(group, counter)

    def _reason_to_skip(self, entry: Entry, selection: Selection) -> str:
        if len(entry.shape) < 2:
            return "fewer than 2 dimensions"
        if not any(selection.admits(name) for name in (entry.name, *entry.aliases)):
            return "excluded by pattern"
        smallest = max(1, selection.min_size)
        if entry.size < smallest:
            return f"fewer than min_size={smallest} elements"
        # Mapped, nothing is read yet.
        return entry.reason or (self._reason_not_to_count(entry) if entry.mapped else "")

    def _reason_not_to_count(self, entry: Entry) -> str:
        try:
            return reason_not_to_count(entry.load())
        except CheckpointError as error:
            self._note(error)
            return "cannot be read"

    def _note(self, error: CheckpointError) -> None:
        """Keep what could not be read: once, however many tensors it concerns."""
        problem = Problem(self.checkpoint.path, str(error))
        if problem not in self.problems:
            self.problems.append(problem)

    def _loaded(self) -> Iterator[tuple[Entry, Tensor]]:
        """Every chosen tensor; the next one is read meanwhile, but not two large ones at once."""
        with ThreadPoolExecutor(1, "jaynes-read") as reader:
            early: Future[Tensor] | None = None
            for entry, following in zip_longest(self.chosen, self.chosen[1:]):
                future = early or reader.submit(_load, entry)
                both_fit = following is not None and _is_light(entry) and _is_light(following)
                early = reader.submit(_load, following) if both_fit else None
                try:
                    yield entry, future.result()
                except CheckpointError as error:
                    self._note(error)

    def _finished(self, group: list[_Held], counter: SliceCounter) -> Records:
        """Fit a group, and give its memory back."""
        counts = torch.stack([held.counted.counts for held in group])
        tally = Tally(
            counts,
            torch.stack([held.counted.maximum for held in group]).to(torch.float64),
            torch.stack([held.counted.linear for held in group]),
            _errors(group, counts, counter),
        )
        streams = [
            Stream("weight", entry.name, entry.shape, entry.aliases) for entry, _, _ in group
        ]
        run, at = str(self.checkpoint.path), self.checkpoint
        (rows,) = summarise([Moment(streams, tally, (), run, at.step, at.epoch)])
        # A verdict compares two moments of a run; here is but one.
        return Records(row.replace(verdict="") for row in rows)


def _errors(group: list[_Held], counts: Tensor, counter: SliceCounter) -> Tensor:
    """Standard errors of a group, several tensors at once; what is mapped is given back."""
    tensors = [held.tensor for held in group]
    mapped = {_storage(held.tensor) for held in group if held.entry.mapped}

    def let_go(part: Tensor) -> None:
        if _storage(part) in mapped:
            forget(part)

    return clustered_standard_errors(tensors, counts, counter.pool.map, let_go)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _let_go(entry: Entry, tensor: Tensor) -> None:
    if entry.mapped:
        forget(tensor)


def _load(entry: Entry) -> Tensor:
    tensor = entry.load()
    if entry.mapped and tensor.nbytes <= RESIDENT:
        expect(tensor)
    return tensor


def _is_light(entry: Entry) -> bool:
    return entry.mapped or entry.nbytes <= RESIDENT


def _is_full(group: list[_Held]) -> bool:
    in_memory = sum(held.tensor.nbytes for held in group if not held.entry.mapped)
    read = sum(held.tensor.nbytes for held in group)
    return len(group) >= _GROUP or read >= _GROUP_BYTES or in_memory >= RESIDENT
