"""A frame: columns by name under a schema.  Rows are made when they are asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from jaynes_callbacks.records.schema import Array, Column, ColumnType, Integers, R, Schema
from jaynes_callbacks.records.text import html_table, text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Frame"]


class Frame(Sequence[R]):
    """An immutable table: named columns, and a sequence of rows.

    Columns are numpy arrays of one length.  Texts, shapes and arrays of counts lie in arrays of
    objects; a column of a group whose rows do not all have an entry is a masked array.  Columns of
    the schema that the frame does not have take their defaults in rows.

    Args:
        schema: of the columns.
        columns: by name; those that the schema does not know must belong to one of its groups.

    Raises:
        ValueError: for columns of different lengths, or of names that the schema has no place for.

    Example:
        >>> from jaynes_callbacks.records.schema import Row, Schema
        >>> frame = Frame.from_rows(Schema(Row), [Row(name="fc.weight", step=3)])
        >>> frame["step"].tolist(), frame[0].name
        ([3], 'fc.weight')
    """

    def __init__(self, schema: Schema[R], columns: Mapping[str, Array]) -> None:
        schema = schema.with_names(columns)
        unknown = [name for name in columns if name not in schema.by_name]
        lengths = {len(values) for values in columns.values()}
        if unknown or len(lengths) > 1:
            raise ValueError(
                f"a frame of {schema.row.__name__} has columns of one length under the schema's "
                f"names, got lengths {sorted(lengths)} and unknown names {unknown}"
            )
        self.schema = schema
        self._columns = {name: columns[name] for name in schema.names if name in columns}
        self._length = max(lengths, default=0)

    @classmethod
    def from_rows(cls, schema: Schema[R], rows: Iterable[R]) -> "Frame[R]":
        """Make a frame of rows."""
        flat = [row.to_dict() for row in rows]
        schema = schema.with_names(dict.fromkeys(name for row in flat for name in row))
        columns = {
            each.name: _packed(each, [row.get(each.name) for row in flat])
            for each in schema.columns
        }
        return Frame(schema, columns)

    @property
    def columns(self) -> Mapping[str, Array]:
        """The columns that the frame has, by name, in the schema's order."""
        return self._columns

    # Rows -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[R]:
        names = tuple(self._columns)
        lists = [_as_list(values) for values in self._columns.values()]
        for values in zip(*lists, strict=True):
            yield self.schema.row_of(dict(zip(names, values, strict=True)))

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: str) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: "int | str | slice") -> "R | Array | Self":
        if isinstance(index, str):
            return self._column(index)
        if isinstance(index, slice):
            return self.take(index)
        place = range(self._length)[index]
        (row,) = self.take(slice(place, place + 1))
        return row

    def by_stream(self) -> dict[tuple[str, str], R]:
        """Return the last row of each stream, by its key."""
        return {row.key: row for row in self}

    # Frames ---------------------------------------------------------------------------------

    def rows_by_stream(self) -> dict[tuple[str, str], Integers]:
        """Return the places of each stream's rows, by its kind and name, in the frame's order."""
        found: dict[tuple[str, str], list[int]] = {}
        kinds, names = self["kind"].tolist(), self["name"].tolist()
        for place, key in enumerate(zip(kinds, names, strict=True)):
            found.setdefault(key, []).append(place)
        return {key: np.array(places) for key, places in found.items()}

    def __add__(self, other: "Frame[R]") -> Self:
        return self.concatenated([self, other])

    def take(self, rows: "slice | Array") -> Self:
        """Return some rows, by a slice, indices or a mask."""
        return self._like(
            self.schema, {name: values[rows] for name, values in self._columns.items()}
        )

    def select(self, *, kind: str | None = None, name: str | None = None) -> Self:
        """Return the rows of one kind, of one stream's name, or of both."""
        wanted = np.ones(len(self), dtype=bool)
        for column, value in (("kind", kind), ("name", name)):
            if value is not None:
                wanted &= self[column] == value
        return self.take(wanted)

    def replaced(self, **columns: Array) -> Self:
        """Return a copy with some columns changed or added."""
        return self._like(self.schema, {**self._columns, **columns})

    def beside(self, other: "Frame[Any]", names: Iterable[str]) -> Self:
        """Return a copy with columns of another frame of the same moment.

        Args:
            other: with at most one row for each stream.
            names: of fields that both schemas have: single columns, and groups.

        Rows of streams that the other frame does not have keep what they have.
        """
        keys = zip(other["kind"].tolist(), other["name"].tolist(), strict=True)
        place = {key: row for row, key in enumerate(keys)}
        own = zip(self["kind"].tolist(), self["name"].tolist(), strict=True)
        rows = np.array([place.get(key, -1) for key in own], dtype=np.int64)
        found = rows >= 0
        columns = {}
        for name in (each for field in names for each in self.schema.columns_of(field)):
            if name in other.columns and found.any():
                columns[name] = self._of(self.schema.by_name[name]).copy()
                columns[name][found] = other.columns[name][rows[found]]
        return self.replaced(**columns)

    def without_counts(self) -> Self:
        """Return the same rows without their arrays: what is cheap to keep for long."""
        kept = {
            name: values
            for name, values in self._columns.items()
            if not self.schema.by_name[name].type.is_array
        }
        return self._like(self.schema, kept)

    @classmethod
    def concatenated(cls, frames: "Sequence[Frame[R]]") -> Self:
        """Return the rows of several frames in their order, with the columns of all of them.

        Args:
            frames: at least one.
        """
        filled = [frame for frame in frames if len(frame)] or frames[:1]
        schema = filled[0].schema
        for frame in filled[1:]:
            schema = schema.with_names(frame.columns)
        names = [name for name in schema.names if any(name in each.columns for each in filled)]
        columns = {
            name: _joined([each._of(schema.by_name[name]) for each in filled]) for name in names
        }
        return cls._like(schema, columns)

    @classmethod
    def _like(cls, schema: Schema[R], columns: Mapping[str, Array]) -> Self:
        """Make a frame of this class, whatever its constructor takes."""
        frame = cls.__new__(cls)
        Frame.__init__(frame, schema, columns)
        return frame

    def _column(self, name: str) -> Array:
        if name not in self.schema.by_name:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.schema.names)}")
        return self._of(self.schema.by_name[name])

    def _of(self, column: Column) -> Array:
        """Return a column, full of its default where the frame does not have it."""
        if column.name in self._columns:
            return self._columns[column.name]
        absent = None if column.name not in self.schema.plain else column.default
        return _packed(column, [absent] * len(self))

    # For people -----------------------------------------------------------------------------

    def to_pandas(self, *, counts: bool = False) -> "pd.DataFrame":
        """Return a data frame, one row per record; `kind`, `name` and `step` are ordinary columns.

        Args:
            counts: whether to keep the columns of arrays.

        Columns of a group in which no row has an entry are left out.
        """
        import pandas as pd

        columns = {
            each.name: self._of(each)
            for each in self.schema.columns
            if counts or not each.type.is_array
        }
        return pd.DataFrame(
            {name: _filled(values) for name, values in columns.items() if not _is_void(values)}
        )

    def __repr__(self) -> str:
        return text_table(self, self.schema)

    def _repr_html_(self) -> str:
        return html_table(self, self.schema)


def _packed(column: Column, values: Sequence[Any]) -> Array:
    """Return the values of a column as one array; masked where some are None."""
    if column.type in (ColumnType.INTEGER, ColumnType.REAL):
        type_ = np.int64 if column.type is ColumnType.INTEGER else np.float64
        if any(value is None for value in values):
            mask = [value is None for value in values]
            filled = [0 if value is None else value for value in values]
            return np.ma.MaskedArray(np.array(filled, dtype=type_), mask)
        return np.array(values, dtype=type_)
    packed = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        packed[place] = _empty() if value is None and column.type.is_array else value
    return packed


def _empty() -> Integers:
    return np.zeros(0, dtype=np.int64)


def _as_list(values: Array) -> list[Any]:
    """Return plain Python values; None where an array is masked."""
    found: list[Any] = values.tolist()
    return found


def _joined(parts: Sequence[Array]) -> Array:
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        joined: Array = np.ma.concatenate(parts)  # type: ignore[no-untyped-call]
        return joined
    return np.concatenate(parts)


def _filled(values: Array) -> Array:
    return values.filled(np.nan) if isinstance(values, np.ma.MaskedArray) else values


def _is_void(values: Array) -> bool:
    """Tell whether a column of a group has an entry in no row."""
    return isinstance(values, np.ma.MaskedArray) and bool(len(values)) and bool(values.mask.all())
