"""Describe a run for readers of its files: machine, versions, settings, what was watched."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from jaynes_callbacks._version import __version__
from jaynes_callbacks.probes.selection import Coverage

__all__ = ["describe_run"]

_PACKAGES = ("torch", "lightning", "pytorch-lightning", "numpy", "scipy", "torchmetrics")


def describe_run(
    run: str,
    model: nn.Module,
    coverage: Coverage,
    instruments: Sequence[str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Return builtins by name: run, versions, machine, model, coverage, and further facts.

    Args:
        run: the run's name.
        model: that is watched.
        coverage: what is watched of it.
        instruments: names of those that measure it.
        more: further facts, such as hyperparameters.
    """
    device = next((str(parameter.device) for parameter in model.parameters()), "cpu")
    return {
        "run": run,
        "versions": {"jaynes_callbacks": __version__, "python": platform.python_version()}
        | _versions(),
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **more,
        "instruments": list(instruments),
        "watched": [
            {"kind": stream.kind, "name": stream.name, "aliases": list(stream.aliases)}
            for stream in coverage.watched
        ],
        "skipped": [list(skipped) for skipped in coverage.skipped],
        "note": coverage.note,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
