"""Compare runs: one row for each condition, with the spread over its seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from jaynes_callbacks.report.answer import Kind, kinds
from jaynes_callbacks.report.names import last_attempts
from jaynes_callbacks.report.parameters import choices_apart, is_seed, shortest, varying
from jaynes_callbacks.report.runs import Run

__all__ = ["Comparison", "Condition", "Spread", "compare"]


class Spread(NamedTuple):
    """Mean and standard deviation of a figure over the runs of one condition.

    >>> str(Spread.of([0.2, 0.22, 0.18]))
    '0.200 ± 0.020'
    """

    mean: float
    sd: float

    @property
    def is_known(self) -> bool:
        """True if there is any figure."""
        return math.isfinite(self.mean)

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise the finite values; nan where there are too few."""
        finite = [value for value in values if math.isfinite(value)]
        return cls(
            mean(finite) if finite else math.nan, stdev(finite) if len(finite) > 1 else math.nan
        )

    def __str__(self) -> str:
        if not self.is_known:
            return "–"
        return f"{self.mean:.3f}" + (f" ± {self.sd:.3f}" if math.isfinite(self.sd) else "")


class Condition(NamedTuple):
    """Runs that differ in nothing but their seeds, and the streams of one kind in them.

    Attributes:
        values: of the parameters that vary over the comparison, in its order.
        kind: the streams' kind as a plural.
        runs: their number.
        start: spread of the runs' median gaps at the start, in nats.
        end: the same at the end.
        core: spread of the runs' median core gaps at the end; of no runs where none was measured.
        core_gaussian: the same of Gaussian weights of the same shapes.
        verdicts: number of streams of each verdict, over all runs.
        best: label of the law that fits best most often.
    """

    values: tuple[str, ...]
    kind: str
    runs: int
    start: Spread
    end: Spread
    core: Spread
    core_gaussian: Spread
    verdicts: Mapping[str, int]
    best: str


class Comparison(NamedTuple):
    """The parameters that vary over some runs, and the outcome of each condition.

    Attributes:
        parameters: names of the parameters that vary, seeds excepted; ``run`` if none does.
        conditions: in the order of their first runs.
        unfinished: number of runs that are left out because they have not finished, while others
            have.
        earlier: number of earlier attempts at the same runs, which are left out.
    """

    parameters: tuple[str, ...]
    conditions: Sequence[Condition]
    unfinished: int
    earlier: int = 0

    @property
    def has_cores(self) -> bool:
        """True if cores of weights were measured in any condition."""
        return any(each.core.is_known for each in self.conditions)


def compare(runs: Sequence[Run]) -> Comparison:
    """Group runs by the parameters that were chosen for them, and summarise each group."""
    last = last_attempts(runs)
    finished = [run for run in last if run.outcome == "finished"] or last
    chosen = choices_apart([run.choices for run in finished], [run.parameters for run in finished])
    names = [name for name in varying(chosen) if not is_seed(name)]
    conditions: dict[tuple[str, ...], list[Run]] = {}
    for run, values in zip(finished, chosen, strict=True):
        # Runs of which no parameter is known are not taken for repetitions of each other.
        key = tuple(_text(values.get(name)) for name in names) if run.parameters else (run.name,)
        conditions.setdefault(key, []).append(run)
    return Comparison(
        tuple(shortest(name, names) for name in names) or ("run",),
        [each for values, group in conditions.items() for each in _conditions(values, group)],
        len(last) - len(finished),
        len(runs) - len(last),
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
        Spread.of([kind.core for kind in group]),
        Spread.of([kind.core_gaussian for kind in group]),
        verdicts,
        max(families, key=lambda name: families[name], default="–"),
    )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
