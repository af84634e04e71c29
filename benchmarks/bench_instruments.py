"""What each instrument costs: batches of training that one record takes, fits included.

Ten records in an epoch, against the same loop without a monitor (see `turns`); whatever an
instrument does in forwards and backwards between two records is part of it.  `neurons` listens to
one batch a record here, as `magnitudes` does.

    python benchmarks/bench_instruments.py
"""

import statistics
from collections.abc import Callable
from functools import partial

from turns import STEPS_PER_EPOCH, Pair, cnn, mlp, pair, quiet

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.base import Instrument
from jaynes_callbacks.instruments.gradients import Gradients
from jaynes_callbacks.instruments.magnitudes import Magnitudes
from jaynes_callbacks.instruments.neurons import Neurons
from jaynes_callbacks.instruments.saliency import Saliency

RECORDS, PAIRS = 10, 3
EVERY = STEPS_PER_EPOCH // RECORDS
INSTRUMENTS: dict[str, Callable[[], Instrument]] = {  # type: ignore[type-arg]
    "magnitudes": Magnitudes,
    "gradients": Gradients,
    "neurons": Neurons,
    "saliency": Saliency,
    "saliency, with activations": partial(Saliency, activations=True),
}


def _monitor(instrument: Callable[[], Instrument]) -> EquilibriumMonitor:  # type: ignore[type-arg]
    """Make a monitor that records by one instrument and writes nothing."""
    return EquilibriumMonitor(
        instruments=instrument(),
        every_n_steps=EVERY,
        every_n_epochs=None,
        iota_every_n_batches=STEPS_PER_EPOCH,
        sinks=[],
    )


def _batches(found: Pair) -> float:
    """Return what one record takes, in batches of the unwatched run."""
    return (found.ratio - 1) * STEPS_PER_EPOCH / RECORDS


def main() -> None:
    """Print one line per model and instrument."""
    quiet()
    print(f"batches of training that a record takes; median and range of {PAIRS} pairs")
    for build in (mlp, cnn):
        print(build.__name__)
        for name, instrument in INSTRUMENTS.items():
            costs = [_batches(pair(build, partial(_monitor, instrument))) for _ in range(PAIRS)]
            print(
                f"  {name:28} {statistics.median(costs):5.2f}  "
                f"({min(costs):.2f} to {max(costs):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
