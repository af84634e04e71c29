"""The callback for ``import pytorch_lightning``."""

from pytorch_lightning.callbacks import Callback

from jaynes_callbacks.run.monitor import Monitor

__all__ = ["EquilibriumMonitor"]


class EquilibriumMonitor(Monitor, Callback):  # noqa: D101
    __doc__ = Monitor.__doc__
