"""Describe a run for readers of its files: machine, versions, settings, what was watched."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jaynes_callbacks._version import __version__
from jaynes_callbacks.recorder import Recorder

__all__ = ["describe"]

_PACKAGES = ("torch", "lightning", "pytorch-lightning", "numpy", "scipy", "torchmetrics")


def describe(recorder: Recorder, of_host: Mapping[str, Any]) -> dict[str, Any]:
    """Return builtins by name: run, versions, machine, model, coverage, and what the host tells.

    Args:
        recorder: of the run's model.
        of_host: further facts, such as hyperparameters.
    """
    coverage, model = recorder.coverage, recorder.model
    device = next((str(parameter.device) for parameter in model.parameters()), "cpu")
    return {
        "run": recorder.run,
        "versions": {"jaynes_callbacks": __version__, "python": platform.python_version()}
        | _versions(),
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **of_host,
        "instruments": list(recorder.instruments),
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
