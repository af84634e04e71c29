"""Survey one checkpoint: choose the tensors to measure, count them, and fit them in groups."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import TensorCounts, reason_not_countable
from jaynes_callbacks.files.entry import Checkpoint, CheckpointError, Entry, Problem
from jaynes_callbacks.files.pages import prefetch, release
from jaynes_callbacks.files.reading import ReadAhead
from jaynes_callbacks.files.streaming import (
    RESIDENT,
    SliceCounter,
    UnjudgedCore,
    slice_counter,
)
from jaynes_callbacks.instruments.distribution import Tallied
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.scales import with_cores
from jaynes_callbacks.instruments.tally import PAPER_BINS, checked_bins, tally_of_counts
from jaynes_callbacks.probes.parameters import relative_distance, sample
from jaynes_callbacks.probes.selection import Selection, Skipped, shorten
from jaynes_callbacks.records.stream import WEIGHT, Stream
from jaynes_callbacks.statistics import Influence, influences, standard_errors_of

__all__ = ["Survey", "Trace"]

#: Tensors, and bytes of tensors, after which a group is fitted, whichever comes first.  Fitting one
#: tensor costs nearly as much as fitting a hundred; a fitted group survives an interrupt.
_GROUP, _GROUP_BYTES = 64, 1 << 31


class _Waiting(NamedTuple):
    """A counted tensor that waits until its group is fitted."""

    entry: Entry
    tensor: Tensor
    counted: TensorCounts
    core: UnjudgedCore | None
    sample: Tensor | None


class Trace(NamedTuple):
    """What is kept of a weight, few numbers, so that another state can be compared with it.

    Attributes:
        sample: at most 4096 of its values, for the distance.
        influence: what leaving out rows and columns does to its gap, for the error of the change;
            None where that is unknown.
    """

    sample: Tensor
    influence: Influence | None

    def distance_from(self, first: "Trace") -> float:
        """Return ‖w − w₀‖/‖w₀‖; nan where the shapes differ."""
        return float(relative_distance(self.sample, first.sample))

    def error_of_change(self, first: "Trace") -> float:
        """Return the standard error of the change between the gaps, in nats; nan if unknown."""
        if self.influence is None or first.influence is None:
            return math.nan
        change = self.influence.less(first.influence)
        return math.nan if change is None else float(change.standard_error)


class Survey:
    """One checkpoint and the tensors of it that are measured.

    As in a training run these are the weights of two or more dimensions.

    Attributes:
        checkpoint: the opened checkpoint.
        chosen: its tensors that are measured.
        skipped: its other tensors, each with the reason.
        problems: what could not be read: files of the checkpoint and, as `records` finds them,
            tensors.
        traces: of each tensor measured, by name; empty unless asked for.

    Args:
        checkpoint: the opened checkpoint.
        selection: name patterns and smallest size.
        paper_bins: number of equal bins of the paper's protocol.
        scales: whether the cores of the weights are counted too, which reads them twice more.

    Raises:
        ValueError: if a pattern to include matches no name, or for too few or too many bins.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        selection: Selection,
        paper_bins: int = PAPER_BINS,
        *,
        scales: bool = True,
    ) -> None:
        self.checkpoint = checkpoint
        self.traces: dict[str, Trace] = {}
        self._bins, self._scales = checked_bins(paper_bins), scales
        self._reading: ReadAhead | None = None
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
            reason = self._reason_to_skip(entry, selection)
            if reason is None:
                self.chosen.append(entry)
            else:
                self.skipped.append(Skipped(entry.name, reason))

    @property
    def nbytes(self) -> int:
        """Bytes that the chosen tensors take in the files."""
        return sum(entry.nbytes for entry in self.chosen)

    @property
    def is_remote(self) -> bool:
        """True if the tensors are fetched from a server one by one."""
        return any(entry.remote for entry in self.chosen)

    def remarks(self) -> list[str]:
        """Return one line for each reason for which tensors, or what else there is, are skipped."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.skipped:
            by_reason.setdefault(reason, []).append(name)
        lines = [
            f"not {len(names)}: {reason} ({shorten(names)})" for reason, names in by_reason.items()
        ]
        return [*lines, *self.checkpoint.notes]

    def reason_for_no_records(self) -> str:
        """Return the sentence to say when `records` has yielded nothing."""
        path = self.checkpoint.path
        if self.problems:
            return self.problems[0].reason
        if not self.skipped:
            notes = "; ".join(["", *self.checkpoint.notes])
            return f"{path} holds no tensors; expected a model's weights{notes}"
        reasons = "; ".join(sorted({each.reason for each in self.skipped}))
        return (
            f"{path} holds no weight to measure: all {len(self.skipped)} tensors are left out "
            f"({reasons})"
        )

    def start_reading(self) -> None:
        """Begin to load tensors, before `records` is called, as many as may wait in memory."""
        if self._reading is None:
            self._reading = ReadAhead(self.chosen, _load, RESIDENT)
            self._reading.start()

    def close(self) -> None:
        """Give up what is being loaded, and what was downloaded for the checkpoint."""
        if self._reading is not None:
            self._reading.close()
        self.checkpoint.close()

    def records(
        self,
        *,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        progress: Callable[[float], None] | None = None,
        keep_traces: bool = False,
    ) -> Iterator[Records]:
        """Measure the chosen tensors.

        Memory does not grow with the file where its format can be mapped.

        Args:
            device: where values are counted.
            threads: number of threads that count; by default as many as torch uses.
            progress: called repeatedly with the number of bytes counted since its last call.
            keep_traces: whether to keep `traces`, at most 9216 numbers a tensor.

        Yields:
            Records in the file's order, in groups, each as soon as it is fitted.  Their `run` is
            the checkpoint's path.
        """
        group: list[_Waiting] = []
        fitted: Future[Records] | None = None
        with (
            slice_counter(device, threads, progress) as counter,
            ThreadPoolExecutor(1, "jaynes-fit") as fitting,
        ):
            for entry, tensor in self._loaded():
                waiting = self._counted(entry, tensor, counter, keep_traces)
                if waiting is not None:
                    group.append(waiting)
                if entry.mapped:
                    release(tensor)
                # A group is fitted while the next one is counted.
                if fitted is not None and (fitted.done() or _is_full(group)):
                    yield fitted.result()
                    fitted = None
                if _is_full(group):
                    fitted = fitting.submit(self._fit, group, counter)
                    group = []
            if fitted is not None:
                yield fitted.result()
            if group:
                yield self._fit(group, counter)

    def _reason_to_skip(self, entry: Entry, selection: Selection) -> str | None:
        if len(entry.shape) < 2:
            return "fewer than 2 dimensions"
        if not any(selection.admits(name) for name in (entry.name, *entry.aliases)):
            return "excluded by pattern"
        if (reason := selection.too_small(entry.size)) is not None:
            return reason
        if entry.reason is not None:
            return entry.reason
        # Loading a mapped entry reads none of its values yet.
        return self._reason_not_countable(entry) if entry.mapped else None

    def _reason_not_countable(self, entry: Entry) -> str | None:
        try:
            return reason_not_countable(entry.load()) or None
        except CheckpointError as error:
            self._add_problem(error)
            return "cannot be read"

    def _add_problem(self, error: CheckpointError) -> None:
        """Keep one problem for all tensors that fail for the same reason."""
        problem = Problem(self.checkpoint.path, str(error))
        if problem not in self.problems:
            self.problems.append(problem)

    def _loaded(self) -> Iterator[tuple[Entry, Tensor]]:
        """Load every chosen tensor, the next ones ahead; keep a problem of those that fail."""
        reading, self._reading = self._reading or ReadAhead(self.chosen, _load, RESIDENT), None
        for entry, tensor, error in reading:
            if error is not None:
                self._add_problem(error)
            if tensor is not None:
                yield entry, tensor

    def _counted(
        self, entry: Entry, tensor: Tensor, counter: SliceCounter, keep_traces: bool
    ) -> _Waiting | None:
        """Count a tensor; None, after a problem is kept, where torch has no way to."""
        try:
            core = None
            if self._scales:
                counted, core = counter.count_with_core(
                    tensor, mapped=entry.mapped, bins=self._bins
                )
            else:
                counted = counter.count(tensor, mapped=entry.mapped, bins=self._bins)
            kept = sample(tensor).cpu() if keep_traces else None
            return _Waiting(entry, tensor, counted, core, kept)
        except (TypeError, RuntimeError, MemoryError) as error:
            said = " ".join(str(error).split())
            name = f"{self.checkpoint.path}: tensor {entry.name}"
            self._add_problem(CheckpointError(f"{name} cannot be counted ({said})"))
            return None

    def _fit(self, group: list[_Waiting], counter: SliceCounter) -> Records:
        """Fit a group of counted tensors in one batch."""
        counts = torch.stack([each.counted.counts for each in group])
        release = _release_of_mapped(group)
        tensors = [each.tensor for each in group]
        found = influences(tensors, counts, counter.pool.map, release)
        for each, influence in zip(group, found, strict=True):
            if each.sample is not None:
                self.traces[each.entry.name] = Trace(each.sample, influence)
        tally = tally_of_counts(counts, self._bins)._replace(
            maximum=torch.stack([each.counted.maximum for each in group]).to(torch.float64),
            linear=torch.stack([each.counted.linear for each in group]),
            errors=standard_errors_of(found, counts.device),
            exact=torch.ones(len(group), dtype=torch.bool),
        )
        streams = [
            Stream(WEIGHT, each.entry.name, each.entry.shape, each.entry.aliases) for each in group
        ]
        run, at = str(self.checkpoint.path), self.checkpoint
        # No verdict: it compares two moments of a run; a checkpoint is one moment.
        return with_cores(
            Tallied(streams, tally, (), run, at.step, at.epoch),
            counter.judged(tensors, [each.core for each in group if each.core], release)
            if self._scales
            else [],
        )


def _release_of_mapped(group: list[_Waiting]) -> Callable[[Tensor], None]:
    """Return what gives back the pages of parts of the tensors that are mapped."""
    mapped = {_storage(each.tensor) for each in group if each.entry.mapped}

    def release_if_mapped(part: Tensor) -> None:
        if _storage(part) in mapped:
            release(part)

    return release_if_mapped


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _load(entry: Entry) -> Tensor:
    tensor = entry.load()
    if entry.mapped and tensor.nbytes <= RESIDENT:
        prefetch(tensor)
    return tensor


def _is_full(group: list[_Waiting]) -> bool:
    in_memory = sum(each.tensor.nbytes for each in group if not each.entry.mapped)
    read = sum(each.tensor.nbytes for each in group)
    return len(group) >= _GROUP or read >= _GROUP_BYTES or in_memory >= RESIDENT
