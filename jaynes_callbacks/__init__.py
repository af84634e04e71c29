"""Watch whether training drives a network to arbitrage equilibrium.

The way the data goes, one direction, no way back::

    tensor ──> counts on one fixed grid ──> statistics ──> record ──> sinks
               (grid, histogram)            (statistics)   (summary,  (sinks)
                                                            record)
    sources:   weights of a model in training, activations through hooks
    sinks:     Lightning loggers, a Parquet dataset, figures

One pass over each tensor, integer work only; from there on the cost no longer depends on the size
of the network.  Counts add, over batches, steps, ranks and runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaynes_callbacks._version import __version__

if TYPE_CHECKING:
    from jaynes_callbacks.api import analyse
    from jaynes_callbacks.counts.metric import MagnitudeHistogram
    from jaynes_callbacks.instruments.record import Record, Records
    from jaynes_callbacks.recorder import Recorder
    from jaynes_callbacks.run.lightning import EquilibriumMonitor

__all__ = [
    "EquilibriumMonitor",
    "MagnitudeHistogram",
    "Record",
    "Recorder",
    "Records",
    "__version__",
    "analyse",
]

#: Public names and where they live; each is loaded when it is first asked for.
_HOMES = {
    "EquilibriumMonitor": "jaynes_callbacks.run.lightning",
    "MagnitudeHistogram": "jaynes_callbacks.counts.metric",
    "Record": "jaynes_callbacks.instruments.record",
    "Recorder": "jaynes_callbacks.recorder",
    "Records": "jaynes_callbacks.instruments.record",
    "analyse": "jaynes_callbacks.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
