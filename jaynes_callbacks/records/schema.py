"""A schema: the columns of a table, each with its unit, its meaning and how it is shown.

An instrument declares what it finds as a frozen dataclass whose fields are made by `column`.  That
one declaration is all that tables, curves, files, the report and the documentation know of it::

    @dataclass(frozen=True, eq=False)
    class NormRow(Row):
        norm: float = column("w", "Euclidean norm of the weight", curve=True)

    schema = Schema(NormRow, "norms")

A field made by `group` stands for several columns of one kind, such as one for each family; in a
row it is a mapping.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from fnmatch import filter as filter_names
from fnmatch import fnmatchcase
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, get_type_hints

import numpy as np

if TYPE_CHECKING:
    from jaynes_callbacks.records.frame import Frame

__all__ = [
    "Array",
    "Column",
    "ColumnType",
    "Group",
    "Integers",
    "Key",
    "R",
    "Row",
    "Schema",
    "column",
    "counts_column",
    "group",
    "medians",
    "same_column",
]

Array = np.ndarray[Any, np.dtype[Any]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

_META = "jaynes_callbacks.column"


class ColumnType(Enum):
    """What a column's values are."""

    INTEGER = "integer"
    REAL = "real"
    TEXT = "text"
    #: A short tuple of integers, such as a shape.
    SHAPE = "shape"
    #: An array of integers that differs in length from row to row, such as counts.
    COUNTS = "counts"
    #: The same of codes of the grid, which fit 16 bits.
    CODES = "codes"

    @property
    def is_array(self) -> bool:
        """True if each value is an array: the bulk of a record, which histories leave out."""
        return self in (ColumnType.COUNTS, ColumnType.CODES)


_TYPES: Mapping[Any, ColumnType] = {
    int: ColumnType.INTEGER,
    float: ColumnType.REAL,
    str: ColumnType.TEXT,
    tuple[int, ...]: ColumnType.SHAPE,
    Integers: ColumnType.COUNTS,
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: in files and data frames.
        type: of its values.
        unit: of its values; empty for what has none.
        meaning: one phrase.
        default: value where a row states none.
        label: heading in tables and of charts; the name by default.
        digits: decimals in tables.
        curve: whether loggers get a curve of it for each stream.
        title: of the chart that shows the curves of all streams; heading and unit by default.
        tag: group of the curves' tags, ``{kind}`` standing for the stream's kind.
        shown: whether tables for people have it.
        text: writes a row's cell where `digits` is not enough.
    """

    name: str
    type: ColumnType = ColumnType.REAL
    unit: str = ""
    meaning: str = ""
    default: Any = np.nan
    label: str = ""
    digits: int = 3
    curve: bool = False
    title: str = ""
    tag: str = ""
    shown: bool = False
    text: Callable[[Any], str] | None = field(default=None, compare=False)

    @property
    def heading(self) -> str:
        """The label, or else the name in words."""
        return self.label or self.name.replace("_", " ")

    @property
    def chart_title(self) -> str:
        """The title, or else the heading with the unit."""
        unit = f", {self.unit}" if self.unit not in ("", "1") else ""
        return self.title or f"{self.heading}{unit}"

    def tag_of(self, kind: str) -> str:
        """Return the group of tags of this column's curves for streams of one kind."""
        return (self.tag or f"{self.name}_{{kind}}").format(kind=kind)


class Key(NamedTuple):
    """One of a group's keys as its column is described.

    Attributes:
        label: fills the meaning of the group's columns.
        unit: of the column; the group's by default.
    """

    label: str
    unit: str = ""


class Group:
    """Marks a field that stands for several columns: their common prefix and their description."""

    def __init__(self, prefix: str, unit: str, meaning: str) -> None:
        self.prefix, self.unit, self.meaning = prefix, unit, meaning

    def column(self, key: str, described: Key) -> Column:
        """Describe the column of one key."""
        return Column(
            f"{self.prefix}{key}",
            unit=described.unit or self.unit,
            meaning=self.meaning.format(described.label),
        )


def column(
    unit: str,
    meaning: str,
    default: Any = np.nan,
    *,
    label: str = "",
    digits: int = 3,
    curve: bool = False,
    title: str = "",
    tag: str = "",
    shown: bool | None = None,
    text: Callable[[Any], str] | None = None,
) -> Any:
    """Declare a field of a row as a column; see `Column` for the arguments.

    Tables for people show it if it is a curve, unless `shown` says otherwise.
    """
    described = Column(
        "", ColumnType.REAL, unit, meaning, default, label, digits, curve, title, tag,
        curve if shown is None else shown, text,
    )  # fmt: skip
    return field(default=default, metadata={_META: described})


def counts_column(unit: str, meaning: str, type: ColumnType = ColumnType.COUNTS) -> Any:  # noqa: A002
    """Declare a field of a row as a column of integer arrays, which `repr` leaves out."""
    described = Column("", type, unit, meaning, None)
    return field(default_factory=_empty, metadata={_META: described}, repr=False)


def group(prefix: str, unit: str, meaning: str) -> Any:
    """Declare a field of a row as a mapping that stands for columns ``<prefix><key>``.

    Args:
        prefix: of the columns' names.
        unit: of all of them.
        meaning: of each; ``{}`` stands for the key's label.
    """
    return field(default_factory=dict, metadata={_META: Group(prefix, unit, meaning)})


def same_column(row: "type[Row]", name: str, **changes: Any) -> Any:
    """Declare a field that stands for the same column, or group, as another table's.

    Args:
        row: class of the other table's rows.
        name: of the field, there and here.
        changes: of the description, by `Column`'s attributes.
    """
    (other,) = (each for each in fields(row) if each.name == name)
    described = other.metadata[_META]
    if isinstance(described, Group):
        return field(default_factory=dict, metadata=other.metadata)
    return field(default=other.default, metadata={_META: replace(described, **changes)})


def _empty() -> Integers:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Row:
    """One row of any table: when, and of which stream.  Instruments add columns by subclassing.

    Rows are values: two are equal if all their columns are, nan being equal to itself.  (Declare a
    subclass with ``@dataclass(frozen=True, eq=False)`` to keep that.)
    """

    run: str = column("", "name of the run", "")
    step: int = column("optimizer steps", "when", 0, shown=True)
    epoch: int = column("epochs", "when", 0)
    kind: str = column("", "what the stream is a distribution of: weight, iota, …", "", shown=True)
    name: str = column("", "the stream", "", shown=True)

    def __init_subclass__(cls) -> None:
        # Before the decorator `dataclass` makes one of all columns, which fill a screen.
        cls.__repr__ = Row.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        told = [
            f"{each.name}={_brief(getattr(self, each.name))}"
            for each in fields(self)
            if getattr(each.metadata[_META], "shown", False)
            and each.name not in ("step", "kind", "name")
            and getattr(self, each.name) != ""
        ]
        what = " ".join(part for part in (self.kind, self.name) if part)
        return f"<{type(self).__name__} {what}, step {self.step}: {', '.join(told) or 'no values'}>"

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name, which together identify a stream."""
        return self.kind, self.name

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            _is_same(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)
        )

    def __hash__(self) -> int:
        return hash((self.run, self.step, self.key))

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some columns changed."""
        return replace(self, **changes)

    def to_dict(self, *, counts: bool = True) -> dict[str, Any]:
        """Return the row flat: one entry for each column, in the schema's order.

        Args:
            counts: whether to keep the columns of arrays.
        """
        flat: dict[str, Any] = {}
        for each in fields(self):
            value, described = getattr(self, each.name), each.metadata[_META]
            if isinstance(described, Group):
                flat |= {f"{described.prefix}{key}": part for key, part in value.items()}
            elif counts or not described.type.is_array:
                flat[each.name] = value
        return flat


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other or (one != one and other != other))


R = TypeVar("R", bound=Row)


def medians(frame: "Frame[Any]") -> dict[str, float]:
    """Summarise a frame for loggers, early stopping and sweeps: the median of each curve by kind.

    Returns:
        ``<instrument>/<kind>/<column>_median`` for every curve and kind with a finite value.
    """
    numbers = {}
    for kind in dict.fromkeys(frame["kind"].tolist()):
        of_kind = frame["kind"] == kind
        for each in frame.schema.curves:
            values = frame[each.name][of_kind]
            if len(finite := values[np.isfinite(values)]):
                tag = f"{frame.schema.instrument}/{kind}/{each.name}_median"
                numbers[tag] = float(median(finite.tolist()))
    return numbers


def _no_remarks(rows: Sequence[Any]) -> list[str]:
    return []


def _as_it_is(columns: Mapping[str, Array], version: int) -> Mapping[str, Array]:
    return columns


@dataclass(frozen=True)
class Schema(Generic[R]):
    """The columns of a table, and what is shown of it as a whole.

    Attributes:
        row: class of the table's rows, a dataclass whose fields are made by `column`,
            `counts_column` and `group`.
        instrument: name of the instrument that fills the table.
        title: what the table shows, as a heading.
        main: whether it is the measurement that a run is about, whose parts lie in the dataset's
            own folder; any other has a folder below it.
        required: columns without which a file is no table of this kind.
        ahead: columns that tables for people show first, in this order.
        first_curve: the curve that streams get where there is no room for all; by default the
            first.
        keys: for each group the keys of its columns, with their labels.
        aggregate: the few numbers of a frame that early stopping and sweeps want, by tag.
        remarks: lines below a table for people.
        invariant: names of the columns, or glob patterns on them, that are the same however neurons
            are rescaled: the weights into a ReLU (or leaky ReLU) multiplied by a positive number
            and those out of it divided by it, by which the network's outputs do not change.
        version: of what the columns mean, written into files; raised where a unit changes.
        upgrade: gives columns of an older version, by name, today's meaning.

    Raises:
        TypeError: for a field of the row that is no column, or of a type that no column has.
        ValueError: for a `first_curve` that is no curve, or an `invariant` that is no column.
    """

    row: type[R]
    instrument: str = ""
    title: str = ""
    main: bool = False
    required: frozenset[str] = frozenset({"run", "step", "epoch", "kind", "name"})
    ahead: tuple[str, ...] = ("kind", "name", "step")
    first_curve: str = ""
    keys: Mapping[str, Mapping[str, Key]] = field(default_factory=dict)
    aggregate: Callable[["Frame[R]"], dict[str, float]] = field(default=medians, compare=False)
    remarks: Callable[[Sequence[R]], list[str]] = field(default=_no_remarks, compare=False)
    invariant: tuple[str, ...] = ()
    version: int = 1
    upgrade: Callable[[Mapping[str, Array], int], Mapping[str, Array]] = field(
        default=_as_it_is, compare=False
    )

    def __post_init__(self) -> None:
        # A wrong declaration raises where it is made.
        curves = [each.name for each in self.columns if each.curve]
        if self.first_curve not in ("", *curves):
            raise ValueError(
                f"first_curve of {self.row.__name__} must be one of its curves {curves}, "
                f"got {self.first_curve!r}"
            )
        if wrong := [each for each in self.invariant if not filter_names(self.names, each)]:
            raise ValueError(f"invariant of {self.row.__name__}: {wrong} match none of its columns")

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in order, those of groups spelled out."""
        columns: list[Column] = []
        hints = get_type_hints(self.row)
        for each in fields(self.row):
            described = each.metadata.get(_META)
            if isinstance(described, Group):
                keys = self.keys.get(each.name, {})
                columns += [described.column(key, told) for key, told in keys.items()]
            elif isinstance(described, Column) and hints[each.name] in _TYPES:
                type_ = _TYPES[hints[each.name]]
                type_ = described.type if described.type.is_array else type_
                columns.append(replace(described, name=each.name, type=type_))
            else:
                raise TypeError(
                    f"{self.row.__name__}.{each.name} must be declared by column(...) with type "
                    f"int, float, str, tuple[int, ...] or Integers, got {hints[each.name]}"
                )
        return tuple(columns)

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by their names."""
        return {each.name: each for each in self.columns}

    def is_invariant(self, name: str) -> bool:
        """Tell whether a column stays as it is when neurons are rescaled."""
        return any(fnmatchcase(name, pattern) for pattern in self.invariant)

    @property
    def overview(self) -> str:
        """What the tags of `aggregate` begin with, up to their first slash."""
        return "equilibrium" if self.main else self.instrument

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.by_name)

    @property
    def curves(self) -> tuple[Column, ...]:
        """The columns of which loggers get curves: `first_curve`, then the others in order."""
        curves = [each for each in self.columns if each.curve]
        return tuple(sorted(curves, key=lambda each: each.name != self.first_curve))

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns of tables for people, in the order in which they are shown."""
        ahead = [self.by_name[name] for name in self.ahead]
        return (*ahead, *(each for each in self.columns if each.shown and each not in ahead))

    @cached_property
    def groups(self) -> Mapping[str, Group]:
        """The row's fields that are mappings, with what they stand for."""
        described = {each.name: each.metadata.get(_META) for each in fields(self.row)}
        return {name: each for name, each in described.items() if isinstance(each, Group)}

    def columns_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the columns that a field of the row stands for."""
        if name in self.plain:
            return (name,)
        return tuple(column for _, column in self._group_columns[name])

    @cached_property
    def plain(self) -> frozenset[str]:
        """The row's fields that are one column each."""
        return frozenset(each.name for each in fields(self.row)) - set(self.groups)

    def with_names(self, names: Iterable[str]) -> "Schema[R]":
        """Return this schema with the columns of groups added that a table has besides."""
        unknown = [name for name in names if name not in self.by_name]
        more = {
            group_name: {
                key: Key(key)
                for name in unknown
                if (key := name.removeprefix(each.prefix)) != name and name not in self.plain
            }
            for group_name, each in self.groups.items()
        }
        if not any(more.values()):
            return self
        merged = {name: {**self.keys.get(name, {}), **found} for name, found in more.items()}
        return replace(self, keys=merged)

    def row_of(self, values: Mapping[str, Any]) -> R:
        """Make a row of column values; what is missing takes its default.

        Args:
            values: by column name; None in a column of a group means that the row has no such
                entry.
        """
        row = object.__new__(self.row)
        # Rows are made by the thousand: the constructor of a frozen class sets field after field.
        chosen = vars(row)
        chosen.update(self._defaults)
        for name, value in values.items():
            if name in self._defaults and value is not None:
                chosen[name] = value
        for name, columns in self._group_columns.items():
            found = ((key, values.get(column)) for key, column in columns)
            chosen[name] = {key: value for key, value in found if value is not None}
        return row

    @cached_property
    def _defaults(self) -> Mapping[str, Any]:
        return {name: getattr(self._blank, name) for name in self.plain}

    @cached_property
    def _blank(self) -> R:
        return self.row()

    @cached_property
    def _group_columns(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        return {
            name: tuple((key, f"{each.prefix}{key}") for key in self.keys.get(name, {}))
            for name, each in self.groups.items()
        }
