"""A folder of Parquet parts: the table of a run on disk, whole at every moment.

Each part holds the rows of one or more records and is named after the first step in it, so that
names sort as steps do.  A part is written under a hidden name and then renamed, so a reader, and
whoever comes after a killed run, finds whole parts only, each step in one of them.

The first records have a part each.  From then on a record joins the newest part, which is replaced
as a whole, until that is large: the number of files stays small, and what a record costs does not
depend on how many there are.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jaynes_callbacks.records.atomic import put
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import arrow_table, read_frames, read_table, write_table
from jaynes_callbacks.records.schema import Schema

__all__ = ["PartWriter", "part_name", "parts", "read_parts"]

#: Records that have a part of their own, and most records and bytes (in memory) of later parts.
#: Of each later record the whole part is written anew; to open a part takes as long as reading some
#: 500 rows.  At these numbers neither costs much.
_ALONE, _TOGETHER, _BYTES = 64, 32, 1 << 23

_PART = re.compile(r"part-(\d+)\.parquet")


def parts(folder: Path) -> dict[int, Path]:
    """Return the parts of a folder by the first step in each, in order."""
    matches = ((_PART.fullmatch(path.name), path) for path in folder.glob("part-*.parquet"))
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def part_name(step: int) -> str:
    """Return the file name of the part that begins with a step."""
    return f"part-{step:012d}.parquet"


def read_parts(
    folder: Path,
    schema: Schema[Any] | None = None,
    *,
    counts: bool = True,
    steps: Collection[int] | None = None,
) -> Frame[Any]:
    """Read the rows of a folder's parts, ordered by step.

    Args:
        folder: with at least one part.
        schema: of the rows; by default what the parts say of their own columns.
        counts: whether to read the columns of arrays; without them reading is several times faster.
        steps: read these steps only; all by default.

    Raises:
        OSError, ValueError: if a part cannot be read.
    """
    files = parts(folder)
    chosen = set(files)
    if steps is not None:
        chosen = {first for step in steps if (first := _first_of(files, step)) is not None}
    # No part holds any of the steps: an empty frame has the columns of the first one.
    paths = [files[first] for first in sorted(chosen or list(files)[:1])]
    return read_frames(paths, schema, counts=counts, steps=steps)


class PartWriter:
    """Writes the records of one run into a folder, in the order of their steps.

    Args:
        folder: that exists; parts in it are this run's.
        run_id: that every part bears.
        alone: whether each record has a part of its own, however many there are.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, folder: Path, run_id: str, *, alone: bool = False) -> None:
        self._folder, self._run_id, self._alone = folder, run_id, alone
        self._number = len(parts(folder))
        self._newest: _Open | None = None
        self._last_step = _last_step(folder)

    def write(self, frame: Frame[Any]) -> None:
        """Write one record; a step that was written before is replaced."""
        step = int(frame["step"][0])
        table = arrow_table(frame, self._run_id)
        if self._alone:
            self._put(self._folder / part_name(step), table)
        elif step <= self._last_step:
            self._replace(step, table)
        elif self._newest is not None and self._newest.has_room_for(table):
            self._put(self._newest.path, self._newest.joined(table))
            self._newest.add(table)
        else:
            self._begin(step, table)
        self._last_step = max(step, self._last_step)

    def truncate(self, step: int) -> None:
        """Remove the rows beyond a step.

        The last first: whenever this is interrupted, what is left is a run's beginning.
        """
        files = parts(self._folder)
        for first in sorted(files, reverse=True):
            if first <= step:
                table = read_table(files[first])
                kept = table.filter(pc.less_equal(table["step"], step))
                if len(kept) < len(table):
                    self._put(files[first], kept)
                break
            files[first].unlink()
        self._number, self._newest = len(parts(self._folder)), None
        self._last_step = min(self._last_step, step)

    def _begin(self, step: int, table: pa.Table) -> None:
        part = self._folder / part_name(step)
        self._put(part, table)
        self._newest = _Open(part, table) if self._number >= _ALONE else None
        self._number += 1

    def _replace(self, step: int, table: pa.Table) -> None:
        """Put a step's rows in place of those that the part has which holds the step."""
        files = parts(self._folder)
        if (first := _first_of(files, step)) is None:
            part = self._folder / part_name(step)
        else:
            part = files[first]
            held = read_table(part)
            others = held.filter(pc.not_equal(held["step"], step))
            if len(others):
                joined = pa.concat_tables([others, table], promote_options="default")
                table = joined.sort_by("step")
        self._put(part, table)
        self._number, self._newest = len(parts(self._folder)), None

    def _put(self, part: Path, table: pa.Table) -> None:
        try:
            put(part, lambda temporary: write_table(table, temporary))
        except OSError as error:
            raise OSError(
                f"cannot write {part} ({error.strerror or error}); earlier parts are whole"
            ) from error


class _Open:
    """The newest part, which later records join: its path, and its rows in memory."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path = path
        self._table = table
        self._records, self._bytes = 1, table.nbytes

    def has_room_for(self, table: pa.Table) -> bool:
        """Tell whether a record may join."""
        small = self._records < _TOGETHER and self._bytes + table.nbytes <= _BYTES
        return small and bool(self._table.schema.equals(table.schema))

    def joined(self, table: pa.Table) -> pa.Table:
        """Return the rows together with those of a record."""
        return pa.concat_tables([self._table, table])

    def add(self, table: pa.Table) -> None:
        """Take a record's rows, once they are written."""
        self._table = self.joined(table)
        self._records += 1
        self._bytes += table.nbytes


def _first_of(firsts: Collection[int], step: int) -> int | None:
    """Return the first step of the part that holds a step, or would; None before the first."""
    return max((first for first in firsts if first <= step), default=None)


def _last_step(folder: Path) -> int:
    """Return the last step that a folder's parts hold; -1 if there is none that can be read."""
    for part in reversed(list(parts(folder).values())):
        try:
            return int(pc.max(read_table(part, ["step"])["step"]).as_py())
        except (OSError, pa.ArrowException, KeyError, TypeError):
            continue
    return -1
