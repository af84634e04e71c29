"""Define an instrument: it turns what happens in a model into state, and state into frames.

An instrument is one file.  It declares the columns that it finds (`schema`) and the tensors that it
collects (`quantities`), and says how to do both (`collect`, `compute`); CONTRIBUTING shows one.
Everything else (ranks, cadence, curves, dataset, report, resuming) follows from that.

`collect` runs on every rank, on the device, without waiting for it; `compute` runs where records
are made and may see many moments at once.  An instrument that fails says so once and costs no other
instrument a record.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from jaynes_callbacks.instruments.laws import Laws, fit_laws
from jaynes_callbacks.probes.batches import ShownBatch
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Array, ColumnType, R, Schema
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.schedule import Cadence

__all__ = [
    "Counted",
    "FittingInstrument",
    "Instrument",
    "Moment",
    "Quantity",
    "Reduction",
    "Slot",
    "State",
]

Reduction = Literal["sum", "max", "min"]


@dataclass(frozen=True)
class Quantity:
    """One of an instrument's tensors: a value, or an array of values, for each stream.

    Attributes:
        shape: of one stream's value.
        dtype: of the values.
        reduction: how the ranks' values of a shared stream become one; None for what each rank
            keeps as it knows it.
    """

    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float64
    reduction: Reduction | None = "sum"

    def empty(self, number: int, device: torch.device | str = "cpu") -> Tensor:
        """Return what no rank has contributed to yet, for so many streams."""
        shape = (number, *self.shape)
        if self.reduction is None:
            unknown = torch.nan if self.dtype.is_floating_point else 0
            return torch.full(shape, unknown, dtype=self.dtype, device=device)
        if self.reduction == "sum":
            return torch.zeros(shape, dtype=self.dtype, device=device)
        of_type = torch.finfo if self.dtype.is_floating_point else torch.iinfo
        limits = of_type(self.dtype)
        neutral = limits.min if self.reduction == "max" else limits.max
        return torch.full(shape, neutral, dtype=self.dtype, device=device)


class Slot(NamedTuple):
    """A row of a state: a stream, or one of several groups of samples of it."""

    stream: Stream
    group: int = 0


@dataclass(frozen=True)
class State:
    """Tensors that an instrument has collected at one moment, a row for each slot.

    Attributes:
        slots: what each row belongs to.
        tensors: by the quantities' names, ``[slots, …]``.
        shared: of each slot, whether the ranks hold parts of its values, so that only together
            they know it; what is not shared every rank holds alike.
    """

    slots: Sequence[Slot]
    tensors: Mapping[str, Tensor]
    shared: Sequence[bool] = field(default_factory=tuple)

    @classmethod
    def of(
        cls, streams: Sequence[Stream], tensors: Mapping[str, Tensor], *, shared: bool = False
    ) -> "State":
        """Make the state of streams that are all shared among ranks, or all held whole."""
        return cls([Slot(stream) for stream in streams], tensors, [shared] * len(streams))

    @classmethod
    def empty(
        cls, quantities: Mapping[str, Quantity], device: torch.device | str = "cpu"
    ) -> "State":
        """Make a state of no streams."""
        return cls((), {name: each.empty(0, device) for name, each in quantities.items()}, ())

    @property
    def streams(self) -> list[Stream]:
        """The streams, each once."""
        return list(dict.fromkeys(slot.stream for slot in self.slots))

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return next((each.device for each in self.tensors.values()), torch.device("cpu"))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, rows: Sequence[int]) -> "State":
        """Return some of the slots."""
        return State(
            [self.slots[row] for row in rows],
            {name: each[list(rows)] for name, each in self.tensors.items()},
            [self.shared[row] for row in rows],
        )

    def where(self, keep: Callable[[str], bool]) -> "State":
        """Return the slots of the streams whose names are to be kept."""
        return self.take([row for row, slot in enumerate(self.slots) if keep(slot.stream.name)])

    def joined(self, *others: "State") -> "State":
        """Return these slots, then the others', on one device."""
        states = [self, *others]
        device = next((each.device for each in states if len(each)), self.device)
        return State(
            [slot for each in states for slot in each.slots],
            {
                name: torch.cat([each.tensors[name].to(device) for each in states])
                for name in self.tensors
            },
            [shared for each in states for shared in each.shared],
        )


class Moment(NamedTuple):
    """A state, and when it was collected.

    Attributes:
        state: what all ranks together know.
        run: name of the run.
        step: optimizer step.
        epoch: epoch.
    """

    state: State
    run: str = ""
    step: int = 0
    epoch: int = 0


class Instrument(ABC, Generic[R]):
    """One kind of measurement.

    Attributes:
        name: by which it is asked for, and which its folder and its state bear.
        schema: the columns of its frames.
        quantities: the tensors of its states, the same on every rank.
        lends: fields of its rows that the main table has too, in the rows of the same streams.
        cadence: when it is recorded; None for whenever its recorder is.
        only_due_forwards: whether a training loop has it listen to the forwards of those steps only
            after which it is recorded.
        first_forward: whether it listens to the first forward too, which its first record shows.
        start: first row of each stream, by its key; its recorder fills it in.
        model: the module that is watched, once attached.
        selection: name patterns and smallest size of what to watch, once attached.
    """

    name: ClassVar[str]
    schema: Schema[R]
    quantities: ClassVar[Mapping[str, Quantity]]
    lends: ClassVar[tuple[str, ...]] = ()
    only_due_forwards: ClassVar[bool] = False
    first_forward: ClassVar[bool] = False
    cadence: Cadence | None
    start: dict[tuple[str, str], R]
    model: nn.Module
    selection: Selection
    _untouched: State | None = None
    _failed_begin: Exception | None = None

    def __init__(self, cadence: Cadence | None = None) -> None:
        self.cadence = cadence
        self.start = {}

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Take the model to watch; wrong arguments raise here, for nothing has begun yet."""
        self.model, self.selection = model, selection

    def detach(self) -> None:
        """Let go of the model: no hook is left on it."""

    @abstractmethod
    def collect(self) -> State:
        """Return what there is now, and begin anew what is collected between two records.

        Called on every rank at the same moments; what it launches on the device is not waited for.
        """

    @abstractmethod
    def compute(self, moments: Sequence[Moment]) -> list[Frame[R]]:
        """Return one frame for each moment, in their order.

        Streams about which a state holds nothing have no row.
        """

    @property
    def coverage(self) -> Coverage:
        """The streams that are measured, what is left out, and why."""
        return Coverage((), ())

    # Roles: what an instrument may want to be told of ---------------------------------------

    def begin(self) -> None:
        """Collect the untouched model, for the first record.

        In a training loop the first record is made after the first forward, and so after the first
        update; it shall show the state before both.  If that cannot be collected, there is no first
        record: what is collected later is not untouched.
        """
        self._untouched, self._failed_begin = None, None
        try:
            self._untouched = self.collect_untouched()
        except Exception as error:
            self._failed_begin = error
            raise

    def collect_untouched(self) -> State:
        """Return what the first record shows of the model before anything happens to it."""
        return self.collect()

    @property
    def has_untouched(self) -> bool:
        """True if `begin` found anything that no record has shown yet."""
        return self._untouched is not None and len(self._untouched) > 0

    def take_untouched(self) -> State | None:
        """Return the state of `begin` and forget it; None if there is none, or it was taken."""
        state, self._untouched, self._failed_begin = self._untouched, None, None
        return state

    def collect_once(self) -> State:
        """Return the state of `begin` the first time, then what `collect` finds.

        Raises:
            Exception: what kept `begin` from collecting, the first time.
        """
        error = self._failed_begin
        state = self.take_untouched()
        if error is not None:
            raise error
        return self.collect() if state is None else self.completed(state)

    def completed(self, untouched: State) -> State:
        """Add to the untouched model what belongs into the first record besides."""
        return untouched

    def open(self, *, one_forward: bool = False) -> None:
        """Listen to the forwards that follow, until `close`.

        Args:
            one_forward: take all until `close` as one forward, however many modules are called.
        """

    def close(self) -> None:
        """Cease to listen to forwards; the model runs without hooks."""

    def paused(self) -> AbstractContextManager[None]:
        """Let go of what slows other work down, such as a function mode, for a block."""
        return nullcontext()

    @property
    def wants_forward(self) -> bool:
        """True if a forward must be listened to before the next record is worth making."""
        return False

    @property
    def wants_batch(self) -> bool:
        """True if the next batch of training must be shown."""
        return False

    def batch_begins(self, batch: ShownBatch) -> None:
        """See a batch of training before the model does; called where `wants_batch` is True.

        Of several forwards that make one batch the first is shown.  What is read of the model here
        is that of the last update; `begin` has been called.

        Args:
            batch: whose tensors must be copied to be kept.
        """

    def before_step(self, parameters: Sequence[nn.Parameter]) -> None:
        """See gradients that are complete and unscaled, before clipping and before the update.

        Called only where a record is due after this step.

        Args:
            parameters: that are about to be updated.
        """

    def forget(self) -> None:
        """Let go of what `before_step` showed for a record that is not made."""

    # Resuming -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides `start`: CPU tensors and builtins only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; called after `attach`."""

    # ----------------------------------------------------------------------------------------

    def frame(
        self, moment: Moment, columns: Mapping[str, Tensor | Array | Sequence[Any]]
    ) -> Frame[R]:
        """Make the frame of one moment: when and which stream are filled in.

        Args:
            moment: whose slots are the rows.
            columns: by name; a value for each slot.
        """
        streams = [slot.stream for slot in moment.state.slots]
        filled: dict[str, Any] = {
            "run": [moment.run] * len(streams),
            "step": [moment.step] * len(streams),
            "epoch": [moment.epoch] * len(streams),
            "kind": [stream.kind for stream in streams],
            "name": [stream.name for stream in streams],
            **columns,
        }
        return Frame(
            self.schema,
            {name: self._array(name, values) for name, values in filled.items()},
        )

    def _array(self, name: str, values: Any) -> Array:
        type_ = self.schema.by_name[name].type
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        if type_ in (ColumnType.INTEGER, ColumnType.REAL):
            return np.asarray(values, dtype=np.int64 if type_ is ColumnType.INTEGER else float)
        packed = np.empty(len(values), dtype=object)
        for place, value in enumerate(values):
            packed[place] = value
        return packed


class Counted(Protocol):
    """What an instrument makes of its states before laws are fitted."""

    @property
    def counts(self) -> Tensor:
        """Counts on the universal grid, int64 ``[rows, 4096]``, to which laws are fitted."""
        ...


_Counted = TypeVar("_Counted", bound=Counted)


class FittingInstrument(Instrument[R], Generic[R, _Counted]):
    """An instrument that fits laws to counts.

    Its `compute` is in two halves, so that a recorder can fit the counts of all its instruments in
    one batch: a fit of a few streams costs nearly as much as one of a hundred.
    """

    @abstractmethod
    def counted(self, moments: Sequence[Moment]) -> _Counted:
        """Return what is fitted of some moments."""

    @abstractmethod
    def fitted(self, moments: Sequence[Moment], counted: _Counted, laws: Laws) -> list[Frame[R]]:
        """Return one frame for each moment, in their order.

        Args:
            moments: whose states were fitted.
            counted: what `counted` returned for them.
            laws: fitted to its counts.
        """

    def compute(self, moments: Sequence[Moment]) -> list[Frame[R]]:
        """Fit and measure some moments; see `Instrument.compute`."""
        with self.paused():
            counted = self.counted(moments)
            return self.fitted(moments, counted, fit_laws(counted.counts))
