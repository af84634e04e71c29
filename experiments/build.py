"""Build the parts of a run from its configuration; Hydra makes each from its ``_target_``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.check import positive_int
from experiments.errors import ConfigError, one_sentence
from jaynes_callbacks import EquilibriumMonitor

__all__ = ["Parts", "build"]


class Parts(NamedTuple):
    """The model, the data and the trainer of a run."""

    model: L.LightningModule
    data: L.LightningDataModule
    trainer: L.Trainer

    @property
    def monitors(self) -> list[EquilibriumMonitor]:
        """The monitors among the trainer's callbacks."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, EquilibriumMonitor)]


def build(cfg: DictConfig) -> Parts:
    """Seed everything, then make data, model with its initial weights, and trainer.

    The order is fixed, so that the same seed gives the same weights whatever watches the run.

    Raises:
        ConfigError: for a wrong value anywhere, in one sentence.
    """
    _threads(cfg.threads)
    _seed(cfg.seed)
    data = _part(cfg, "data")
    model = _part(cfg, "model")
    initialise: Callable[[L.LightningModule], None] = _part(cfg, "init")
    with one_sentence("init"):
        initialise(model)
    callbacks, loggers = _mapping(cfg, "callbacks"), _mapping(cfg, "logger")
    _check_epochs(OmegaConf.select(cfg, "trainer.max_epochs"))
    trainer = _part(cfg, "trainer", callbacks=callbacks, logger=loggers or False)
    hyperparameters = OmegaConf.to_container(cfg, resolve=True)
    for logger in trainer.loggers:
        logger.log_hyperparams(hyperparameters)
    return Parts(model, data, trainer)


def _threads(threads: Any) -> None:
    if threads is not None:
        with one_sentence("threads"):
            torch.set_num_threads(positive_int("their number", threads))


def _seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed: must be an integer from 0 to {2**32 - 1}, got {seed!r}")
    L.seed_everything(seed, workers=True, verbose=False)


def _check_epochs(epochs: Any) -> None:
    """Refuse what is no integer: Lightning takes any type, and fails an assertion later."""
    if epochs is not None and (not isinstance(epochs, int) or isinstance(epochs, bool)):
        raise ConfigError(f"trainer.max_epochs: must be an integer, -1 for no end, got {epochs!r}")


def _part(cfg: DictConfig, key: str, **more: Any) -> Any:
    with one_sentence(key):
        return instantiate(cfg[key], _convert_="all", **more)


def _mapping(cfg: DictConfig, key: str) -> list[Any]:
    """Make each part of a mapping of names to ``_target_``; none of an absent or empty one."""
    with one_sentence(key):
        parts = instantiate(cfg.get(key) or {}, _convert_="all")
    for name, part in parts.items():
        if part is None or isinstance(part, str | int | float | dict | list):
            raise ConfigError(f"{key}.{name}: expected a mapping with a _target_, got {part!r}")
    return list(parts.values())
