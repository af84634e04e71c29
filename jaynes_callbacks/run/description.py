"""What a reader of a run's files wants to know of it: where, with what, and what was watched."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jaynes_callbacks._version import __version__
from jaynes_callbacks.recorder import Recorder

__all__ = ["describe"]

_PACKAGES = ("torch", "lightning", "pytorch-lightning", "numpy", "scipy", "torchmetrics")
_OF_TRAINER = ("max_epochs", "max_steps", "precision", "world_size", "accumulate_grad_batches")


def describe(trainer: Any, recorder: Recorder) -> dict[str, Any]:
    """Builtins by name: run, versions, machine, trainer, hyperparameters and coverage.

    Args:
        trainer: of a fit that goes on.
        recorder: of its model.
    """
    coverage = recorder.coverage
    module = trainer.lightning_module
    return {
        "run": recorder.run,
        "versions": {"jaynes_callbacks": __version__, "python": platform.python_version()}
        | _versions(),
        "machine": f"{platform.system()} {platform.machine()}, {module.device}",
        "model": type(module).__name__,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "trainer": {name: getattr(trainer, name, None) for name in _OF_TRAINER},
        "hyperparameters": dict(getattr(module, "hparams", {})),
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
