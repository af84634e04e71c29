"""Write and read ``result.json``, which is in the folder of every finished run and of no other.

A run whose folder holds one is not run again, so that an interrupted sweep goes on where it
stopped.
"""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.errors import ConfigError, one_sentence

__all__ = [
    "FILE",
    "Result",
    "choices",
    "finished",
    "flat",
    "identity",
    "newest_dataset",
    "versions",
]

FILE = "result.json"
_PACKAGES = ("torch", "lightning", "numpy", "scipy", "hydra-core", "jaynes-callbacks")
#: Keys that do not change the result: places on the disk, and the metric of a sweeper.
_PLACES = ("paths", "data.path", "ckpt_path", "optimized_metric")
#: Groups that choose how a run is started, not what it computes.
_HOW_IT_IS_RUN = ("hydra", "launcher", "sweeper")


@dataclass(frozen=True)
class Result:
    """The result of one run.

    Attributes:
        config: what was run, without places on the disk.
        choices: the option chosen of every group of ``conf/``; empty outside of a command.
        metrics: everything that was logged at the end, by name; nan where it was not finite.
        dataset: the monitor's records, relative to the run's folder; None without any.
        seconds: from the first part built to the last metric.
        versions: of Python, the packages that compute, and the machine.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    metrics: dict[str, float]
    dataset: str | None
    seconds: float
    versions: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write the file into a folder, whole or not at all."""
        metrics = {name: _finite(value) for name, value in self.metrics.items()}
        content = {**self.__dict__, "metrics": metrics}
        temporary = folder / f".{FILE}.tmp"
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        os.replace(temporary, folder / FILE)  # noqa: PTH105

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """Read the result of a finished run.

        Raises:
            ValueError: if the folder's file is no result.
        """
        try:
            content = json.loads((folder / FILE).read_text())
            metrics = content.pop("metrics")
            numbers = {name: math.nan if one is None else one for name, one in metrics.items()}
            return cls(metrics=numbers, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{folder / FILE} is no result of a run ({error}); remove it, and run again"
            ) from error


def finished(cfg: DictConfig, folder: Path) -> Result | None:
    """Return the result of this run if it was finished in this folder before.

    A run that resumes a checkpoint may go on in the same folder by another configuration.

    Args:
        cfg: what is to be run.
        folder: where.

    Raises:
        ConfigError: if the folder holds the result of another configuration.
    """
    if not (folder / FILE).is_file():
        return None
    with one_sentence("resuming"):
        result = Result.read(folder)
    before, now = flat(result.config), flat(identity(cfg))
    differing = sorted(key for key in before | now if before.get(key) != now.get(key))
    if differing and cfg.get("ckpt_path") is not None:
        return None
    if differing:
        raise ConfigError(
            f"{folder} holds the finished run of another configuration, which differs in "
            f"{', '.join(differing[:5])}; remove that folder, or choose another name="
        )
    return result


def identity(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration without places: equal for equal runs.

    Args:
        cfg: composed from ``conf/train.yaml`` or ``conf/survey.yaml``.
    """
    cfg = cfg.copy()
    with one_sentence("configuration"):
        # Values derived from it, such as dirpath, are then equal in every folder.
        OmegaConf.update(cfg, "paths.output_dir", ".")
        everything: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for place in _PLACES:
        *parents, name = place.split(".")
        inside = everything
        for parent in parents:
            inside = inside.get(parent) or {}
        inside.pop(name, None)
    # As `Result.read` returns it.
    plain: dict[str, Any] = json.loads(json.dumps(everything))
    return plain


def choices() -> dict[str, str]:
    """Return the option chosen of each group, by the group's name; empty outside Hydra."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {
        str(group): str(option)
        for group, option in chosen.items()
        if option is not None and not str(group).startswith(_HOW_IT_IS_RUN)
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value of a nested configuration by its dotted key.

    >>> flat({"model": {"net": {"width": 4, "shape": [1, 8]}}})
    {'model.net.width': 4, 'model.net.shape': [1, 8]}
    """
    return dict(_leaves(config, prefix))


def _leaves(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def newest_dataset(folder: Path) -> str | None:
    """Return the name of the dataset that was written to last: after a run, its own.

    An earlier run that was interrupted in the same folder may have left another.
    """
    parts = folder.glob("jaynes*/part-*.parquet")
    newest = max(parts, key=lambda part: part.stat().st_mtime_ns, default=None)
    return None if newest is None else newest.parent.name


def versions() -> dict[str, str]:
    """Return the versions of all packages on which a run's last digit may depend."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "machine": f"{platform.system()} {platform.machine()}", "cpu": _cpu()}


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} threads" if names else platform.processor()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
