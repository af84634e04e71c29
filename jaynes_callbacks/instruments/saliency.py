"""Saliency: the first-order benefit of each connection and each neuron, and its distribution.

|w·∂L/∂w| is what the loss would change by, to first order, if the weight were removed (P. Molchanov
et al., arXiv 1611.06440).  Unlike |w| it is a property of the function that a network computes: it
does not change if the incoming weights and the bias of a ReLU are multiplied by a positive number
and the outgoing weights divided by it.  |z·∂L/∂z|, of pre-activations z, is the same of neurons.

A record at step t shows w_{t−1}·∇L(w_{t−1}), with the gradients as the optimizer was about to see
them (complete, unscaled, before clipping).  All columns are those of `instruments.record`; nothing
is judged, for the theory says nothing of saliency.  Only steps after which a record is due cost
anything.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from jaynes_callbacks.instruments.base import FittingInstrument, Moment, State
from jaynes_callbacks.instruments.distribution import Batch, summarise_batch, tallied
from jaynes_callbacks.instruments.laws import Laws
from jaynes_callbacks.instruments.magnitudes import IOTA_VALUES_PER_CALL
from jaynes_callbacks.instruments.record import SCHEMA, Record
from jaynes_callbacks.instruments.tally import QUANTITIES, counts_state, weights_state
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.gradients import (
    GRADIENT,
    SALIENCY,
    Gradient,
    GradientWatch,
    saliency_stream,
)
from jaynes_callbacks.probes.saliency import Saliencies
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.probes.weights import WeightValue
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Schema, medians
from jaynes_callbacks.schedule import Cadence

__all__ = ["SALIENCY", "Saliency"]


class Saliency(FittingInstrument[Record, Batch]):
    """Records how the saliencies of weights are distributed, and of activations where asked for.

    A trainer's host shows the gradients by itself.  In a loop of your own, call
    `Recorder.before_step` between ``backward`` and ``step`` (after unscaling, before clipping), in
    the iterations that end with a record only, and `Recorder.record` after the step.

    Of activations each value is a neuron's in one sample (and place), and the gradient is that of
    the loss that was differentiated: the rank's own, with a loss scale if there is one.  Neither
    changes the gap or q.  A trainer's host listens to the forwards of steps with a record only; a
    recorder of yours to all while it is open.

    Args:
        activations: whether |z·∂L/∂z| of activations is counted, by hooks on their pre-activations
            (`probes.saliency`).
        values_per_call: most values counted of one activation call.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for a number of values that is not positive.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU())
        >>> with Recorder(model, instruments=Saliency(activations=True)) as recorder:
        ...     model(torch.randn(8, 32)).square().mean().backward()
        ...     recorder.before_step(list(model.parameters()))
        ...     records = recorder.record(step=1)["saliency"]
        >>> [(record.kind, record.name, record.variable) for record in records]
        [('saliency', '0.weight', 'w·∂L/∂w'), ('saliency', '1', 'z·∂L/∂z')]
    """

    name = "saliency"
    schema = Schema(
        Record,
        "saliency",
        "Saliency",
        required=SCHEMA.required,
        ahead=("kind", "name", "step", "n", "gap", "best_family", "q"),
        keys=SCHEMA.keys,
        aggregate=medians,
        remarks=SCHEMA.remarks,
        invariant=("n", "gap*", "q", "rms", "max", "log_*", "mu", "sigma", "fit_*"),
    )
    quantities: ClassVar = QUANTITIES
    only_due_forwards = True

    def __init__(
        self,
        *,
        activations: bool = False,
        values_per_call: int = IOTA_VALUES_PER_CALL,
        cadence: Cadence | None = None,
    ) -> None:
        if not isinstance(values_per_call, int) or values_per_call < 1:
            raise ValueError(f"values_per_call must be a positive integer, got {values_per_call!r}")
        super().__init__(cadence)
        self._of_activations, self._limit = activations, values_per_call
        self._nothing = self._weights = State.empty(self.quantities)
        self._failure: Exception | None = None
        self._activations: ActivationWatch | None = None

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Take the model to watch; its parameters are found at each step that is recorded."""
        super().attach(model, selection)
        self._gradients = GradientWatch(model, selection)
        if self._of_activations:
            self._calls = Saliencies(lambda row, error: watch.withdraw(row, error))
            watch = ActivationWatch(
                model,
                selection.admits,
                self._limit,
                reading=self._calls,
                activations=selection.activations,
            )
            watch.attach()
            self._activations = watch

    def detach(self) -> None:
        """Take every hook off, and let go of what was shown."""
        self.forget()
        if self._activations is not None:
            self._activations.detach()

    def open(self, *, one_forward: bool = False) -> None:
        """Wait for the gradients of the activations that follow, if they are asked for."""
        if self._activations is not None:
            self._calls.release()
            self._activations.open(one_forward=one_forward)

    def close(self) -> None:
        """Read no more activations, until the next `open`; those that were read still wait."""
        if self._activations is not None:
            self._activations.close()

    @property
    def coverage(self) -> Coverage:
        """A stream for each trained parameter, and for each activation that has been read."""
        of_gradients = self._gradients.coverage
        weights = tuple(
            saliency_stream(stream) for stream in of_gradients.watched if stream.kind == GRADIENT
        )
        if self._activations is None:
            return Coverage(weights, of_gradients.skipped)
        ledger = self._activations.ledger
        return Coverage((*weights, *ledger.streams), (*of_gradients.skipped, *ledger.skipped))

    # Recording ------------------------------------------------------------------------------

    def before_step(self, parameters: Sequence[nn.Parameter]) -> None:
        """Count the products of weights and gradients as they are now.

        What an earlier step showed of the same parameters is dropped.  An error is raised by
        `collect`: if it were raised here, other ranks would add up a state without this rank's
        part.

        Args:
            parameters: that are about to be updated.
        """
        if self._failure is not None:
            return
        try:
            counted = self._count(self._gradients.saliency(parameters))
            stepping = self._gradients.names(parameters)
            kept = self._weights.where(lambda name: name not in stepping)
            self._weights = kept.joined(counted)
        except Exception as error:
            self._weights, self._failure = self._nothing, error

    def collect(self) -> State:
        """Return what `before_step` counted, and the activations whose gradients came since.

        Raises:
            Exception: the one that kept `before_step` from counting.
        """
        weights, failure = self._weights, self._failure
        self.forget()
        if self._activations is None:
            activations = self._nothing
        else:
            with self._activations.paused():
                taken = self._activations.ledger.take()
            activations = counts_state(taken.streams, taken.counts, taken.groups)
        if failure is not None:
            raise failure
        return weights.joined(activations)

    def counted(self, moments: Sequence[Moment]) -> Batch:
        """Return the tallies of some moments."""
        return Batch.of([tallied(moment) for moment in moments])

    def fitted(self, moments: Sequence[Moment], counted: Batch, laws: Laws) -> list[Frame[Record]]:
        """Measure, without a verdict."""
        finished = summarise_batch(counted, laws)
        return [Frame(self.schema, records.columns) for records in finished]

    def forget(self) -> None:
        """Let go of what `before_step` showed, and of activations without a gradient."""
        self._weights, self._failure = self._nothing, None
        if self._activations is not None:
            self._calls.release()

    def _count(self, values: Sequence[Gradient]) -> State:
        if not values:
            return self._nothing
        device = values[0].values.device
        unknown = torch.full((), torch.nan, dtype=torch.float64, device=device)
        return weights_state(
            [WeightValue(each.stream, each.values, each.sharded, unknown) for each in values],
            device,
        )
