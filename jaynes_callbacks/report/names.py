"""Name the runs of a report so that no two are alike, and tell attempts at one run apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaynes_callbacks.records.naming import telling_parts
from jaynes_callbacks.report.parameters import choices_apart, shortest, varying
from jaynes_callbacks.report.runs import Run

__all__ = ["last_attempts", "named"]

#: Most parameters of which a name is made; of more, the path tells runs apart better.
_MOST_PARAMETERS = 4


def named(runs: Sequence[Run]) -> list[Run]:
    """Return the runs under names that tell them apart.

    That is what was chosen differently for them (``lr=0.003, seed=2``), or else the telling parts
    of their paths; both, where one is not enough.
    """
    if len(runs) < 2:
        return list(runs)
    conditions = _conditions(runs)
    if conditions:
        number = Counter(conditions)
        names = [
            each if number[each] == 1 else f"{each}, {path}"
            for each, path in zip(conditions, _paths(runs), strict=True)
        ]
    else:
        names = _paths(runs)
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def last_attempts(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without earlier attempts at them.

    Datasets beside each other that watched the same streams of a model with the same parameters
    are attempts at one run: the second began where the first lay.  The last one that finished
    counts, or else the last one.
    """
    attempts: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        attempts.setdefault(_identity(run) or number, []).append(run)
    chosen = {id(_last(group)) for group in attempts.values()}
    return [run for run in runs if id(run) in chosen]


def _last(group: Sequence[Run]) -> Run:
    ordered = sorted(group, key=lambda run: _number(run.place))
    finished = [run for run in ordered if run.outcome == "finished"]
    return (finished or ordered)[-1]


def _identity(run: Run) -> Any:
    """Return what attempts at one run have in common; None where it is not known."""
    if run.place is None or "watched" not in run.description:
        return None
    watched = frozenset((each["kind"], each["name"]) for each in run.description["watched"])
    parameters = tuple(sorted((name, str(value)) for name, value in run.parameters.items()))
    return run.place.absolute().parent, watched, frozenset(run.instruments), parameters


def _number(place: Path | None) -> int:
    """Return the number of a dataset beside others: 2 of ``jaynes-2``."""
    end = "" if place is None else place.name.rpartition("-")[2]
    return int(end) if end.isdigit() else 0


def _conditions(runs: Sequence[Run]) -> list[str]:
    """Return the parameters in which each run differs from others; none if that is too much."""
    chosen: Sequence[Mapping[str, Any]] = choices_apart(
        [run.choices for run in runs], [run.parameters for run in runs]
    )
    names = varying(chosen)
    if not 0 < len(names) <= _MOST_PARAMETERS or not all(run.parameters for run in runs):
        return []
    return [
        ", ".join(f"{shortest(name, names)}={_text(each.get(name))}" for name in names)
        for each in chosen
    ]


def _paths(runs: Sequence[Run]) -> list[str]:
    places = [run.place for run in runs]
    known = [place.absolute() for place in places if place is not None]
    if len(known) < len(places):
        number = Counter(run.name for run in runs)
        return [
            run.name if number[run.name] == 1 else f"{run.name} ({place})"
            for place, run in enumerate(runs, start=1)
        ]
    return telling_parts(known)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
