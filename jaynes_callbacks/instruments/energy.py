"""Energy: what each layer's neurons add up to, and who contributes it.

In one sample a neuron has Z = z·y of its pre-activation z and output y, for a ReLU y².  The energy
of a layer is E = Σ Z.  Shared out fairly among this layer's neurons, each gets its Z; among them
and those of the layer before, φ = ½(Z + b·y).  Columns say how equal the shares are, and which law
the values of Z follow: the lognormal, or the exponential that a Hopfield network and a Boltzmann
machine have (Eqs 32-37).  Formulas and their sources: `statistics.energy`.

Sums are kept for each neuron and over samples (`counts.energies`); what a neuron is, is decided as
for `neurons` (`probes.neurons`).  φ needs the bias of the layer that made z (`probes.energies`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from jaynes_callbacks.counts.energies import NEURON_SUMS, SAMPLE_SUMS, energy_parts
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, Slot, State
from jaynes_callbacks.instruments.laws import OK
from jaynes_callbacks.instruments.magnitudes import IOTA_VALUES_PER_CALL
from jaynes_callbacks.instruments.neurons import MOST_NEURONS
from jaynes_callbacks.instruments.ranks import is_alone
from jaynes_callbacks.probes.activations import ActivationWatch
from jaynes_callbacks.probes.energies import Energies
from jaynes_callbacks.probes.ledger import pack_counts, restore_counts
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    LOGNORMAL,
    Status,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
    totals,
)
from jaynes_callbacks.statistics.energy import EnergyUnknown, energy_figures, gini_of_bins

__all__ = ["Energy", "EnergyRow"]

#: Laws of Z that are compared.
_LAWS = (LOGNORMAL, FAMILY_BY_NAME["exponential"])


@dataclass(frozen=True, eq=False)
class EnergyRow(Row):
    """The energy of one layer's activations, and its neurons' shares in it."""

    shape: tuple[int, ...] = column("", "of one sample's activation; empty if compiled", ())
    samples: int = column("samples", "whose energy is finite", 0, shown=True)
    nonfinite_samples: int = column("samples", "left out: their energy is not finite", 0)
    neurons: int = column("neurons", "measured: channels of maps, features", 0, shown=True)
    dead_neurons: int = column("neurons", "of these with Z = 0 in every sample", 0, shown=True)
    energy: float = column("Z", "mean over samples of E, the sum of Z = z*y", shown=True)
    energy_std: float = column("Z", "standard deviation of E over samples")
    unit_energy: float = column(
        "Z", "E divided by the values in a sample: mean of Z", label="energy per value", curve=True
    )
    unit_energy_std: float = column("Z", "standard deviation of E, divided by the same")
    gini: float = column(
        "1", "Gini coefficient of the neurons' mean Z; 0: all contribute alike, 1: one has all; "
        "equal neurons have about sample_cv / sqrt(pi * samples)",
        label="Gini", curve=True,
    )  # fmt: skip
    strong_share: float = column(
        "1", "share in E of the strong: neurons from the first quartile of mean Z on; "
        "equal neurons have about 0.75 + 0.32 sample_cv / sqrt(samples)",
        shown=True,
    )  # fmt: skip
    top_half_share: float = column(
        "1", "share in E of the half with the greater mean Z; "
        "equal neurons have about 0.5 + 0.4 sample_cv / sqrt(samples)",
    )  # fmt: skip
    sample_cv: float = column(
        "1", "standard deviation of a neuron's Z over samples by its mean; median over the living"
    )
    gini_values: float = column("1", "Gini coefficient of all values of Z, zeros included")
    z_gap_lognormal: float = column("nats", "KL of the non-zero Z to the best lognormal")
    z_gap_exponential: float = column(
        "nats", "KL of the non-zero Z to the best exponential", label="gap of exponential Z",
        curve=True,
    )  # fmt: skip
    phi_share: float = column(
        "1", "Σφ/E, φ = (Z + b*y)/2: what is this layer's own, and not that of the layer before",
        shown=True,
    )  # fmt: skip
    phi_gini: float = column("1", "Gini coefficient of the neurons' mean φ")
    phi_strong_share: float = column("1", "share in Σφ of neurons from the first quartile on")
    phi_top_half_share: float = column("1", "share in Σφ of the half with the greater mean φ")
    status: str = column("", "ok, or the reason of each nan", OK)


class Energy(Instrument[EnergyRow]):
    """Records the energy of every layer's activations and how it is spread over neurons.

    Samples are taken whole, at a constant stride.  Sums over samples and neurons have fixed places,
    so that all ranks add them up in the one collective of a record: 112 KiB for each stream.

    The first dimension of an activation counts samples, but for unbatched maps.  Where it does not
    (sequences first), E is that of one position.

    Args:
        values_per_call: most values measured of one activation call, but at least two samples.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for a number of values that is not positive.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 500, bias=False), torch.nn.ReLU())
        >>> with Recorder(model, instruments="energy") as recorder:
        ...     _ = model(torch.randn(512, 64))
        ...     (row,) = recorder.record()["energy"]
        >>> row.name, row.samples, row.phi_share
        ('1', 512, 0.5)
        >>> round(row.gini_values, 1)  # half of them 0, the others squares of Gaussian values
        0.8
    """

    name = "energy"
    schema = Schema(
        EnergyRow,
        "energy",
        "Energy",
        ahead=("kind", "name", "step", "samples", "neurons", "dead_neurons", "energy"),
        # ΣZ and the shares in it are multiplied neuron by neuron.
        invariant=("samples", "nonfinite_samples", "neurons", "dead_neurons", "sample_cv"),
    )
    quantities: ClassVar = {
        "counts": Quantity((CODES,)),
        "samples": Quantity((SAMPLE_SUMS,)),
        "neurons": Quantity((MOST_NEURONS, NEURON_SUMS)),
    }
    only_due_forwards = first_forward = True

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
        self._reading = Energies(MOST_NEURONS)
        self._watch = ActivationWatch(
            model,
            selection.admits,
            self._limit,
            reading=self._reading,
            activations=selection.activations,
        )
        self._watch.attach()

    def detach(self) -> None:
        """Take every hook off."""
        self._watch.detach()
        self._reading.forward_begins()

    def open(self, *, one_forward: bool = False) -> None:
        """Measure activations from here on."""
        self._watch.open(one_forward=one_forward)
        self._listened = True

    def close(self) -> None:
        """Cease to measure activations, until the next `open`; nothing of a layer is kept."""
        self._watch.close()
        self._reading.forward_begins()

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
        """Return the sums of all forwards since the last record."""
        self._listened = False
        with self._watch.paused():
            taken = self._watch.ledger.take()
            parts = energy_parts(taken.counts.sum(1))
        slots = [Slot(stream) for stream in taken.streams]
        return State(slots, parts._asdict(), [True] * len(slots))

    def compute(self, moments: Sequence[Moment]) -> list[Frame[EnergyRow]]:
        """Compute energies and shares, and fit the laws of Z."""
        with self._watch.paused(), one_thread():
            seen = [each._replace(state=_of_seen(each.state)) for each in moments]
            # A fit of a few streams costs nearly as much as one of a hundred.
            laws = _laws_of_z([each.state["counts"].long() for each in seen])
            return [self._frame(*each) for each in zip(seen, laws, strict=True)]

    def _frame(self, moment: Moment, of_values: "_OfValues") -> Frame[EnergyRow]:
        """Make the frame of one moment."""
        found = energy_figures(moment.state["samples"], moment.state["neurons"])
        unknown = [EnergyUnknown(each).reason for each in found.unknown.tolist()]
        return self.frame(
            moment,
            {
                "shape": [slot.stream.shape for slot in moment.state.slots],
                "samples": found.samples,
                "nonfinite_samples": found.left_out,
                "neurons": found.neurons,
                "dead_neurons": found.dead,
                "energy": found.energy,
                "energy_std": found.energy_std,
                "unit_energy": found.unit,
                "unit_energy_std": found.unit_std,
                "gini": found.of_energy.gini,
                "strong_share": found.of_energy.strong,
                "top_half_share": found.of_energy.top_half,
                "sample_cv": found.sample_cv,
                "gini_values": of_values.gini,
                **{f"z_gap_{name}": each for name, each in of_values.gaps.items()},
                "phi_share": found.phi_share,
                "phi_gini": found.of_phi.gini,
                "phi_strong_share": found.of_phi.strong,
                "phi_top_half_share": found.of_phi.top_half,
                "status": [
                    "; ".join(filter(None, each)) or OK
                    for each in zip(unknown, of_values.reasons, strict=True)
                ],
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


class _OfValues(NamedTuple):
    """What the values of Z of some streams are like.

    Attributes:
        gaps: to each law, by its name.
        gini: Gini coefficient of all values, zeros included.
        reasons: of every gap that is not known.
    """

    gaps: dict[str, Tensor]
    gini: Tensor
    reasons: list[str]


def _of_seen(state: State) -> State:
    """Return the streams that have seen a sample; others have no row."""
    seen = state["samples"][:, :2].sum(-1) > 0
    return state.take(seen.nonzero().flatten().tolist())


def _laws_of_z(counts: Sequence[Tensor]) -> list[_OfValues]:
    """Fit the laws of Z to the counts of each moment, all in one batch."""
    numbers = [len(each) for each in counts]
    table = torch.cat([each.to(counts[0].device) for each in counts])
    occupied = occupied_bins(table)
    # As for magnitudes: laws are fitted to bins that hold several values each.
    moments, binned = log_moments(occupied), occupied.merged()
    fits = {law.name: fit_family(law, binned, moments) for law in _LAWS}
    statuses = torch.stack([fit.status for fit in fits.values()], -1).split(numbers)
    gaps = {name: gap(binned, fit).split(numbers) for name, fit in fits.items()}
    ginis = gini_of_bins(occupied, totals(table).zeros).split(numbers)
    return [
        _OfValues(
            {name: each[place] for name, each in gaps.items()},
            ginis[place],
            [
                "; ".join(
                    f"{name}: {Status(status).reason}"
                    for name, status in zip(fits, row, strict=True)
                    if status not in (Status.CONVERGED, Status.EMPTY)
                )
                for row in statuses[place].tolist()
            ],
        )
        for place in range(len(counts))
    ]
