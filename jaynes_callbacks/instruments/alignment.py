"""Alignment: how well each layer's tangent kernel fits the labels, and which layer's fits best.

The tangent kernel of a layer says how alike two samples are to a step of training in that layer's
parameters.  Its centred alignment with the labels is 1 where the layer can only move samples of one
class together and samples of different classes apart.  Where its kernel knows nothing of the
classes it is near `chance`, the mean of shuffled labels.  The Equilibrium Hypothesis expects one
maximum along depth, near the L^{3/5}-th of L layers.  Formulas and sources: `statistics.alignment`;
the forward and the backwards that a record takes besides those of the training: `probes.tangents`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, Slot, State
from jaynes_callbacks.instruments.ranks import is_alone, summed
from jaynes_callbacks.probes.batches import Samples, ShownBatch
from jaynes_callbacks.probes.selection import Coverage, Selection, Skipped
from jaynes_callbacks.probes.tangents import (
    MOST_OUTPUTS,
    Tangents,
    UnfitError,
    layers_of,
    tangent_kernels,
)
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.statistics.alignment import (
    AlignmentStatus,
    centred_alignment,
    chance_alignment,
    label_kernel,
    predicted_depth,
)

__all__ = ["LAYER", "MOST_SAMPLES", "NETWORK", "Alignment", "AlignmentRow"]

#: Kind of the rows of layers, and of the one row of all.
LAYER, NETWORK = "layer", "network"
#: Samples whose tangent kernels are computed, by default.
MOST_SAMPLES = 256
#: A layer whose gradients reach other samples by more than this, in units of their own, is refused.
_LEAK = 1e-4

_NOT_UNTOUCHED = (
    "alignment has no record of the untouched network: its sharded weights cannot be gathered "
    "twice in one forward"
)

#: Calls a model on inputs and returns its outputs, a row for each sample.
Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True, eq=False)
class AlignmentRow(Row):
    """How well one layer's tangent kernel fits the labels; of the network: which layer's best."""

    alignment: float = column(
        "1",
        "centred alignment of the tangent kernel with the labels; of the network the largest",
        curve=True,
    )
    chance: float = column(
        "1",
        "mean alignment of shuffled labels; of the network that of the layer of the maximum",
        label="by chance",
        shown=True,
    )
    depth: int = column(
        "layers", "place of the layer, from 1; of the network that of the largest", 0, shown=True
    )
    layers: int = column("layers", "L: how many were measured", 0, shown=True)
    maximum: str = column("", "layer with the largest alignment", "", shown=True)
    relative_depth: float = column("1", "its depth / L^{3/5}", label="depth/L^3/5", shown=True)
    samples: int = column("samples", "whose kernels were computed", 0, shown=True)
    outputs: int = column("outputs", "differentiated: classes, or projections of them", 0)
    status: str = column("", "ok, or the reason of each nan", AlignmentStatus.OK.reason, shown=True)


class _Found(NamedTuple):
    """What one look at the model found: alignments by layer, or why there are none."""

    layers: Sequence[str]
    alignments: Tensor
    chances: Tensor
    leaks: Tensor
    outputs: int
    status: Tensor


class Alignment(Instrument[AlignmentRow]):
    """Records how well the tangent kernel of each layer is aligned with the labels.

    The same labelled samples serve all records of a run: `probes`, or the first of the first
    training batch, if its host shows one with labels: Lightning's batch where it is a pair or names
    its labels, ``labels=`` of a Hugging Face model or of a model that a loop calls.  A plain loop
    shows inputs alone; its rows say in `status` what to give.  Copies of the samples are kept, at
    most 64 MiB, and are part of a checkpoint.

    A record takes one more forward of these samples, in evaluation mode and without autocast, and a
    backward for each output.  Among several ranks each makes the forward, with samples of its own,
    equally many, since forwards may wait for each other; rank 0's numbers count.

    Args:
        probes: inputs and labels.  Inputs are one argument of the model, a tuple of them, or a
            mapping of them by name.  Labels are integers ``[samples]`` (classes), or one row of
            numbers for each sample.
        samples: most that are taken, at least 2.  Labels of C classes that have nothing to do with
            the inputs are aligned with them by up to √((C − 1)/(samples − 1)): see `chance`.
        forward: called with the model and the inputs, returns one row of outputs for each sample;
            by default the model itself is called, and its logits are taken.
        outputs: most that are differentiated, at least 1; more are projected at random onto so
            many (`statistics.alignment.random_outputs`).
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for numbers out of range, or probes that do not fit each other.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> _ = torch.manual_seed(0)
        >>> x, labels = torch.randn(64, 8), torch.arange(64) % 2
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
        ... )
        >>> with Recorder(model, instruments=Alignment(probes=(x, labels))) as recorder:
        ...     first, last, network = recorder.record()["alignment"]
        >>> first.name, last.name, network.maximum in ("0", "2")
        ('0', '2', True)
        >>> network.alignment == max(first.alignment, last.alignment)
        True
    """

    name = "alignment"
    schema = Schema(
        AlignmentRow,
        "alignment",
        "Alignment of layers with the labels",
        ahead=("kind", "name", "step", "depth", "layers", "maximum", "relative_depth"),
        invariant=("layers", "samples", "outputs"),
    )
    # Rank 0 alone contributes, so that a sum is what it found.
    quantities: ClassVar = {
        "alignment": Quantity(),
        "chance": Quantity(),
        "leak": Quantity(),
        "outputs": Quantity(dtype=torch.int64),
        "samples": Quantity(dtype=torch.int64),
        "depth": Quantity(dtype=torch.int64),
        "status": Quantity(dtype=torch.int64),
    }

    def __init__(
        self,
        *,
        probes: tuple[Any, Tensor] | None = None,
        samples: int = MOST_SAMPLES,
        forward: Forward | None = None,
        outputs: int = MOST_OUTPUTS,
        cadence: Cadence | None = None,
    ) -> None:
        for name, number, least in (("samples", samples, 2), ("outputs", outputs, 1)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}")
        super().__init__(cadence)
        self._most, self._outputs, self._forward = samples, outputs, forward
        self._given = self._samples = None if probes is None else _given(probes, samples)
        self._forget_model()

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Take the model; its layers are found at each record, for models change."""
        super().attach(model, selection)
        self._samples = self._given
        self._forget_model()
        self._network = Stream(NETWORK, NETWORK)
        self._layers, self._unfit = layers_of(model, selection)

    def _forget_model(self) -> None:
        self._has_seen_batch = self._has_measured = False
        self._status, self._reason = AlignmentStatus.NO_PROBES, ""
        self._skipped: list[Skipped] = []
        self._note = ""

    @property
    def coverage(self) -> Coverage:
        """The layers, the network, and what cannot be measured of them."""
        skipped = dict.fromkeys([*self._unfit, *self._skipped])
        lost = {each.name for each in skipped}
        streams = [Stream(LAYER, each.name) for each in self._layers if each.name not in lost]
        if self._reason:
            skipped[Skipped(self._network.name, self._reason)] = None
        return Coverage((*streams, self._network), tuple(skipped), self._note)

    @property
    def wants_batch(self) -> bool:
        """True until there are samples."""
        return self._samples is None and not self._has_seen_batch

    def batch_begins(self, batch: ShownBatch) -> None:
        """Keep samples of the first batch, and measure the model that has not seen it yet.

        Args:
            batch: of training.
        """
        if not self.wants_batch:
            return
        parameters = list(self.model.parameters())
        self._has_seen_batch = True
        if batch.labels is None:
            self._fail(AlignmentStatus.NO_LABELS)
        elif batch.labels.dim() == 0:
            self._fail(AlignmentStatus.LABELS_UNFIT)
        else:
            try:
                self._samples = Samples.of(batch.inputs, batch.labels, self._most)
            # Whatever it is: other ranks wait for what follows.
            except Exception as error:
                self._fail(AlignmentStatus.NO_PROBES, str(error))
        if batch.is_in_forward and any(hasattr(each, "placements") for each in parameters):
            # FSDP has gathered weights for the forward, which another one would take away.
            self._note = _NOT_UNTOUCHED
        elif self._untouched is not None:
            self._untouched = self.collect()

    # Recording ------------------------------------------------------------------------------

    def collect_untouched(self) -> State:
        """Return what there is before the first batch: nothing, unless samples were given."""
        return self.collect() if self._samples is not None else State.empty(self.quantities)

    def collect(self) -> State:
        """Compute the tangent kernels as they are now, and their alignments."""
        found = self._found() if self._all_can() else _nothing(self._status)
        is_first = is_alone() or dist.get_rank() == 0
        return self._state(found) if is_first else State.empty(self.quantities)

    def _all_can(self) -> bool:
        """Tell whether every rank has samples, and keep as many as each of them has.

        A forward may wait for the other ranks, which gather weights or outputs in theirs: all make
        it, with equally many samples, or none.
        """
        if is_alone():
            return True
        can = self._samples is not None and (self._has_measured or not self._reason)
        own = len(self._samples) if can and self._samples is not None else 0
        numbers = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=_device(self.model))
        numbers[dist.get_rank()] = own
        least = int(summed(numbers).min())
        if least < 2:
            if can:
                self._fail(AlignmentStatus.FAILED, "another rank has no two samples")
            return False
        if self._samples is not None and own > least:
            self._samples = Samples.of(self._samples.inputs, self._samples.labels, least)
        return True

    def compute(self, moments: Sequence[Moment]) -> list[Frame[AlignmentRow]]:
        """Find the layer of the largest alignment, for each moment."""
        return [self._frame(each) for each in moments]

    def _found(self) -> _Found:
        """Look at the model; what keeps it from being looked at becomes a status."""
        if self._samples is None or (self._reason and not self._has_measured):
            return _nothing(self._status)
        try:
            self._samples = self._samples.to(_device(self.model))
            found = self._look(self._samples)
        except UnfitError as error:
            self._fail(error.status, str(error))
        except Exception as error:
            self._fail(AlignmentStatus.FAILED, f"{type(error).__name__}: {error}")
        else:
            self._has_measured, self._reason = True, ""
            return found
        return _nothing(self._status)

    def _look(self, samples: Samples) -> _Found:
        labels = samples.labels
        if labels.dim() > 1 and labels[0].numel() == 1:
            labels = labels.flatten()
        self._layers, self._unfit = layers_of(self.model, self.selection)
        call = samples.call if self._forward is None else partial(_called, self._forward, samples)
        tangents = tangent_kernels(self.model, self._layers, call, len(samples), self._outputs)
        self._skipped = tangents.skipped
        if not tangents.layers:
            raise UnfitError(AlignmentStatus.NO_LAYERS)
        return _aligned(tangents, labels)

    def _fail(self, status: AlignmentStatus, reason: str = "") -> None:
        self._status, self._reason = status, reason or status.reason

    def _state(self, found: _Found) -> State:
        """Make a state of a row for each layer and one for the network."""
        number = len(found.layers)
        streams = [*(Stream(LAYER, name) for name in found.layers), self._network]
        device = found.alignments.device
        unknown = torch.full((1,), torch.nan, dtype=torch.float64, device=device)

        def all_rows(value: int) -> Tensor:
            return torch.full((number + 1,), value, device=device)

        tensors = {
            "alignment": torch.cat([found.alignments, unknown]),
            "chance": torch.cat([found.chances, unknown]),
            "leak": torch.cat([found.leaks, torch.zeros_like(unknown)]),
            "outputs": all_rows(found.outputs),
            "samples": all_rows(0 if self._samples is None else len(self._samples)),
            "depth": torch.arange(1, number + 2, device=device),
            "status": found.status.expand(number + 1).clone(),
        }
        return State([Slot(each) for each in streams], tensors, [True] * len(streams))

    def _frame(self, moment: Moment) -> Frame[AlignmentRow]:
        state = moment.state
        alignments, chances = (state[name].cpu().numpy().copy() for name in ("alignment", "chance"))
        is_layer = np.array([slot.stream.kind == LAYER for slot in state.slots], dtype=bool)
        status = np.array(state["status"].tolist(), dtype=np.int64)
        depth = np.array(state["depth"].tolist(), dtype=np.int64)
        mixes = np.nan_to_num(state["leak"].cpu().numpy()) > _LEAK
        alignments[mixes] = chances[mixes] = np.nan
        ok = int(AlignmentStatus.OK)
        unknown = is_layer & (status == ok) & ~np.isfinite(alignments)
        status[unknown] = np.where(
            mixes[unknown], AlignmentStatus.DEPENDENT, AlignmentStatus.CONSTANT
        )
        layers = int(is_layer.sum())
        names = [slot.stream.name for slot in state.slots]
        known = np.flatnonzero(is_layer & np.isfinite(alignments))
        maximum, relative = [""] * len(names), np.full(len(names), np.nan)
        for row in np.flatnonzero(~is_layer):
            depth[row] = 0
            if len(known):
                best = known[alignments[known].argmax()]
                for each in (alignments, chances, depth):
                    each[row] = each[best]
                maximum[row] = names[best]
                relative[row] = depth[best] / predicted_depth(layers)
            elif status[row] == ok:
                status[row] = status[is_layer].max(initial=AlignmentStatus.NO_LAYERS)
        return self.frame(
            moment,
            {
                "alignment": alignments,
                "chance": chances,
                "depth": depth,
                "layers": [layers] * len(names),
                "maximum": maximum,
                "relative_depth": relative,
                "samples": state["samples"],
                "outputs": state["outputs"],
                "status": [self._reason_of(AlignmentStatus(each)) for each in status.tolist()],
            },
        )

    def _reason_of(self, status: AlignmentStatus) -> str:
        """Return the reason, with all that is known of it in this process."""
        return self._reason if self._reason and status is self._status else status.reason

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the samples, so that a resumed run goes on with the same."""
        return {"samples": None if self._samples is None else self._samples.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the samples of `state_dict`, unless others were given."""
        if self._samples is None and state.get("samples") is not None:
            self._samples = Samples.from_state_dict(state["samples"]).to(_device(self.model))


def _given(probes: Any, most: int) -> Samples:
    """Check the samples that a user gave, and copy the first of them."""
    if not isinstance(probes, Sequence) or len(probes) != 2 or not isinstance(probes[1], Tensor):
        raise ValueError(
            f"probes must be a pair of inputs and a tensor of labels, got {type(probes).__name__}"
        )
    if probes[1].dim() == 0:
        raise ValueError("labels of probes must have a row for each sample, got a single number")
    return Samples.of(probes[0], probes[1], most)


def _called(forward: Forward, samples: Samples, model: nn.Module) -> Any:
    return forward(model, samples.inputs)


def _nothing(status: AlignmentStatus) -> _Found:
    empty = torch.zeros(0, dtype=torch.float64)
    return _Found((), empty, empty, empty, 0, torch.tensor(int(status)))


def _aligned(tangents: Tangents, labels: Tensor) -> _Found:
    """Compare the kernels with that of the labels."""
    of_labels = label_kernel(labels).to(tangents.kernels.device)
    alignments = centred_alignment(tangents.kernels, of_labels)
    chances = chance_alignment(tangents.kernels, of_labels)
    constant = centred_alignment(of_labels, of_labels).isnan()
    status = constant.long() * int(AlignmentStatus.LABELS_EQUAL)
    return _Found(tangents.layers, alignments, chances, tangents.leaks, tangents.outputs, status)


def _device(model: nn.Module) -> torch.device:
    return next((each.device for each in model.parameters()), torch.device("cpu"))
