"""Watch whether training drives a network to arbitrage equilibrium.

Data goes one way::

    model in training ──> probes ─┐
                                  ├──> counts on one fixed grid ──> statistics ──> records ──> sinks
    checkpoint files ──> files ───┘

Each tensor is counted in one pass of integer work; from there on the cost does not depend on the
size of the network.  Counts add: over batches, steps, ranks and runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaynes_callbacks._version import __version__

if TYPE_CHECKING:
    from jaynes_callbacks.api import analyse, compare, measure_checkpoint
    from jaynes_callbacks.counts.metric import MagnitudeHistogram
    from jaynes_callbacks.instruments.record import Record, Records
    from jaynes_callbacks.lightning import EquilibriumMonitor
    from jaynes_callbacks.recorder import Recorder
    from jaynes_callbacks.run.loop import watch

__all__ = [
    "EquilibriumMonitor",
    "MagnitudeHistogram",
    "Record",
    "Recorder",
    "Records",
    "__version__",
    "analyse",
    "compare",
    "measure_checkpoint",
    "watch",
]

#: Public names and the modules that define them; each is imported when it is first asked for.
_HOMES = {
    "EquilibriumMonitor": "jaynes_callbacks.lightning",
    "MagnitudeHistogram": "jaynes_callbacks.counts.metric",
    "Record": "jaynes_callbacks.instruments.record",
    "Recorder": "jaynes_callbacks.recorder",
    "Records": "jaynes_callbacks.instruments.record",
    "analyse": "jaynes_callbacks.api",
    "compare": "jaynes_callbacks.api",
    "measure_checkpoint": "jaynes_callbacks.api",
    "watch": "jaynes_callbacks.run.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
