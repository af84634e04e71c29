"""Neurons: how much of the spread of the activations lies between them, and what lies within.

In a network of ReLUs a neuron's incoming weights may be multiplied by any positive number, and its
outgoing ones divided by it: y_j → λ_j y_j, and the network computes the same function.  So a
lognormal law of all activations of a layer may be a law of the λ_j alone.  `neuron_share` says how
much of the variance of ln y the λ_j could account for; the figures within neurons do not depend on
them.

Power sums of ln y are kept for each neuron (`counts.log_powers`), of the same values that
`magnitudes` counts: ln y of a ReLU, ln|z·y| of other functions.  What a neuron is (a channel of a
map, or a feature) is decided by the layer before the activation (`probes.neurons`).  Formulas:
`statistics.neurons`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from jaynes_callbacks.counts.log_powers import POWERS
from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, Slot, State
from jaynes_callbacks.instruments.magnitudes import IOTA_VALUES_PER_CALL
from jaynes_callbacks.instruments.ranks import is_alone
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.ledger import pack_counts, restore_counts
from jaynes_callbacks.probes.neurons import LogPowers
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.records.text import count_text
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.statistics.neurons import NeuronStatus, neuron_moments

__all__ = ["MOST_NEURONS", "NeuronRow", "Neurons"]

#: Neurons of a stream that are measured; of more, some at a constant stride.  The relative standard
#: error of a variance between so many is √(2/2048) = 3 %.
MOST_NEURONS = 2048


def _count_text(row: "NeuronRow") -> str:
    return count_text(row.n)


@dataclass(frozen=True, eq=False)
class NeuronRow(Row):
    """How the activations of one stream vary within and between its neurons."""

    variable: str = column("", "y (ReLU) or z*y: whose logarithm varies", "")
    shape: tuple[int, ...] = column("", "of one sample's activation; empty if compiled", ())
    n: int = column("values", "finite, non-zero", 0, shown=True, text=_count_text)
    neurons: int = column("neurons", "measured: channels of maps, features", 0, shown=True)
    dead_neurons: int = column(
        "neurons", "of these without a finite, non-zero value", 0, shown=True
    )
    neuron_share: float = column(
        "1", "share of the variance of ln y between neurons", label="share between", curve=True
    )
    between_std: float = column("ln y", "standard deviation of the neurons' means of ln y")
    within_std: float = column("ln y", "standard deviation of ln y within neurons", curve=True)
    within_skew: float = column("1", "skewness of ln y within neurons", curve=True)
    within_kurtosis: float = column("1", "excess kurtosis of ln y within neurons", curve=True)
    status: str = column("", "ok, or the reason of each nan", NeuronStatus.OK.reason)


class Neurons(Instrument[NeuronRow]):
    """Records how activations vary within and between neurons.

    All ranks add their power sums to the same fixed number of places for each stream, of which most
    are empty in narrow layers: 96 KiB.  So the sums of streams of any width go into the one packed
    collective of a record, and the ranks need not tell each other how many neurons a stream has.

    Values of one sample that depend on each other (the places of a map) make `neuron_share` too
    large by at most the share that the mean of one neuron has by chance.

    Args:
        values_per_call: most values measured of one activation call.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for a number of values that is not positive.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
        >>> with Recorder(model, instruments="neurons") as recorder:
        ...     _ = model(torch.randn(512, 64))
        ...     (row,) = recorder.record()["neurons"]
        >>> row.name, row.neurons, row.dead_neurons, row.neuron_share < 0.1
        ('1', 32, 0, True)
    """

    name = "neurons"
    schema = Schema(
        NeuronRow,
        "neurons",
        "Neurons",
        ahead=("kind", "name", "step", "n", "neurons", "dead_neurons"),
        invariant=("n", "neurons", "dead_neurons", "within_*"),
    )
    quantities: ClassVar = {"powers": Quantity((MOST_NEURONS, POWERS))}

    def __init__(
        self, *, values_per_call: int = IOTA_VALUES_PER_CALL, cadence: Cadence | None = None
    ) -> None:
        if not isinstance(values_per_call, int) or values_per_call < 1:
            raise ValueError(f"values_per_call must be a positive integer, got {values_per_call!r}")
        super().__init__(cadence)
        self._limit = values_per_call
        self._listened = False

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Find the modules in whose forward an activation may be applied."""
        super().attach(model, selection)
        self._watch = ActivationWatch(
            model,
            selection.admits,
            self._limit,
            reading=LogPowers(MOST_NEURONS),
            activations=selection.activations,
        )
        self._watch.attach()

    def detach(self) -> None:
        """Take every hook off."""
        self._watch.detach()

    def open(self, *, one_forward: bool = False) -> None:
        """Measure activations from here on."""
        self._watch.open(one_forward=one_forward)
        self._listened = True

    def close(self) -> None:
        """Cease to measure activations, until the next `open`."""
        self._watch.close()

    @property
    def wants_forward(self) -> bool:
        """True if no activations have been watched since the last record."""
        return not self._listened

    @property
    def coverage(self) -> Coverage:
        """The activations that are watched; they appear with their first forward."""
        ledger = self._watch.ledger
        return Coverage(tuple(ledger.streams), tuple(ledger.skipped))

    # Recording ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Do nothing: the first record has the activations of the first forward."""

    def collect(self) -> State:
        """Return the power sums of all forwards since the last record."""
        self._listened = False
        with self._watch.paused():
            taken = self._watch.ledger.take()
        slots = [Slot(stream) for stream in taken.streams]
        return State(slots, {"powers": taken.counts.sum(1)}, [True] * len(slots))

    def compute(self, moments: Sequence[Moment]) -> list[Frame[NeuronRow]]:
        """Compare variances within neurons and between them."""
        with self._watch.paused():
            return [self._frame(each) for each in moments]

    def _frame(self, moment: Moment) -> Frame[NeuronRow]:
        """Make the frame of one moment; streams that have seen no value have no row."""
        seen = moment.state["powers"][:, :, 0].sum(-1) > 0
        moment = moment._replace(state=moment.state.take(seen.nonzero().flatten().tolist()))
        found = neuron_moments(moment.state["powers"])
        streams = [slot.stream for slot in moment.state.slots]
        return self.frame(
            moment,
            {
                "variable": [stream.variable for stream in streams],
                "shape": [stream.shape for stream in streams],
                "n": found.n,
                "neurons": found.neurons,
                "dead_neurons": found.dead,
                "neuron_share": found.share,
                "between_std": found.between,
                "within_std": found.within,
                "within_skew": found.skew,
                "within_kurtosis": found.kurtosis,
                "status": [NeuronStatus(each).reason for each in found.status.tolist()],
            },
        )

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what was summed since the last record."""
        return {"summed": pack_counts(self._watch.ledger) if self._listened else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        # A checkpoint holds what the first rank had summed: several ranks begin anew.
        if state.get("summed") is not None and is_alone():
            self._listened = True
            restore_counts(self._watch.ledger, state["summed"], 0)
