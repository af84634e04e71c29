"""What was chosen for a run, from wherever its framework has left it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["choices_of", "is_seed", "parameters_of", "varying"]

#: Files beside or above a dataset, of Lightning's loggers and of Hydra, the nearest first.
_FILES = ("hparams.yaml", ".hydra/config.yaml")
_LEVELS_ABOVE = 2
#: What was written on the command line of a run of Hydra's.
_OVERRIDES = ".hydra/overrides.yaml"
#: Where things lie changes nothing that comes out.
_PLACES = ("dirpath", "output_dir", "save_dir", "paths.", "hydra.", "data.path", "launcher")


def parameters_of(dataset: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Chosen values by dotted names; empty where nothing is known.

    Args:
        dataset: whose folder, or one of the two above it, may hold ``hparams.yaml`` or
            ``.hydra/config.yaml``.
        description: of the run, which may know the model's own hyperparameters.
    """
    known = dict(_leaves(description.get("hyperparameters") or {}))
    for place in _around(dataset):
        for name in _FILES:
            if found := dict(_leaves(_read(place / name))):
                return {**known, **found}
    return known


def choices_of(dataset: Path) -> dict[str, Any]:
    """What a run of Hydra's was told on its command line: ``{"init": "laplace", "seed": "1"}``."""
    for place in _around(dataset):
        if isinstance(told := _read(place / _OVERRIDES), list):
            pairs = (str(one).lstrip("+~").partition("=") for one in told)
            return {name: value for name, _, value in pairs}
    return {}


def _around(dataset: Path) -> list[Path]:
    """The dataset's folder and those above it in which a framework leaves its files."""
    folder = dataset.resolve().parent
    return [folder, *folder.parents][: _LEVELS_ABOVE + 1]


def varying(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that are not the same in all runs, but for places on the disk."""
    names = dict.fromkeys(name for run in runs for name in run)
    return [
        name
        for name in names
        if not any(place in name for place in _PLACES)
        and len({str(run.get(name)) for run in runs}) > 1
    ]


def is_seed(name: str) -> bool:
    """Whether a parameter makes repetitions of one condition, no condition of its own.

    >>> is_seed("data.split_seed"), is_seed("seed"), is_seed("model.width")
    (True, True, False)
    """
    return "seed" in name.rsplit(".", 1)[-1].lower()


def _read(file: Path) -> Any:
    """A file that cannot be read, or has tags that only its own program knows, says nothing."""
    try:
        return yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _leaves(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part
