"""What a long run costs: memory and time of a record late in a run, and reading its dataset.

100 linear layers are trained by Lightning with a record at every one of 3,000 steps, which the
dataset and a CSV logger get.  The figures are asserted, and so is the dataset: every step once, and
every row as the monitor's history has it.

    python benchmarks/bench_long.py [--steps 3000] [--layers 100] [--width 16]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from turns import quiet

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.records.parquet import read_run_id
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink, read_records
from jaynes_callbacks.sinks.loggers import LoggerSink

#: Bytes that a process may take more than at the early steps; how much longer a record may take.
MOST_GROWTH, MOST_SLOWER = 30e6, 1.2
#: Seconds to read the dataset.
MOST_SECONDS = 2.0
#: The early steps, with which the last hundred are compared.
EARLY = (400, 500)
#: Records are computed in groups; so many steps hold several groups.
_CHUNK = 10
#: Steps between two lines that tell the memory.
_SHOWN = 250


class Deep(L.LightningModule):
    """Linear layers, one after the other, each added to what goes into it."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean square of the difference to another batch of noise."""
        values, wanted = batch
        for layer in self.layers:
            values = values + layer(values) / len(self.layers)
        return nn.functional.mse_loss(values, wanted)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, so that every weight moves at every step."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Meter(L.Callback):
    """Time of the monitor's work at each step, and memory after it.

    Two of them stand around the monitor: the first begins each measurement, the second ends it.
    """

    def __init__(self, begun: "Meter | None" = None) -> None:
        self._begun = begun
        self.now = (0.0, 0.0)
        self.wall: list[float] = []
        self.processor: list[float] = []
        self.resident: list[int] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Read the clocks."""
        self.now = time.perf_counter(), time.process_time()
        if self._begun is not None:
            self.wall.append(self.now[0] - self._begun.now[0])
            self.processor.append(self.now[1] - self._begun.now[1])
            self.resident.append(resident())
            if (step := len(self.resident)) % _SHOWN == 0:
                print(f"  step {step:5}  {self.resident[-1] / 1e6:.0f} MB", flush=True)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def per_record(seconds: list[float], steps: slice) -> float:
    """Return the time of a record: the median over some steps' means."""
    chosen = seconds[steps]
    chunks = [chosen[place : place + _CHUNK] for place in range(0, len(chosen), _CHUNK)]
    return statistics.median(map(statistics.mean, chunks))


def train(folder: Path, steps: int, layers: int, width: int) -> tuple[EquilibriumMonitor, Meter]:
    """Fit with a record at every step."""
    L.seed_everything(1, verbose=False)
    first = Meter()
    last = Meter(first)
    monitor = EquilibriumMonitor(
        kinds="weight",
        every_n_epochs=None,
        every_n_steps=1,
        dirpath=folder,
        sinks=[LoggerSink(), DatasetSink()],
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[first, monitor, last],
        logger=CSVLogger(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = [(torch.randn(8, width), torch.randn(8, width)) for _ in range(steps)]
    trainer.fit(Deep(layers, width), torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return monitor, last


def timed(read: Callable[[], object]) -> tuple[float, float, object]:
    """Return the shortest wall clock and processor time of three readings, and what was read."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter(), time.process_time()
        found = read()
        seconds.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    wall, processor = map(min, zip(*seconds, strict=True))
    return wall, processor, found


def main() -> None:
    """Print the figures and fail where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        monitor, meter = train(Path(folder), options.steps, options.layers, options.width)
        print(f"{options.layers} layers, a record at every one of {options.steps} steps")
        failures = report_run(meter)
        failures += report_reading(Path(folder), monitor, options.steps, options.layers)
    if failures:
        raise SystemExit("missed: " + "; ".join(failures))


def report_run(meter: Meter) -> list[str]:
    """Print memory and time of a record; return what is missed."""
    early, late = slice(*EARLY), slice(-100, None)
    # Reading a part that is joined by a record, or a spill of the history, comes and goes.
    start, end = (statistics.median(meter.resident[steps]) for steps in (early, late))
    growth, highest = end - start, max(meter.resident[EARLY[1] :]) - max(meter.resident[early])
    print(
        f"  memory  {start / 1e6:.0f} MB at steps {EARLY[0]} to {EARLY[1]}, "
        f"{growth / 1e6:+.1f} MB in the last 100; highest {highest / 1e6:+.1f} MB"
    )
    # Other programs of the machine change the wall clock's time, and hardly the processor's.
    slower = per_record(meter.processor, late) / per_record(meter.processor, early)
    for name, seconds in (("processor", meter.processor), ("wall clock", meter.wall)):
        figures = [per_record(seconds, steps) * 1e3 for steps in (early, late)]
        print(
            f"  a record, {name:10}  {figures[0]:.1f} ms at steps {EARLY[0]} to {EARLY[1]}, "
            f"{figures[1]:.1f} ms in the last 100: {figures[1] / figures[0]:.3f}"
        )
    failures = []
    if growth > MOST_GROWTH:
        failures.append(f"memory grows by {growth / 1e6:.1f} MB")
    if slower > MOST_SLOWER:
        failures.append(f"a record takes {slower:.2f} times as long at the end")
    return failures


def report_reading(folder: Path, monitor: EquilibriumMonitor, steps: int, layers: int) -> list[str]:
    """Print the time to read the dataset, whose rows are checked; return what is missed."""
    dataset = folder / "jaynes"
    sizes = [part.stat().st_size for part in dataset.glob("*.parquet")]
    print(f"  dataset               {len(sizes)} files, {sum(sizes) / 1e6:.0f} MB")
    history = monitor.history
    readers = {
        "pandas.read_parquet": lambda: pd.read_parquet(dataset),
        "read_records(counts=False)": lambda: read_records(dataset, counts=False),
        "recall": lambda: recalled(folder, dataset, steps),
    }
    failures = []
    for name, read in readers.items():
        wall, processor, found = timed(read)
        print(f"  {name:27} {wall:.2f} s, of the processor {processor:.2f} s")
        check(found, history, steps, layers)
        # On a machine that others use as well, the processor's time is nearer to the truth.
        if min(wall, processor) > MOST_SECONDS:
            failures.append(f"{name} takes {min(wall, processor):.2f} s")
    return failures


def recalled(folder: Path, dataset: Path, step: int) -> object:
    """Return what a run that is resumed at the last step remembers."""
    run_id = read_run_id(next(iter(sorted(dataset.glob("*.parquet"))))) or ""
    sink = DatasetSink()
    context = RunContext(
        directory=folder, run_id=run_id, resumed_step=step, resumed_directory=folder
    )
    sink.open(context)
    return sink.recall(context.schemas[0])


def check(found: object, history: pd.DataFrame, steps: int, layers: int) -> None:
    """Compare what was read with the monitor's history."""
    assert len(found) == (steps + 1) * layers  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(found["step"]), np.repeat(np.arange(steps + 1), layers))  # type: ignore[index]
    for column in ("name", "n", "best_family"):
        assert np.array_equal(np.asarray(found[column]), history[column].to_numpy())  # type: ignore[index]
    np.testing.assert_array_equal(np.asarray(found["gap"]), history["gap"].to_numpy())  # type: ignore[index]


if __name__ == "__main__":
    main()
