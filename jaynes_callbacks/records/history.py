"""All rows of a run so far, in bounded memory: what is old lies in temporary files."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple, overload
from weakref import finalize

import numpy as np

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import read_frame, read_frames, write_frame
from jaynes_callbacks.records.schema import R, Schema

__all__ = ["History"]

#: Values (rows times columns) that are kept in memory: some 4 MiB.
_IN_MEMORY = 1 << 19
#: Frames that are kept apart: columns of few rows take more memory than their values.
_APART = 64


class _Moved(NamedTuple):
    """Rows that lie in a file."""

    path: Path
    rows: int
    last_step: int


class History(Sequence[R]):
    """The rows of every record of one instrument, without their counts.

    To append a record costs the same at any length, and memory does not grow: rows beyond a few
    MiB are moved to a temporary Parquet file, which vanishes with the history.  They are read back
    when rows are asked for.

    Args:
        schema: of the rows.
    """

    def __init__(self, schema: Schema[R]) -> None:
        self.schema = schema
        self._joined: list[Frame[R]] = []
        self._newest: list[Frame[R]] = []
        self._values = 0
        self._length = 0
        self._folder: Path | None = None
        self._remove: Callable[[], object] | None = None
        self._moved: list[_Moved] = []
        self._can_move = True

    def append(self, frame: Frame[R]) -> None:
        """Add the rows of one record."""
        if not len(frame):
            return
        self._newest.append(frame.without_counts())
        self._length += len(frame)
        self._values += len(frame) * len(frame.schema.columns)
        if self._can_move and self._values > _IN_MEMORY:
            self._move_out()
        elif len(self._newest) >= _APART:
            self._joined.append(Frame.concatenated(self._newest))
            self._newest = []

    def frame(self) -> Frame[R]:
        """Return all rows as one frame."""
        moved = [each.path for each in self._moved]
        frames = [read_frames(moved, self.schema, counts=False)] if moved else []
        return Frame.concatenated([*frames, *self._in_memory] or [Frame(self.schema, {})])

    def truncate(self, step: int) -> None:
        """Forget the rows beyond a step."""
        if self.last_step <= step:
            return
        kept = self.frame()
        self.clear()
        self.append(kept.take(kept["step"] <= step))

    def clear(self) -> None:
        """Forget all rows."""
        self._joined, self._newest, self._moved = [], [], []
        self._values, self._length = 0, 0
        if self._remove is not None:
            self._remove()
        self._folder = self._remove = None

    @property
    def last_step(self) -> int:
        """Step of the last row; -1 if there is none."""
        if self._in_memory:
            return int(self._in_memory[-1]["step"][-1])
        return self._moved[-1].last_step if self._moved else -1

    @property
    def _in_memory(self) -> list[Frame[R]]:
        return [*self._joined, *self._newest]

    def _move_out(self) -> None:
        """Move what is in memory to a file; where none can be written it stays."""
        rows = Frame.concatenated(self._in_memory)
        try:
            if self._folder is None:
                self._folder = Path(mkdtemp(prefix="jaynes-history-"))
                self._remove = finalize(self, _remove, self._folder, os.getpid())
            path = self._folder / f"rows-{len(self._moved):06d}.parquet"
            write_frame(rows, path)
        except OSError as error:
            warnings.warn(
                f"the history of {self.schema.instrument} stays in memory: no temporary file can "
                f"be written ({error}); set TMPDIR to a place with room",
                stacklevel=2,
            )
            self._can_move = False
            return
        self._moved.append(_Moved(path, len(rows), self.last_step))
        self._joined, self._newest, self._values = [], [], 0

    # Rows -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[R]:
        for _, load in self._blocks():
            yield from load()

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Frame[R]: ...
    def __getitem__(self, index: "int | slice") -> "R | Frame[R]":
        if isinstance(index, slice):
            places = np.arange(self._length)[index]
            if not len(places):
                return Frame(self.schema, {})
            first = int(places.min())
            return self._between(first, int(places.max()) + 1).take(places - first)
        place = range(self._length)[index]
        return self._between(place, place + 1)[0]

    def _blocks(self) -> Iterator[tuple[int, Callable[[], Frame[R]]]]:
        """Return number of rows and reader of each file, then of each frame in memory."""
        for each in self._moved:
            yield each.rows, partial(read_frame, each.path, self.schema, counts=False)
        for frame in self._in_memory:
            yield len(frame), partial(_itself, frame)

    def _between(self, start: int, stop: int) -> Frame[R]:
        """Return the rows from one place to another; no other file is read."""
        frames, before = [], 0
        for rows, load in self._blocks():
            low, high = max(start - before, 0), min(stop - before, rows)
            if low < high:
                frames.append(load().take(slice(low, high)))
            before += rows
        return Frame.concatenated(frames)

    def __getstate__(self) -> dict[str, Any]:
        """Copy the rows themselves: a copy owns no file of the original's."""
        frame = self.frame()
        return {
            **self.__dict__,
            "_joined": [frame] if len(frame) else [],
            "_newest": [],
            "_values": len(frame) * len(self.schema.columns),
            "_folder": None,
            "_remove": None,
            "_moved": [],
            "_can_move": True,
        }


def _remove(folder: Path, process: int) -> None:
    """Remove a history's folder, unless this is a fork of the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _itself(frame: Frame[R]) -> Frame[R]:
    return frame
