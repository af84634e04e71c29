"""One row's schema with units: what was measured of one stream at one step.

A `Record` is one row, `Records` a table of them.  Both are finished results on the host: plain
numbers, and the sparse counts from which every figure can be computed again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from jaynes_callbacks.records.text import html_table, text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Kind", "Record", "Records", "Stream", "Variable"]

Kind = Literal["weight", "iota"]
#: What a stream's values are: weights, a neuron's output, or its iota Z = z·y itself.
Variable = Literal["w", "y", "z*y"]


@dataclass(frozen=True)
class Stream:
    """One distribution watched: the weights of one parameter, or one activation call site.

    Attributes:
        kind: ``weight`` or ``iota``.
        name: qualified name as PyTorch prints it, ``#1``, ``#2`` … appended from the second call
            of one activation within a forward.
        shape: of the parameter, or of one call's output without its batch dimension.
        aliases: other names of the same tied parameter.
        variable: ``w`` of weights; of iota ``y`` where Z = y² (ReLU), else ``z*y``.
    """

    kind: Kind
    name: str
    shape: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    variable: Variable = "w"

    @property
    def key(self) -> tuple[str, str]:
        """What tells one stream from another: its kind and its name."""
        return self.kind, self.name


def _column(unit: str, meaning: str, default: Any = np.nan) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning})


def _family_columns(unit: str, meaning: str, prefix: str) -> Any:
    metadata = {"unit": unit, "meaning": meaning, "prefix": prefix}
    return field(default_factory=dict, metadata=metadata)


def _empty() -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.zeros(0, dtype=np.int64)


def _array_column(unit: str, meaning: str) -> Any:
    return field(default_factory=_empty, metadata={"unit": unit, "meaning": meaning}, repr=False)


@dataclass(frozen=True)
class Record:
    """What was measured of one stream at one step; nan where `status` says why.

    Gaps are in nats per weight (or neuron); mu is in ln of the tensor's own unit.
    """

    run: str = _column("", "name of the run", "")
    step: int = _column("optimizer steps", "when", 0)
    epoch: int = _column("epochs", "when", 0)
    kind: Kind = _column("", "weight or iota", "weight")
    name: str = _column("", "the stream", "")
    variable: Variable = _column("", "w, y (ReLU, whose Z is y²) or z*y: what was counted", "w")
    shape: tuple[int, ...] = _column("", "of the parameter, or of one sample's activation", ())
    n: int = _column("values", "finite, non-zero", 0)
    zeros: int = _column("values", "exact zeros and magnitudes below 2**-130", 0)
    nonfinite: int = _column("values", "inf and nan", 0)
    max: float = _column("w", "largest finite magnitude, or its bin's upper edge")
    rms: float = _column("w", "root mean square of the n values")
    log_mean: float = _column("ln w", "mean of ln w")
    log_std: float = _column("ln w", "standard deviation of ln w")
    log_std_tilted: float = _column("ln w", "the same of the size-weighted law")
    log_skew: float = _column("1", "skewness of ln w")
    log_kurtosis: float = _column("1", "excess kurtosis of ln w")
    mu: float = _column("ln w", "lognormal's μ")
    sigma: float = _column("ln w", "lognormal's σ")
    gap: float = _column("nats", "KL to the best lognormal: the arbitrage gap")
    gap_se: float = _column("nats", "standard error of gap; weights: their rows are clusters")
    gap_tilted: float = _column("nats", "gap of the size-weighted law; few large values decide it")
    gap_censored: float = _column("nats", "gap with the lowest 5 % as one open bin")
    q: float = _column("1", "Prentice's tilt away from lognormal, in [-10, 10]")
    rival_gaps: Mapping[str, float] = _family_columns("nats", "KL to the best of a family", "gap_")
    best_family: str = _column("", "lognormal or the rival that Schwarz's criterion prefers", "")
    vuong_z: Mapping[str, float] = _family_columns("1", "lognormal against a rival", "vuong_z_")
    tv: float = _column("1", "total variation to the best lognormal")
    ks: float = _column("1", "Kolmogorov-Smirnov distance on the bin edges")
    w1: float = _column("σ", "Wasserstein-1 distance in ln w over σ")
    n_star: float = _column("values", "sample size at which a KS test rejects half the time")
    alpha: float = _column("1", "α (iota: η), Eq. 13 (24)")
    beta: float = _column("1", "β (iota: ζ), Eq. 13 (24)")
    utility_std: float = _column("nats", "spread of the effective utility over bins")
    potential: float = _column("nats", "φ, Eqs 8-11, 25")
    entropy: float = _column("nats", "φ_s, the entropy part of φ")
    paper_r2: float = _column("1", "R² by the paper's protocol")
    paper_mu: float = _column("ln(w/max)", "μ' by the paper's protocol")
    paper_sigma: float = _column("1", "σ' by the paper's protocol")
    paper_amplitude: float = _column("w/max × values", "A' by the paper's protocol")
    paper_r2_gaussian: float = _column(
        "1", "mean R² of as many Gaussian weights (z*y: pre-activations, squared) at this max/rms"
    )
    moved: float = _column("1", "‖w − w₀‖/‖w₀‖ since the first record")
    verdict: str = _column("", "by the rule fixed before any experiment", "")
    status: str = _column("", "ok, or the reason of each nan", "ok")
    codes: np.ndarray[Any, np.dtype[np.int64]] = _array_column("code", "occupied codes")
    counts: np.ndarray[Any, np.dtype[np.int64]] = _array_column("values", "their counts")
    paper_counts: np.ndarray[Any, np.dtype[np.int64]] = _array_column(
        "values",
        "counts of the paper's equal bins on [0, max]; empty where only codes were counted",
    )

    def to_dict(self, *, counts: bool = True) -> dict[str, Any]:
        """The row flat, in the schema's order, one entry per column.

        Args:
            counts: whether to keep the array columns.
        """
        row: dict[str, Any] = {}
        for column in fields(self):
            value = getattr(self, column.name)
            if isinstance(value, np.ndarray) and not counts:
                continue
            prefix = column.metadata.get("prefix")
            row |= {column.name: value} if prefix is None else _prefixed(prefix, value)
        return row

    def replace(self, **changes: Any) -> "Record":
        """A copy with some columns changed."""
        return replace(self, **changes)

    @property
    def key(self) -> tuple[str, str]:
        """What tells one stream from another: its kind and its name."""
        return self.kind, self.name


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {prefix + family: value for family, value in values.items()}


class Records(Sequence[Record]):
    """An immutable table of records.

    Example:
        >>> records = Records([Record(name="fc.weight", n=10)])
        >>> records.to_pandas()[["kind", "name", "n"]].values.tolist()
        [['weight', 'fc.weight', 10]]
    """

    def __init__(self, rows: Iterable[Record] = ()) -> None:
        self._rows = tuple(rows)

    def __repr__(self) -> str:
        return text_table(self._rows)

    def _repr_html_(self) -> str:
        return html_table(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: "int | slice") -> "Record | Records":
        return Records(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __add__(self, other: "Records") -> "Records":
        return Records((*self, *other))

    def select(self, *, kind: Kind | None = None, name: str | None = None) -> "Records":
        """The rows of one kind, of one stream's name, or of both."""
        return Records(row for row in self if kind in (None, row.kind) and name in (None, row.name))

    def by_stream(self) -> dict[tuple[str, str], Record]:
        """The last row of each stream, by its `Record.key`."""
        return {row.key: row for row in self}

    def without_counts(self) -> "Records":
        """The same rows, their array columns emptied: what is cheap to keep for long."""
        none = _empty()
        return Records(row.replace(codes=none, counts=none, paper_counts=none) for row in self)

    def to_pandas(self, *, counts: bool = False) -> "pd.DataFrame":
        """One row per record; `kind`, `name` and `step` are ordinary columns.

        Args:
            counts: whether to keep the sparse counts, columns of arrays.
        """
        import pandas as pd

        columns = list(Record().to_dict(counts=counts)) if not self else None
        return pd.DataFrame([row.to_dict(counts=counts) for row in self], columns=columns)
