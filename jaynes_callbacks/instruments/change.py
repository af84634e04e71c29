"""The standard error of a gap's change: start and end are the same weights, and err together.

What leaving out rows, columns and single values does to the gap at a stream's first record is kept,
at most 5120 numbers a weight, and subtracted from the same of each later record.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.statistics import Influence, standard_errors_of

__all__ = ["GapChanges"]


class GapChanges:
    """Keeps the influences of each stream's first record, and compares later ones with them."""

    def __init__(self) -> None:
        self._first: dict[str, Influence] = {}
        self._resumed = False

    def begin(self) -> None:
        """Take the next record for the first of every stream."""
        self._first = {}

    def errors(
        self, streams: Sequence[Stream], now: Sequence[Influence | None], device: torch.device
    ) -> Float64[Tensor, " streams"]:
        """Return the standard error of each gap's change since the stream's first record, in nats.

        Streams that are new begin here.

        Args:
            streams: weights that this rank has whole.
            now: their influences.
            device: of the result.

        Returns:
            nan at a first record, and where an influence is unknown.
        """
        changes: list[Influence | None] = []
        for stream, here in zip(streams, now, strict=True):
            first = self._first.get(stream.name)
            changes.append(here.less(first) if here is not None and first is not None else None)
            # A resumed run has not seen the start of a stream that its checkpoint does not have.
            if here is not None and first is None and not self._resumed:
                self._first[stream.name] = here
        return standard_errors_of(changes, device)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return what is kept of each stream: CPU tensors and numbers."""
        return {
            name: {
                part: value.cpu() if isinstance(value, Tensor) else value
                for part, value in each._asdict().items()
            }
            for name, each in self._first.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from `state_dict`; of streams that it lacks no error of the change is known."""
        self._first = {name: Influence(**each) for name, each in state.items()}
        self._resumed = True
