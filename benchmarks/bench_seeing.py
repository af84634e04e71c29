"""What looking at a thousand streams costs: the report of a hundred records, and the loggers.

The records are real ones of a few layers; the page must show every stream, and TensorBoard's own
reader must find no more tags than promised.

    python benchmarks/bench_seeing.py
"""

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaynes_callbacks.instruments.distribution import Tallied, summarise
from jaynes_callbacks.instruments.record import Records
from jaynes_callbacks.instruments.tally import tally_of_tensors
from jaynes_callbacks.records.stream import WEIGHT, Stream
from jaynes_callbacks.report import read_run, write_report
from jaynes_callbacks.run.arguments import default_sinks
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink
from jaynes_callbacks.sinks.figures import FigureSink

STREAMS, RECORDS = 1000, 100
SECONDS, TAGS = 20.0, 300
LAWS = 8


def templates() -> Records:
    """Real records of a few layers, from uniform to heavy tails."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(LAWS, 100, 200, generator=generator)
    tensors = [value.abs() ** (0.5 + 0.25 * power) for power, value in enumerate(values)]
    streams = [Stream(WEIGHT, str(number), (100, 200)) for number in range(LAWS)]
    return summarise([Tallied(streams, tally_of_tensors(tensors))])[0]


def snapshot(rows: Records, number: int) -> Records:
    """The records of all streams at one step; each stream goes through the laws."""
    return Records(
        rows[(stream + number // 10) % LAWS].replace(
            name=f"layers.{stream}.mlp.weight", step=10 * number, epoch=number
        )
        for stream in range(STREAMS)
    )


def report(rows: Records, folder: Path) -> None:
    """Seconds from the dataset to the page, and the page's size."""
    sink = DatasetSink()
    sink.open(RunContext(directory=folder))
    for number in range(RECORDS):
        sink.write(snapshot(rows, number), Records())
    since = time.perf_counter()
    path = write_report([read_run(folder / "jaynes")], folder / "report.html")
    took = time.perf_counter() - since
    text = path.read_text()
    assert text.count("<tr id=") == STREAMS, "not every stream is on the page"
    print(
        f"report of {STREAMS} streams and {RECORDS} records: {took:.1f} s (promised: {SECONDS}), "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )


def loggers(rows: Records, folder: Path) -> None:
    """Milliseconds of one record in each logger, and TensorBoard's tags."""
    made: dict[str, Callable[[], Any]] = {
        "TensorBoard": lambda: TensorBoardLogger(folder, default_hp_metric=False),
        "CSV": lambda: CSVLogger(folder),
    }
    for name, make in made.items():
        logger = make()
        sinks = [sink for sink in default_sinks() if not isinstance(sink, DatasetSink | FigureSink)]
        for sink in sinks:
            sink.open(RunContext(loggers=(logger,)))
        took = [one_record(sinks, snapshot(rows, number)) for number in range(20)]
        logger.save()
        print(f"one record of {STREAMS} streams, {name}: {1e3 * statistics.median(took):.0f} ms")
        if name == "TensorBoard":
            tags = EventAccumulator(logger.log_dir).Reload().Tags()
            ours = len(tags["scalars"]) + len(tags["histograms"])
            assert ours <= TAGS, f"{ours} tags"
            print(f"  {ours} tags of scalars and histograms (promised, figures included: {TAGS})")


def one_record(sinks: list[Any], records: Records) -> float:
    """Seconds."""
    since = time.perf_counter()
    for sink in sinks:
        sink.write(records, Records())
    return time.perf_counter() - since


def main() -> None:
    """Print all figures."""
    warnings.filterwarnings("ignore", module="lightning")
    os.environ["WANDB_SILENT"] = "true"
    rows = templates()
    with tempfile.TemporaryDirectory() as folder:
        loggers(rows, Path(folder) / "loggers")
        report(rows, Path(folder) / "run")


if __name__ == "__main__":
    main()
