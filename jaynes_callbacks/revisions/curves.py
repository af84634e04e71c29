"""Write the curves of a dataset to TensorBoard, as a monitor would have during training."""

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from jaynes_callbacks.instruments.record import SCHEMA
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import read_records
from jaynes_callbacks.sinks.delivery import Delivery
from jaynes_callbacks.sinks.histograms import HistogramSink
from jaynes_callbacks.sinks.loggers import LoggerSink
from jaynes_callbacks.sinks.summary import SummarySink
from jaynes_callbacks.sinks.tensorboard import TensorBoardSink

__all__ = ["write_curves"]


def write_curves(dataset: Path, folder: Path) -> None:
    """Write all records of a dataset; event files that this wrote before are replaced.

    Args:
        dataset: the directory ``jaynes/`` of a run.
        folder: for TensorBoard.

    Raises:
        OSError, ValueError: if the dataset cannot be read, or the folder not be written.
    """
    for earlier in folder.glob("events.out.tfevents.*.jaynes"):
        earlier.unlink()
    records = read_records(dataset)
    delivery = Delivery(
        [SummarySink(), LoggerSink(), HistogramSink(), TensorBoardSink()], {"magnitudes": SCHEMA}
    )
    with SummaryWriter(str(folder), filename_suffix=".jaynes") as writer:
        delivery.open(RunContext(run=dataset.parent.name, loggers=[writer]))
        steps = np.unique(records["step"])
        for step in steps:
            delivery.take("magnitudes", records.take(records["step"] == step))
        delivery.close({"magnitudes": records.take(records["step"] == steps[0])})
