"""Coalitions: do strong neurons of an activation map stand together?

Each map of an activation [N, C, H, W] is a game of its places, which are worth their outputs and
the products with their neighbours'.  A place is strong if its Shapley value reaches the first
quartile of the positive ones of its map; a neighbourhood of n × n places wins if all of its places
are strong.  The Gibbs law of a neighbourhood's on and off states is enumerated; its columns are
means over neighbourhoods with any activation.  Formulas, source and what is this package's own
choice: `statistics.coalitions`.

Streams without maps (features, sequences) are named in the coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, Slot, State
from jaynes_callbacks.instruments.laws import OK
from jaynes_callbacks.instruments.magnitudes import IOTA_VALUES_PER_CALL
from jaynes_callbacks.instruments.ranks import is_alone
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.coalitions import (
    MAP_SUMS,
    PICTURE,
    SIZE_SUMS,
    MapReading,
    coalition_parts,
)
from jaynes_callbacks.probes.ledger import pack_counts, restore_counts
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import (
    ColumnType,
    Integers,
    Row,
    Schema,
    column,
    counts_column,
)
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.statistics.coalitions import SIZES

__all__ = ["CoalitionRow", "Coalitions"]

_DEAD = "every map is zero or not finite"
_FEW = "too few strong places for a winning {0} x {0}, wherever they stood"
_SILENT = "no activation in any {0} x {0} that was enumerated"
_SMALL = "maps are smaller than {0} x {0}"
#: Over what columns of the Gibbs law are means.
_MEAN = "mean over neighbourhoods that are not silent"
#: Columns of the Gibbs law, one for each size, in the order of the sums.
_OF_LAW = ("energy", "entropy", "total_correlation", "all_on")


@dataclass(frozen=True, eq=False)
class CoalitionRow(Row):
    """The coalitions in the maps of one activation."""

    shape: tuple[int, ...] = column("", "of one sample's activation", ())
    maps: int = column("maps", "of samples and channels", 0, shown=True)
    dead_maps: int = column("maps", "left out: zero or not finite", 0, shown=True)
    strong: float = column("1", "share of a map's places that are strong", shown=True)
    winning_2: float = column("1", "share of 2 x 2 neighbourhoods all of whose places are strong")
    winning_3: float = column(
        "1", "share of 3 x 3 neighbourhoods all of whose places are strong",
        label="winning coalitions", curve=True,
    )  # fmt: skip
    cohesion_2: float = column("1", "winning_2 over its mean if strong places stood at random")
    cohesion_3: float = column(
        "1", "winning_3 over its mean if strong places stood at random", label="cohesion",
        curve=True,
    )  # fmt: skip
    silent_2: float = column("1", "share of 2 x 2 neighbourhoods without any activation")
    silent_3: float = column("1", "share of 3 x 3 neighbourhoods without any activation")
    energy_2: float = column("1", f"energy of a 2 x 2 with all places on; {_MEAN}")
    energy_3: float = column("1", f"energy of a 3 x 3 with all places on; {_MEAN}")
    entropy_2: float = column(
        "nats", f"entropy of the Gibbs law of 2 x 2, per place, ln 2 at most; {_MEAN}"
    )
    entropy_3: float = column(
        "nats", f"entropy of the Gibbs law of 3 x 3, per place, ln 2 at most; {_MEAN}",
        label="entropy of coalitions", curve=True,
    )  # fmt: skip
    total_correlation_2: float = column(
        "nats", f"total correlation of the places of a 2 x 2, per place; {_MEAN}"
    )
    total_correlation_3: float = column(
        "nats", f"total correlation of the places of a 3 x 3, per place; {_MEAN}"
    )
    all_on_2: float = column("1", f"probability that all places of a 2 x 2 are on; {_MEAN}")
    all_on_3: float = column("1", f"probability that all places of a 3 x 3 are on; {_MEAN}")
    picture_shape: tuple[int, ...] = column("", "channels, height, width of the picture", ())
    picture: Integers = counts_column(
        "",
        "one sample's places: 0 weak, 1 strong, 2 in a winning 2 x 2, 3 in a winning 3 x 3",
        ColumnType.CODES,
    )
    status: str = column("", "ok, or the reason of each nan", OK)


class Coalitions(Instrument[CoalitionRow]):
    """Records how strong places of activation maps stand together, with a picture of one sample.

    Only maps are read: activations of four dimensions whose neurons are channels.  Nothing is read
    inside compiled models; the coverage names both.

    Args:
        alpha: factor of the activations in the energy, in units of each map's root mean square.
        beta: factor of the products of neighbours; 0 for independent players.
        values_per_call: most values measured of one activation call.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for a number of values that is not positive, or a factor that is not finite.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        >>> with Recorder(model, instruments="coalitions") as recorder:
        ...     _ = model(torch.randn(16, 1, 12, 12))
        ...     (row,) = recorder.record()["coalitions"]
        >>> row.name, row.maps, row.picture_shape
        ('1', 64, (4, 10, 10))
    """

    name = "coalitions"
    schema = Schema(
        CoalitionRow,
        "coalitions",
        "Coalitions in maps",
        ahead=("kind", "name", "step", "maps", "dead_maps", "strong"),
        # All that is computed of a map is computed in the map's own unit.
        invariant=(
            "maps",
            "dead_maps",
            "strong",
            *(
                f"{name}_{size}"
                for name in ("winning", "cohesion", "silent", *_OF_LAW)
                for size in SIZES
            ),
        ),
    )
    quantities: ClassVar = {
        "maps": Quantity((MAP_SUMS,)),
        "sizes": Quantity((len(SIZES), SIZE_SUMS)),
        # Each rank keeps its own; the first one's is written.
        "picture": Quantity((PICTURE,), reduction=None),
    }
    only_due_forwards = first_forward = True

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        values_per_call: int = IOTA_VALUES_PER_CALL,
        cadence: Cadence | None = None,
    ) -> None:
        if not isinstance(values_per_call, int) or values_per_call < 1:
            raise ValueError(f"values_per_call must be a positive integer, got {values_per_call!r}")
        if not (isfinite(alpha) and isfinite(beta)):
            raise ValueError(f"alpha and beta must be finite, got {alpha!r} and {beta!r}")
        super().__init__(cadence)
        self._alpha, self._beta, self._limit = float(alpha), float(beta), values_per_call
        self._listened = False

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Find the modules in whose forward an activation may be applied."""
        super().attach(model, selection)
        self._watch = ActivationWatch(
            model,
            selection.admits,
            self._limit,
            reading=MapReading(self._alpha, self._beta, self._leave_out),
            activations=selection.activations,
        )
        self._watch.attach()

    def detach(self) -> None:
        """Take every hook off."""
        self._watch.detach()

    def open(self, *, one_forward: bool = False) -> None:
        """Measure maps from here on."""
        self._watch.open(one_forward=one_forward)
        self._listened = True

    def close(self) -> None:
        """Cease to measure maps, until the next `open`."""
        self._watch.close()

    @property
    def wants_forward(self) -> bool:
        """True if no activations have been watched since the last record."""
        return not self._listened

    @property
    def coverage(self) -> Coverage:
        """The maps that are watched; they appear with their first forward."""
        ledger = self._watch.ledger
        return Coverage(tuple(ledger.streams), tuple(ledger.skipped))

    def _leave_out(self, row: int, reason: str) -> None:
        if stream := self._watch.ledger.stream_of(row):
            self._watch.ledger.skip(stream.name, reason)

    # Recording ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Do nothing: the first record has the activations of the first forward."""

    def collect(self) -> State:
        """Return the sums of all forwards since the last record, and the last one's picture."""
        self._listened = False
        with self._watch.paused():
            taken = self._watch.ledger.take()
            parts = coalition_parts(taken.counts.sum(1))
        slots = [Slot(stream) for stream in taken.streams]
        return State(slots, parts._asdict(), [True] * len(slots))

    def compute(self, moments: Sequence[Moment]) -> list[Frame[CoalitionRow]]:
        """Divide the sums by the numbers of what was summed."""
        with self._watch.paused():
            return [self._frame(each) for each in moments]

    def _frame(self, moment: Moment) -> Frame[CoalitionRow]:
        """Make the frame of one moment; streams that have seen no map have no row."""
        seen = moment.state["maps"][:, 0] > 0
        moment = moment._replace(state=moment.state.take(seen.nonzero().flatten().tolist()))
        maps, dead, strong = moment.state["maps"].unbind(-1)
        alive = maps - dead
        pictures = [_picture(each) for each in moment.state["picture"].cpu()]
        columns: dict[str, Any] = {
            "shape": [slot.stream.shape for slot in moment.state.slots],
            "maps": maps.long(),
            "dead_maps": dead.long(),
            "strong": strong / alive,
            "picture_shape": [shape for shape, _ in pictures],
            "picture": [levels for _, levels in pictures],
        }
        missing: list[list[str]] = [[] if number else [_DEAD] for number in alive.tolist()]
        for place, size in enumerate(SIZES):
            of_size = moment.state["sizes"][:, place]
            number, wins, alone, looked_at, enumerated, *sums = of_size.unbind(-1)
            columns |= {
                f"winning_{size}": wins / number,
                f"cohesion_{size}": wins / alone,
                f"silent_{size}": 1 - enumerated / looked_at,
            }
            columns |= {
                f"{name}_{size}": each / enumerated
                for name, each in zip(_OF_LAW, sums, strict=True)
            }
            table = torch.stack([number, alone, enumerated], -1).tolist()
            for reasons, (has_any, has_strong, has_states) in zip(missing, table, strict=True):
                if _DEAD in reasons:
                    continue
                if not has_any:
                    reasons.append(_SMALL.format(size))
                    continue
                reasons += [_FEW.format(size)] if not has_strong else []
                reasons += [_SILENT.format(size)] if not has_states else []
        return self.frame(
            moment, {**columns, "status": ["; ".join(each) or OK for each in missing]}
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


def _picture(values: Tensor) -> tuple[tuple[int, ...], Integers]:
    """Return the shape and the levels of a picture; nothing where this rank has none."""
    if not torch.isfinite(values).all():
        return (), np.zeros(0, dtype=np.int64)
    shape = tuple(values[:3].long().tolist())
    levels: Integers = values[3 : 3 + int(np.prod(shape))].long().numpy()
    return (shape, levels) if levels.size else ((), levels)
