"""Monitor: the callback's body with the sinks a user expects, under no trainer's base class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaynes_callbacks.instruments import DEFAULT
from jaynes_callbacks.instruments.base import Instrument
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.recorder import IOTA_VALUES_PER_CALL, MIN_SIZE
from jaynes_callbacks.records.stream import IOTA, WEIGHT
from jaynes_callbacks.run.lightning import MonitorHooks
from jaynes_callbacks.run.run import IotaFrom
from jaynes_callbacks.schedule import Schedule, describe
from jaynes_callbacks.sinks.base import Sink

__all__ = ["Monitor", "default_sinks"]


def default_sinks(figures_every_n_epochs: int | None = None) -> tuple[Sink, ...]:
    """Make sinks for everything that trackers can show, the dataset, figures and the report."""
    # Here, not above: pandas, pyarrow and matplotlib are loaded when a monitor is made.
    from jaynes_callbacks.run.reporting import ReportSink
    from jaynes_callbacks.sinks.dataset import DatasetSink
    from jaynes_callbacks.sinks.figures import FigureSink
    from jaynes_callbacks.sinks.histograms import HistogramSink
    from jaynes_callbacks.sinks.loggers import LoggerSink
    from jaynes_callbacks.sinks.summary import SummarySink
    from jaynes_callbacks.sinks.tensorboard import TensorBoardSink

    return (
        SummarySink(),
        LoggerSink(),
        HistogramSink(),
        TensorBoardSink(),
        DatasetSink(),
        FigureSink(every_n_epochs=figures_every_n_epochs),
        ReportSink(),
    )


class Monitor(MonitorHooks):
    """Watches whether training drives a network to arbitrage equilibrium.

    Records how the magnitudes of the weights and the activations are distributed: the untouched
    network first (step 0), then at every epoch.  Each record holds the lognormal's gap in nats, its
    rivals' gaps, the theory's quantities and the paper's own figures.  The watched run is the
    unwatched run, to the bit.

    Args:
        instruments: what is measured: names, of `jaynes_callbacks.instruments.KNOWN`, or objects
            with a cadence of their own, such as ``Gradients(Cadence(every_n_steps=100))``.
        kinds: ``weight``, ``iota`` (activations) or both.
        include: glob patterns on stream names, e.g. ``"encoder.*"``; only these are watched.
        exclude: glob patterns on stream names that are not watched.
        min_size: weights with fewer elements are skipped.
        every_n_epochs: record at the end of every n-th epoch; None for never.
        every_n_steps: record after every n-th optimizer step as well; None for never.  With both
            None only the first and the last state are recorded.  Either may be a schedule of
            `jaynes_callbacks.schedule`, such as ``log_spaced()``, or your own function
            ``step -> bool``, which all ranks must answer alike.
        iota_every_n_batches: activations are counted in every n-th batch of an epoch, and where a
            record is due by step.
        iota_values_per_call: most values counted of one activation call, at a constant stride.
        iota_groups: groups of batches for the standard error (jackknife) of an iota's gap; 32 KiB
            per stream and group.  0: its values count as independent, which makes the error a lower
            bound.  By default eight groups where one sample gives several values of a neuron
            (convolutions, sequences), else 0.
        paper_bins: number of equal bins of the paper's protocol for weights.
        iota_from: whether ``train`` or ``validation`` forwards are counted.
        figures_every_n_epochs: draw figures at every n-th record by epoch; None for at the end.
        dirpath: where to write; by default the first logger's directory.
        sinks: replaces the default sinks (loggers, dataset, figures).

    Raises:
        ValueError: at construction for arguments out of range; at the start of ``fit`` for
            patterns that match nothing, or a `min_size` above every layer.
    """

    def __init__(
        self,
        *,
        instruments: Sequence[str | Instrument[Any]] | str | Instrument[Any] = DEFAULT,
        kinds: Sequence[str] | str = (WEIGHT, IOTA),
        include: Sequence[str] | str = "*",
        exclude: Sequence[str] | str = (),
        min_size: int = MIN_SIZE,
        every_n_epochs: int | Schedule | None = 1,
        every_n_steps: int | Schedule | None = None,
        iota_every_n_batches: int = 16,
        iota_values_per_call: int = IOTA_VALUES_PER_CALL,
        iota_groups: int | None = None,
        paper_bins: int = PAPER_BINS,
        iota_from: IotaFrom = "train",
        figures_every_n_epochs: int | None = None,
        dirpath: str | Path | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        super().__init__(
            instruments=instruments,
            kinds=kinds,
            include=include,
            exclude=exclude,
            min_size=min_size,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            iota_every_n_batches=iota_every_n_batches,
            iota_values_per_call=iota_values_per_call,
            iota_groups=iota_groups,
            paper_bins=paper_bins,
            iota_from=iota_from,
            dirpath=dirpath,
            sinks=default_sinks(figures_every_n_epochs) if sinks is None else sinks,
        )
        self._key: dict[str, Any] = {
            **self._options,
            "iota_values_per_call": iota_values_per_call,
            # None was 0 in version 0.1, whose checkpoints are resumed.
            "iota_groups": iota_groups or 0,
            "every_n_epochs": every_n_epochs,
            "every_n_steps": every_n_steps,
            "iota_every_n_batches": iota_every_n_batches,
            "iota_from": iota_from,
            "dirpath": dirpath,
        }
        if paper_bins != PAPER_BINS:
            self._key["paper_bins"] = paper_bins
        # With the default the key is that of version 0.1, whose checkpoints are resumed.
        if (names := [each.name for each in self._instruments]) != list(DEFAULT):
            self._key["instruments"] = names

    @property
    def state_key(self) -> str:
        """Tells the states of several monitors in one checkpoint apart.

        The same in every process; a function of one's own counts by its qualified name.
        """
        arguments = ", ".join(f"{name}={describe(value)}" for name, value in self._key.items())
        return f"EquilibriumMonitor({arguments})"
