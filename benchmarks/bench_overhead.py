"""What watching costs: time of a Trainer's loop with the monitor over the same loop without it.

At the monitor's defaults; with the activations of every batch counted; with a record, all fits
included, at every step.  The noise is the same figure of two Trainers without a monitor (see
`turns`).

    python benchmarks/bench_overhead.py
"""

from collections.abc import Callable
from functools import partial

import lightning as L
from turns import BATCH, EPOCHS, STEPS_PER_EPOCH, cnn, mlp, pair, quiet, summary

from jaynes_callbacks import EquilibriumMonitor

WATCHERS: dict[str, tuple[int, Callable[[], L.Callback] | None]] = {
    "two without": (5, None),
    "defaults": (7, EquilibriumMonitor),
    "activations of every batch": (3, partial(EquilibriumMonitor, iota_every_n_batches=1)),
    "a record at every step": (
        2,
        partial(EquilibriumMonitor, every_n_steps=1, iota_every_n_batches=1),
    ),
}


def main() -> None:
    """Print one line per model and cadence."""
    quiet()
    print(
        f"time with the monitor over time without; {EPOCHS} epoch of {STEPS_PER_EPOCH} batches of "
        f"{BATCH}; median and half the interquartile range of some pairs"
    )
    for build in (mlp, cnn):
        print(build.__name__)
        for name, (number, watcher) in WATCHERS.items():
            pairs = [pair(build, watcher) for _ in range(number)]
            print(f"  {name:28} {summary(pairs)}  ({number} pairs)", flush=True)


if __name__ == "__main__":
    main()
