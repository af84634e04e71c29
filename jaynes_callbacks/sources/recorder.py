"""Recorder: weights and activations of a plain PyTorch model, no trainer needed."""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from jaynes_callbacks.record import Kind, Record, Records, Stream, Tally
from jaynes_callbacks.sources.activations import ActivationWatch
from jaynes_callbacks.sources.parameters import (
    WeightStream,
    find_weights,
    sample,
    tally_weights,
)
from jaynes_callbacks.sources.selection import Coverage, Selection, Skipped
from jaynes_callbacks.summary import PAPER_BINS, summarise

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
        self._root_handles: list[Any] = []

    # Attaching ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.attach()
        hooks = (
            self.model.register_forward_pre_hook(self._open_at_root, prepend=True),
            self.model.register_forward_hook(self._close_at_root, always_call=True),
        )
        self._root_handles += hooks
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def attach(self) -> None:
        """Find the streams and put the hooks on; activations count between `open` and `close`."""
        parameters = [name for name, _ in self.model.named_parameters(remove_duplicate=False)]
        self.selection.check(parameters, [name for name, _ in self.model.named_modules()])
        if "weight" in self.selection.kinds:
            self._weights, self._skipped = find_weights(self.model, self.selection)
            if not self._weights:
                self._refuse_nothing()
        if not self._first:
            self._first = {weight.stream.name: sample(weight) for weight in self._weights}
        if "iota" in self.selection.kinds:
            self._watch.attach()

    def detach(self) -> None:
        """Take every hook off."""
        self._watch.detach()
        for handle in self._root_handles:
            handle.remove()
        self._root_handles.clear()

    def open(self) -> None:
        """Count activations from here on."""
        if "iota" in self.selection.kinds:
            self._watch.open()

    def close(self) -> None:
        """Cease to count activations."""
        self._watch.close()

    # What is watched ------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams known so far; activations appear with their first forward."""
        return (*(weight.stream for weight in self._weights), *self._watch.streams)

    @property
    def coverage(self) -> Coverage:
        """What is watched and what is not, with the reasons."""
        return Coverage(self.streams, tuple(self._skipped))

    # Recording ------------------------------------------------------------------------------

    def hold_weights(self) -> None:
        """Count the weights now, for the next snapshot: a training step may change them first."""
        self._held = tally_weights(self._weights), self._moved()

    def snapshot(self, step: int = 0, epoch: int = 0) -> Records:
        """Records of the weights as they are and of the activations since the last snapshot.

        Streams that saw no forward since then are left out.  Under `torch.distributed` the counts
        of activations are summed over ranks, so every rank must call this.

        Args:
            step: optimizer step, as it shall stand in the records.
            epoch: epoch, likewise.
        """
        weights, moved = self._held or (tally_weights(self._weights), self._moved())
        self._held = None
        with self._watch.histogram.sync_context():
            iota = self._tally_activations(weights.counts.device)
        streams = [weight.stream for weight in self._weights]
        streams += [self._watch.streams[row] for row in self._watch.fresh]
        tally = Tally(*(torch.cat(parts) for parts in zip(weights, iota, strict=True)))
        moved = moved + [math.nan] * (len(streams) - len(moved))
        start = self.start.by_stream()
        records = summarise(
            streams, tally, run=self.run, step=step, epoch=epoch, moved=moved, start=start
        )
        self._watch.reset()
        self.start += Records(record for record in records if record.key not in start)
        return records

    def _tally_activations(self, device: torch.device) -> Tally:
        counts = self._watch.histogram.counts
        counts = counts[self._watch.fresh].to(device)
        unknown = torch.full((len(counts),), torch.nan, dtype=torch.float64, device=device)
        return Tally(counts, unknown, counts.new_zeros(len(counts), PAPER_BINS))

    def _moved(self) -> list[float]:
        """‖w − w₀‖/‖w₀‖ of every weight, one copy to the host for all."""
        if not self._weights:
            return []
        ratios = []
        for weight in self._weights:
            now = sample(weight)
            first = self._first[weight.stream.name].to(now.device)
            ratios.append((now - first).norm() / first.norm())
        return torch.stack([ratio.to(ratios[0].device) for ratio in ratios]).tolist()

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on: CPU tensors and builtins only."""
        return {
            "start": [_scalars(record) for record in self.start],
            "first": {name: values.cpu() for name, values in self._first.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.start = Records(Record(**row) for row in state["start"])
        self._first = dict(state["first"])

    def _open_at_root(self, module: nn.Module, args: Any) -> None:
        self.open()

    def _close_at_root(self, module: nn.Module, args: Any, output: Any) -> None:
        self.close()

    def _refuse_nothing(self) -> None:
        reasons = {skipped.reason for skipped in self._skipped}
        raise ValueError(
            f"no weight is left to watch: of {len(self._skipped)} parameters all are skipped "
            f"({'; '.join(sorted(reasons)) or 'the model has none'}); lower min_size, widen "
            'include, or watch kinds=["iota"] alone'
        )


def _scalars(record: Record) -> dict[str, Any]:
    """The record's fields but its arrays, for a file that may hold builtins only."""
    values = vars(record).items()
    return {name: value for name, value in values if not isinstance(value, np.ndarray)}
