"""Find the parameters of a run in the files that Lightning or Hydra left beside its dataset."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaynes_callbacks.records.regular import read_text

__all__ = ["choices_apart", "choices_of", "is_seed", "parameters_of", "shortest", "varying"]

#: Files of Lightning's loggers and of Hydra; the nearest one with parameters counts.
_FILES = ("hparams.yaml", ".hydra/config.yaml")
_LEVELS_ABOVE = 2
#: Most bytes of such a file, which takes seconds to parse, and most values, each alias counted.
_MOST_YAML, _MOST_VALUES = 1 << 18, 100_000
#: File with what Hydra's command line changed.
_OVERRIDES = ".hydra/overrides.yaml"
#: Parts of the names of parameters that are places on the disk: they change no result.
_PLACES = ("dirpath", "output_dir", "save_dir", "paths.", "hydra.", "data.path", "launcher")


def parameters_of(dataset: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of parameters by dotted names; empty where nothing is known.

    Args:
        dataset: whose folder, or one of the two above it, may hold ``hparams.yaml`` or
            ``.hydra/config.yaml``.
        description: of the run, which may have the model's own hyperparameters.
    """
    known = dict(_leaves(description.get("hyperparameters") or {}))
    for place in _around(dataset):
        for name in _FILES:
            if found := dict(_leaves(_read(place / name))):
                return {**known, **found}
    return known


def choices_of(dataset: Path) -> dict[str, Any]:
    """Return what Hydra's command line changed, such as ``{"init": "laplace", "seed": "1"}``."""
    for place in _around(dataset):
        if isinstance(told := _read(place / _OVERRIDES), list):
            pairs = (str(one).lstrip("+~").partition("=") for one in told)
            return {name: value for name, _, value in pairs}
    return {}


def _around(dataset: Path) -> list[Path]:
    """Return the folders, from the dataset's on upwards, in which a framework leaves its files."""
    folder = dataset.resolve().parent
    return [folder, *folder.parents][: _LEVELS_ABOVE + 1]


def varying(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of parameters that differ between runs, places on the disk excepted."""
    names = dict.fromkeys(name for run in runs for name in run)
    return [
        name
        for name in names
        if not any(place in name for place in _PLACES)
        and len({str(run.get(name)) for run in runs}) > 1
    ]


def choices_apart(
    choices: Sequence[Mapping[str, Any]], parameters: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Return the choices of some runs if they tell them apart as well as all parameters do.

    Args:
        choices: what was changed on each run's command line.
        parameters: all parameters of each run.

    Returns:
        The choices, or else the parameters.
    """
    if not all(choices):
        return parameters
    names, others = _varied(choices), _varied(parameters)
    chosen = [tuple(map(choice.get, names)) for choice in choices]
    whole = [tuple(str(each.get(name)) for name in others) for each in parameters]
    pairs = set(zip(chosen, whole, strict=True))
    return choices if len(set(chosen)) == len(pairs) else parameters


def _varied(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in varying(runs) if not is_seed(name)]


def shortest(name: str, names: Sequence[str]) -> str:
    """Return as many of a dotted name's last parts as distinguish it from the others."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        short = ".".join(parts[-length:])
        if sum(other == short or other.endswith("." + short) for other in names) == 1:
            return short
    return name


def is_seed(name: str) -> bool:
    """Tell whether a parameter is a seed: runs that differ in it repeat one condition.

    >>> is_seed("data.split_seed"), is_seed("seed"), is_seed("model.width")
    (True, True, False)
    """
    return "seed" in name.rsplit(".", 1)[-1].lower()


def _read(file: Path) -> Any:
    """Parse a YAML file; empty if it cannot be read, or has tags of its own program."""
    try:
        text = read_text(file, _MOST_YAML)
        # A loader without tags of its own: it makes builtins only.
        return yaml.load(text, _BoundedLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}


class _BoundedLoader(yaml.SafeLoader):
    """Refuses documents that aliases make far larger than their text ("billion laughs").

    Python holds an aliased value once, but whatever follows the references, as merging keys and
    printing do, meets it each time.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, and count the values that it stands for."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if node is None:
            return node
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("a value contains itself")
        if not is_alias:
            pairs = node.value if isinstance(node.value, list) else []
            parts = [
                part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))
            ]
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
        if self._sizes[id(node)] > _MOST_VALUES:
            raise yaml.YAMLError(f"it stands for more than {_MOST_VALUES:,} values")
        return node


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _leaves(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part
