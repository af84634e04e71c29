"""Answer a run's question in one sentence, state the rule behind it, and sum up each kind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaynes_callbacks.instruments.record import NEAR, Records, family_label, is_by_scale
from jaynes_callbacks.instruments.verdict import VERDICTS
from jaynes_callbacks.records.schema import Array
from jaynes_callbacks.records.stream import in_order, kind_label
from jaynes_callbacks.report.runs import Run

__all__ = ["RULE", "RULE_OF_A_MOMENT", "Kind", "answer", "kinds"]

RULE = (
    f"A stream emerged if its gap ends below {NEAR} nats, below the gap of every rival law, and "
    "fell by more than twice its standard error; it was present from the start if the gap was "
    f"below {NEAR} before training; it is approaching if the gap fell but the rest does not hold. "
    "The rule was fixed before any experiment was run. By scale means that the weights come near "
    "only by the scales of rows and columns, which a network of ReLUs may have in any size."
)
#: Where a run has one record only; no verdict is passed then.
RULE_OF_A_MOMENT = (
    f"Near equilibrium is a gap below {NEAR} nats. Whether training led there, one moment cannot "
    "say: that takes the state before training."
)
_UNFINISHED = {"running": "This run goes on, or was killed,", "interrupted": "It was interrupted"}


class Kind(NamedTuple):
    """The overview of one kind of streams.

    Attributes:
        key: of the kind, such as ``weight``.
        heading: the kind's plural for people.
        number: of streams.
        start: median gap at the start, in nats; nan where there is none.
        end: median gap at the end.
        worst: greatest gap at the end.
        verdicts: number of streams of each verdict, best first.
        families: labels of the laws that fit best and their numbers of streams, most frequent
            first.
        r2: median R² by the paper's protocol.
        r2_gaussian: the same of as many Gaussian weights.
        core: median gap of the cores of weights; nan where there are none.
        core_gaussian: the same of Gaussian weights of the same shapes.
        scale_share: median share of the variance of ln w that is scales.
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
    core: float
    core_gaussian: float
    scale_share: float


def kinds(run: Run) -> list[Kind]:
    """Sum up each kind of streams of a run."""
    return [_kind(kind, run) for kind in in_order(run.end["kind"].tolist())]


def answer(run: Run) -> str:
    """Say whether training drove a network to arbitrage equilibrium, in a sentence or two.

    >>> from jaynes_callbacks.instruments.record import Record
    >>> row = Record(name="fc.weight", step=9, gap=0.3, best_family="uniform")
    >>> answer(Run.measured_once("untrained", Records([row])))
    '0 of 1 streams are within 0.02 nats of a lognormal; uniform fits best most often (1 of 1).'
    """
    total = len(run.end)
    if not total:
        return "No magnitudes were recorded." if run.instruments else "Nothing was recorded."
    best = "".join(
        f"; {name} fits best most often ({number} of {total})"
        for name, number in _best_families(run.end).most_common(1)
    )
    if run.outcome != "finished":
        best = f"{best}. {_UNFINISHED[run.outcome]} after step {run.end['step'].max()}"
    if not run.is_trained:
        near = (run.end["gap"] < NEAR).sum()
        return f"{near} of {total} streams are within {NEAR} nats of a lognormal{best}."
    return f"{_judged(_verdicts(run.end), total)}{best}.{_by_scale(run.end)}"


def _by_scale(records: Records) -> str:
    """Say how many verdicts rest on the scales of neurons, if any do."""
    number = sum(map(is_by_scale, records))
    if not number:
        return ""
    return (
        f" {number} of these verdicts {'is' if number == 1 else 'are'} by scale: rows and columns "
        "have lognormal-like factors, and without them the law is another."
    )


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


def _kind(kind: str, run: Run) -> Kind:
    start, end = run.start.select(kind=kind), run.end.select(kind=kind)
    verdicts = _verdicts(end)
    return Kind(
        kind,
        kind_label(kind),
        len(end),
        _median(start["gap"]) if run.is_trained else float("nan"),
        _median(end["gap"]),
        max(_known(end["gap"]).tolist(), default=float("nan")),
        {name: verdicts[name] for name in VERDICTS if verdicts[name]},
        _best_families(end).most_common(),
        _median(end["paper_r2"]),
        _median(end["paper_r2_gaussian"]),
        _median(end["core_gap"]),
        _median(end["core_gap_gaussian"]),
        _median(end["scale_share"]),
    )


def _verdicts(records: Records) -> Counter[str]:
    return Counter(verdict or "undetermined" for verdict in records["verdict"].tolist())


def _best_families(records: Records) -> Counter[str]:
    """Count the streams of each best family, by the family's label."""
    return Counter(family_label(name) for name in records["best_family"].tolist() if name)


def _median(values: Array) -> float:
    known = _known(values)
    return float(np.median(known)) if len(known) else float("nan")


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]
