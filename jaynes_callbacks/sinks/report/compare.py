"""Several runs side by side: one row for each condition, with the spread over its seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from jaynes_callbacks.sinks.report.answer import Kind, kinds
from jaynes_callbacks.sinks.report.parameters import is_seed, varying
from jaynes_callbacks.sinks.report.runs import Run

__all__ = ["Comparison", "Condition", "Spread", "compare"]


class Spread(NamedTuple):
    """A figure over the runs of one condition.

    >>> str(Spread.of([0.2, 0.22, 0.18]))
    '0.200 ± 0.020'
    """

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Mean and standard deviation; nan where there are too few."""
        finite = [value for value in values if math.isfinite(value)]
        return cls(
            mean(finite) if finite else math.nan, stdev(finite) if len(finite) > 1 else math.nan
        )

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "–"
        return f"{self.mean:.3f}" + (f" ± {self.sd:.3f}" if math.isfinite(self.sd) else "")


class Condition(NamedTuple):
    """Runs that differ in nothing but their seeds, and streams of one kind in them.

    Attributes:
        values: of the parameters that vary over the comparison, in its order.
        kind: of the streams.
        runs: how many.
        start: of the runs' median gaps at the start.
        end: likewise at the end.
        verdicts: of all streams of all runs.
        best: the law that fits best most often.
    """

    values: tuple[str, ...]
    kind: str
    runs: int
    start: Spread
    end: Spread
    verdicts: Mapping[str, int]
    best: str


class Comparison(NamedTuple):
    """What varies over some runs, and what came of it.

    Attributes:
        parameters: names of what varies, but for seeds; if nothing does, of the runs.
        conditions: in the order of their first run.
    """

    parameters: tuple[str, ...]
    conditions: Sequence[Condition]


def compare(runs: Sequence[Run]) -> Comparison:
    """Group runs by what was chosen for them."""
    names = [name for name in varying([run.parameters for run in runs]) if not is_seed(name)]
    conditions: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        # Runs of which nothing tells them apart are not taken for repetitions of each other.
        known = bool(run.parameters)
        values = tuple(_text(run.parameters.get(name)) for name in names) if known else (run.name,)
        conditions.setdefault(values, []).append(run)
    short = tuple(_shortest(name, names) for name in names)
    return Comparison(
        short or ("run",),
        [each for values, group in conditions.items() for each in _conditions(values, group)],
    )


def _conditions(values: tuple[str, ...], runs: Sequence[Run]) -> list[Condition]:
    found: dict[str, list[Kind]] = {}
    for run in runs:
        for kind in kinds(run):
            found.setdefault(kind.key, []).append(kind)
    return [_condition(values or (runs[0].name,), group) for group in found.values()]


def _condition(values: tuple[str, ...], group: Sequence[Kind]) -> Condition:
    verdicts: dict[str, int] = {}
    families: dict[str, int] = {}
    for kind in group:
        for name, number in kind.verdicts.items():
            verdicts[name] = verdicts.get(name, 0) + number
        for name, number in kind.families:
            families[name] = families.get(name, 0) + number
    return Condition(
        values,
        group[0].heading,
        len(group),
        Spread.of([kind.start for kind in group]),
        Spread.of([kind.end for kind in group]),
        verdicts,
        max(families, key=lambda name: families[name], default="–"),
    )


def _shortest(name: str, names: Sequence[str]) -> str:
    """As many of a dotted name's last parts as tell it from the others."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        short = ".".join(parts[-length:])
        if sum(other == short or other.endswith("." + short) for other in names) == 1:
            return short
    return name


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
