"""The answer of a run in one sentence, and the rule behind it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.instruments.verdict import NEAR, VERDICTS
from jaynes_callbacks.report.rows import law
from jaynes_callbacks.report.runs import Run

__all__ = ["RULE", "RULE_OF_A_MOMENT", "Kind", "answer", "kinds"]

RULE = (
    f"A stream emerged if its gap ends below {NEAR} nats, below the gap of every rival law, and "
    "fell by more than twice its standard error; it was present from the start if the gap was "
    f"below {NEAR} before training; it is approaching if the gap fell but the rest does not hold. "
    "The rule was fixed before any experiment was run."
)
#: Of one moment no verdict is passed.
RULE_OF_A_MOMENT = (
    f"Near equilibrium is a gap below {NEAR} nats. Whether training led there, one moment cannot "
    "say: that takes the state before training."
)
_HEADINGS = {"weight": "weights", "iota": "neurons (iota)"}
_UNFINISHED = {"running": "This run goes on, or was killed,", "interrupted": "It was interrupted"}


class Kind(NamedTuple):
    """The overview of one kind of streams.

    Attributes:
        key: ``weight`` or ``iota``.
        heading: as people call it.
        number: of streams.
        start: median gap at the start, nan where there is none.
        end: median gap at the end.
        worst: greatest gap at the end.
        verdicts: how many streams have each, in the report's order.
        families: best laws with how many streams, most frequent first.
        r2: median R² by the paper's protocol.
        r2_gaussian: the same of as many Gaussian weights.
    """

    key: str
    heading: str
    number: int
    start: float
    end: float
    worst: float
    verdicts: Mapping[str, int]
    families: Sequence[tuple[str, int]]
    r2: float
    r2_gaussian: float


def kinds(run: Run) -> list[Kind]:
    """The overview of each kind of streams in a run."""
    found = [(kind, [row for row in run.end if row.kind == kind]) for kind in _HEADINGS]
    return [_kind(kind, rows, run) for kind, rows in found if rows]


def answer(run: Run) -> str:
    """Whether training drove this network to arbitrage equilibrium, in a sentence or two.

    >>> from jaynes_callbacks.instruments.record import Records
    >>> row = Record(name="fc.weight", step=9, gap=0.3, best_family="uniform")
    >>> answer(Run.measured_once("untrained", Records([row])))
    '0 of 1 streams are within 0.02 nats of a lognormal; uniform fits best most often (1 of 1).'
    """
    rows = list(run.end)
    if not rows:
        return "Nothing was recorded."
    families = Counter(law(row.best_family) for row in rows if row.best_family)
    best = "".join(
        f"; {name} fits best most often ({number} of {len(rows)})"
        for name, number in families.most_common(1)
    )
    if run.outcome != "finished":
        best = f"{best}. {_UNFINISHED[run.outcome]} after step {max(row.step for row in rows)}"
    if not run.is_trained:
        near = sum(row.gap < NEAR for row in rows)
        return f"{near} of {len(rows)} streams are within {NEAR} nats of a lognormal{best}."
    return _judged(Counter(row.verdict or "undetermined" for row in rows), len(rows)) + f"{best}."


def _judged(verdicts: Mapping[str, int], total: int) -> str:
    reached = verdicts.get("emerged", 0)
    rest = [
        f"{verdicts[name]} {phrase}"
        for name, phrase in (
            ("present from the start", "were there before training"),
            ("approaching", "came nearer without reaching it"),
            ("not emerging", "did not come nearer"),
            ("undetermined", "have too few values, or none, to say"),
        )
        if verdicts.get(name)
    ]
    what = f"{reached or 'none'} of {total} streams reached arbitrage equilibrium by training"
    return f"{_head(reached, verdicts, total)}: {', '.join([what, *rest])}"


def _head(reached: int, verdicts: Mapping[str, int], total: int) -> str:
    if reached == total:
        return "Yes"
    if verdicts.get("present from the start", 0) == total:
        return "It was there from the start"
    if verdicts.get("undetermined", 0) == total:
        return "It cannot be said"
    return "In part" if reached else "No"


def _kind(kind: str, rows: Sequence[Record], run: Run) -> Kind:
    first = [run.first[row.key] for row in rows]
    verdicts = Counter(row.verdict or "undetermined" for row in rows)
    families = Counter(law(row.best_family) for row in rows if row.best_family)
    return Kind(
        kind,
        _HEADINGS[kind],
        len(rows),
        _median([row.gap for row in first]) if run.is_trained else float("nan"),
        _median([row.gap for row in rows]),
        max((row.gap for row in rows if row.gap == row.gap), default=float("nan")),
        {name: verdicts[name] for name in VERDICTS if verdicts[name]},
        families.most_common(),
        _median([row.paper_r2 for row in rows]),
        _median([row.paper_r2_gaussian for row in rows]),
    )


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if value == value]
    return median(finite) if finite else float("nan")
