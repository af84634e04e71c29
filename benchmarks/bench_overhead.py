"""What watching costs: time of a Trainer's loop with the monitor over the same loop without it.

The noise is the same figure of two Trainers without a monitor (see `turns`).

    python benchmarks/bench_overhead.py
"""

from turns import BATCH, EPOCHS, STEPS_PER_EPOCH, cnn, mlp, pair, quiet, summary

from jaynes_callbacks import EquilibriumMonitor

PAIRS = 5


def main() -> None:
    """Print one line per model."""
    quiet()
    print(
        f"time with the monitor at its defaults over time without; {EPOCHS} epoch of "
        f"{STEPS_PER_EPOCH} batches of {BATCH}; median and half the interquartile range of "
        f"{PAIRS} pairs"
    )
    for build in (mlp, cnn):
        watched = [pair(build, EquilibriumMonitor) for _ in range(PAIRS)]
        neither = [pair(build) for _ in range(PAIRS)]
        print(f"{build.__name__}: {summary(watched)}; two without: {summary(neither)}")


if __name__ == "__main__":
    main()
