"""Find what was varied between runs: the choices and values that differ, except the seed."""

import json
from collections.abc import Sequence

import pandas as pd

from experiments.result import Result, flat

__all__ = ["conditions", "label"]

#: What is no condition: the seed is averaged over, the name says where runs lie.
_NO_CONDITION = {"seed", "name"}


def conditions(results: Sequence[Result]) -> pd.DataFrame:
    """Return a row per run, with a column for each choice or value that was varied.

    A group's option (``init=laplace``) stands for all the values it brings.  A value of its own
    is one that differs between runs of the same options (``model.net.width``).  What another
    column decides is left out: of controls, the start that each of them chooses.

    Args:
        results: of the runs.

    Returns:
        Columns by name (of groups: the group's; of values: the dotted key), values as text or
        numbers; no columns where nothing was varied.
    """
    chosen = pd.DataFrame([result.choices for result in results]).astype(object).fillna("–")
    options = _varied(chosen)
    values = pd.DataFrame([_plain(result) for result in results])
    own = [key for key in values if key not in _NO_CONDITION and _differs(values[key], options)]
    return _without_decided(pd.concat([options, values[own]], axis=1))


def label(condition: Sequence[object], names: Sequence[str]) -> str:
    """Return a condition as it is printed: options by their names, values by their last key.

    >>> label(["laplace", 256], ["init", "model.net.width"])
    'laplace, width 256'
    """
    parts = [
        f"{name.rsplit('.', 1)[1]} {value}" if "." in name else str(value)
        for name, value in zip(names, condition, strict=True)
    ]
    return ", ".join(parts) or "all runs"


def _plain(result: Result) -> dict[str, object]:
    """Return values that can be compared and sorted; lists and the like as their text."""
    return {
        key: value if isinstance(value, str | int | float) else json.dumps(value)
        for key, value in flat(result.config).items()
    }


def _varied(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[column for column in frame if _number(frame[column]) > 1]]


def _number(values: pd.Series) -> int:
    """Count the different values, missing ones included."""
    return len(values.drop_duplicates())


def _differs(values: pd.Series, options: pd.DataFrame) -> bool:
    """Tell whether a value differs between runs that chose the same options."""
    alike = options.assign(value=values)
    number = len(options.drop_duplicates()) if len(options.columns) else 1
    return len(alike.drop_duplicates()) > number


def _without_decided(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out columns that are a function of another one with more values, or of a later one."""
    kept = list(frame.columns)
    for column in sorted(kept, key=lambda name: len(frame[[name]].drop_duplicates())):
        others = [other for other in kept if other != column]
        if any(_decides(frame[other], frame[column]) for other in others):
            kept = others
    return frame[kept]


def _decides(one: pd.Series, other: pd.Series) -> bool:
    pairs = pd.DataFrame({"one": one, "other": other})
    return len(pairs.drop_duplicates()) == _number(one)
