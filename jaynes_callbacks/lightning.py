"""The callback for ``import lightning``."""

from lightning.pytorch.callbacks import Callback

from jaynes_callbacks.run.monitor import Monitor

__all__ = ["EquilibriumMonitor"]


class EquilibriumMonitor(Monitor, Callback):  # noqa: D101
    __doc__ = Monitor.__doc__
