"""Operators: does each layer, each block and the whole network draw inputs together or apart?

A map O is nonexpansive if ‖O(x) − O(x')‖ ≤ ‖x − x'‖, and γ-averaged if it is (1 − γ) Id + γR with R
nonexpansive; iterating an averaged map leads to a fixed point (`statistics.averaged` has formulas
and sources).  Maps are

- ``layer``: a linear layer or a convolution, with the activation module right after it;
- ``block``: a module that contains layers and whose output has its input's shape (residual blocks);
- ``network``: the model, as a composition of all its modules where they form a chain.

Spectral norms and the smallest γ of square linear layers follow from the weights, exactly of small
layers; norms of others have a lower and an upper bound.  A few samples of
each map's input are kept from the forward; at the record the maps are called again with them, in
evaluation mode and with the weights as they are then: pairs of samples give lower bounds, and the
Krasnoselskii-Mann iteration x ← x + λ(O(x) − x) shows whether a fixed point is approached.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, Slot, State
from jaynes_callbacks.probes.chain import ChainWatch
from jaynes_callbacks.probes.maps import KeptCall, MapWatch, first_tensor, maps_vectors
from jaynes_callbacks.probes.operators import (
    MOST_EXACT,
    bound_of,
    is_layer,
    layer_gamma,
    layer_norm,
    slopes_of,
)
from jaynes_callbacks.probes.selection import Coverage, Selection, Skipped
from jaynes_callbacks.probes.undisturbed import undisturbed
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.statistics.averaged import (
    ROUNDING,
    SLOPES,
    PairBounds,
    composed_gamma,
    contraction_gamma,
    difference_bounds,
    iteration_rate,
    pair_bounds,
)
from jaynes_callbacks.statistics.nash import softmax_nash_gap
from jaynes_callbacks.statistics.norms import FAILURE

__all__ = ["OperatorRow", "OperatorStatus", "Operators"]

#: Kinds of the maps.
LAYER, BLOCK, NETWORK = "layer", "block", "network"
#: Steps of the Krasnoselskii-Mann iteration.
KM_STEPS = 10
_UNKNOWN = -math.inf


class OperatorStatus(IntEnum):
    """Why columns of a row are nan; its `reason` stands in the status column."""

    OK = 0
    NOT_SEEN = 1
    FAILED = 2
    SIZES_DIFFER = 3
    EXPANSIVE = 4
    ONLY_BOUNDED = 5
    NO_CHAIN = 6
    UNKNOWN_MODULE = 7
    AT_FIXED_POINT = 8

    @property
    def reason(self) -> str:
        """Describe what is missing, and why, in one phrase."""
        return _REASONS[self]


_REASONS = {
    OperatorStatus.OK: "ok",
    OperatorStatus.NOT_SEEN: "no call was seen since the last record (or it is compiled)",
    OperatorStatus.FAILED: "calling it again failed: see the coverage",
    OperatorStatus.SIZES_DIFFER: "input and output differ in size: γ is not defined",
    OperatorStatus.EXPANSIVE: "its norm is above 1: averaged for no γ",
    OperatorStatus.ONLY_BOUNDED: "the smallest γ is only bounded",
    OperatorStatus.NO_CHAIN: "its modules form no chain: a function or a sum lies between them",
    OperatorStatus.UNKNOWN_MODULE: "nothing is known of the Lipschitz constant of a module in it",
    OperatorStatus.AT_FIXED_POINT: "at a fixed point: there is no rate of approach",
}


@dataclass(frozen=True, eq=False)
class OperatorRow(Row):
    """What one map does to distances."""

    map: str = column("", "the modules that make it; of a network where the chain breaks", "")
    shape: tuple[int, ...] = column("", "of one sample's input", ())
    samples: int = column("samples", "kept of its last call, on all ranks", 0)
    spectral_norm: float = column(
        "1",
        "norm of the layer without its activation; of a network their product; above "
        f"{MOST_EXACT} units an estimate from below",
        curve=True,
    )
    lipschitz_least: float = column(
        "1", "largest ‖Δoutput‖/‖Δinput‖ of pairs of samples", label="Lipschitz ≥", curve=True
    )
    lipschitz_most: float = column(
        "1",
        f"upper bound of the Lipschitz constant; above {MOST_EXACT} units but for a chance of "
        f"{FAILURE:.0e}",
        label="Lipschitz ≤",
        shown=True,
    )
    gamma: float = column(
        "1",
        f"smallest γ of a linear layer, without its activation; up to {MOST_EXACT} units",
        label="γ",
    )
    gamma_least: float = column(
        "1",
        "lower bound of γ from pairs of samples; inf if a pair is driven apart",
        label="γ ≥",
        shown=True,
    )
    gamma_most: float = column(
        "1",
        "upper bound of the smallest γ; follows from `lipschitz_most` or the γ of parts",
        label="γ ≤",
        shown=True,
    )
    nonexpansive: str = column(
        "", "yes by `lipschitz_most`, no by a lower bound, else unknown", "unknown", shown=True
    )
    km_first: float = column(
        "1",
        "‖O(x) − x‖/‖x‖ at the batch's own inputs, of those that are no fixed point; 0 if all are",
    )
    km_last: float = column("1", "‖O(x) − x‖ after the iteration, over ‖x‖ before, likewise")
    km_rate: float = column(
        "1", "factor of ‖O(x) − x‖ in each of the last steps of the iteration", curve=True
    )
    nash_gap: float = column("nats", "mean of g(z) − ⟨z, y⟩ + g*(y) over the given probes")
    status: str = column("", "ok, or the reason of each nan", OperatorStatus.OK.reason)


class _Measured(NamedTuple):
    """A row of a state before it is stacked: the stream and its values by quantity."""

    stream: Stream
    values: dict[str, Tensor | float]


class Operators(Instrument[OperatorRow]):
    """Records how layers, blocks and the network act on distances.

    Args:
        modules: glob patterns on the names of modules that are iterated; of those whose output has
            the input's shape, the outermost `most_iterated` ones, blocks before layers.
        most_iterated: most modules that are iterated; 0 for none.
        samples: most samples of a map's input.
        relaxation: λ of the Krasnoselskii-Mann iteration.
        probes: inputs and labels (classes, or probabilities of classes) for the Nash gap of the
            model's outputs; without them it is nan.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        >>> model[0].weight.data = -0.5 * torch.eye(4)
        >>> with Recorder(model, instruments="operators") as recorder:
        ...     _ = model(torch.randn(8, 4))
        ...     layer, block, network = recorder.record()["operators"]
        >>> layer.map, round(layer.spectral_norm, 4), round(layer.gamma, 4), layer.nonexpansive
        ('Linear, ReLU', 0.5, 0.75, 'yes')
    """

    name = "operators"
    schema = Schema(
        OperatorRow,
        "operators",
        "Operators",
        ahead=("kind", "name", "step", "map"),
        invariant=("nash_gap", "samples"),
    )
    only_due_forwards = first_forward = True
    quantities: ClassVar = {
        **{
            name: Quantity(reduction="max")
            for name in (
                *("norm", "norm_most", "gamma", "lipschitz_least", "gamma_least", "low", "high"),
                *("composed_lipschitz", "composed_gamma", "status"),
            )
        },
        # ln of the residual in each step, of the samples that are then no fixed point; ln of its
        # factor, of those that never are; the Nash gap.  Sums, and their numbers.
        "logs": Quantity((KM_STEPS + 1, 2)),
        "rates": Quantity((2,)),
        "iterated": Quantity(),
        "samples": Quantity(),
        "nash": Quantity((2,)),
    }

    def __init__(
        self,
        *,
        modules: Sequence[str] | str = "*",
        most_iterated: int = 8,
        samples: int = 16,
        relaxation: float = 0.5,
        probes: tuple[Tensor, Tensor] | None = None,
        cadence: Cadence | None = None,
    ) -> None:
        if samples < 2 or most_iterated < 0:
            raise ValueError(
                f"samples must be at least 2 and most_iterated at least 0, got {samples} and "
                f"{most_iterated}"
            )
        if not 0 < relaxation <= 1:
            raise ValueError(f"relaxation must be in (0, 1], got {relaxation}")
        super().__init__(cadence)
        self._patterns = (modules,) if isinstance(modules, str) else tuple(modules)
        self._most_iterated, self._samples = most_iterated, samples
        self._relaxation, self._probes = relaxation, probes
        self._streams: dict[tuple[str, str], Stream] = {}
        self._skipped: list[Skipped] = []
        self._waits_for_first = False

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Find the layers, and the modules that contain some."""
        super().attach(model, selection)
        self._skipped = []
        admitted = dict(self._admitted(model))
        self._layers = {name: module for name, module in admitted.items() if is_layer(module)}
        blocks = {
            name: module
            for name, module in admitted.items()
            if not is_layer(module) and any(map(is_layer, module.modules()))
        }
        self._watch = MapWatch({**self._layers, **blocks, "": model}, self._samples)
        self._chain = ChainWatch(model)

    def detach(self) -> None:
        """Take every hook off, and let go of the samples."""
        self._waits_for_first = False
        self.close()
        self.forget()

    def open(self, *, one_forward: bool = False) -> None:
        """Keep a few samples of the calls that follow."""
        self._watch.open()
        self._chain.open(one_forward=one_forward)

    def close(self) -> None:
        """Keep no more calls; after the very first forward the untouched maps are measured."""
        self._watch.close()
        self._chain.close()
        if self._waits_for_first and self._watch.calls:
            self._waits_for_first = False
            self._untouched = self._collected()

    @property
    def wants_forward(self) -> bool:
        """True until the first forward, which shows the untouched model."""
        return self._waits_for_first

    def forget(self) -> None:
        """Let go of the samples."""
        self._watch.forget()

    @property
    def coverage(self) -> Coverage:
        """The maps that have been measured, and what could not be."""
        return Coverage(tuple(self._streams.values()), (*self._skipped, *self._watch.skipped))

    def _admitted(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """Find the modules that the patterns admit."""
        for name, module in model.named_modules():
            if self.selection.admits(name or type(module).__name__):
                yield name, module
            elif is_layer(module):
                self._skipped.append(Skipped(name, "excluded by pattern"))

    # Recording ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Measure the untouched weights, and what else there is after the first forward."""
        super().begin()
        self._waits_for_first = True

    def collect_once(self) -> State:
        """Cease to wait for the first forward."""
        self._waits_for_first = False
        return super().collect_once()

    def collect(self) -> State:
        """Measure all maps, with the weights as they are, and let go of the samples."""
        try:
            return self._collected()
        finally:
            self.forget()

    def _collected(self) -> State:
        with undisturbed(self.model) as model:
            model.eval()
            measured = list(self._measured(model, self._watch.calls))
        self._streams |= {each.stream.key: each.stream for each in measured}
        return _state(measured)

    def _measured(self, model: nn.Module, calls: Mapping[str, KeptCall]) -> Iterator[_Measured]:
        iterated = self._iterated(calls)
        layers = {
            name: self._layer(name, layer, calls.get(name), iterated)
            for name, layer in self._layers.items()
        }
        yield from layers.values()
        for name, call in calls.items():
            if call.is_endomap and not is_layer(call.module):
                values = self._pairs(call, None, iterated)
                named = name or type(call.module).__name__
                yield _Measured(_stream(BLOCK, named, call, type(call.module).__name__), values)
        yield self._network(model, layers, calls.get(""))

    def _layer(
        self,
        name: str,
        layer: nn.Module,
        call: KeptCall | None,
        iterated: frozenset[str],
    ) -> _Measured:
        """Measure a layer with the activation module that follows it."""
        after = self._chain.following(name)
        slopes = None if after is None else slopes_of(after.module)
        activation = after.module if after is not None and slopes is not None else None
        kind = type(layer).__name__
        described = kind if activation is None else f"{kind}, {type(activation).__name__}"
        values: dict[str, Tensor | float] = {"status": float(OperatorStatus.OK)}
        values["low"], values["high"] = slopes or SLOPES["identity"]
        shape = _input_shape(layer, call)
        try:
            if shape is not None:
                values["norm"], values["norm_most"] = layer_norm(layer, shape)
                is_square = maps_vectors(layer) and _outputs(layer) == shape[0] <= MOST_EXACT
                if is_square:
                    values["gamma"] = layer_gamma(layer, shape[0])
        except Exception as error:
            self._watch.withdraw(name, error)
            values["status"] = float(OperatorStatus.FAILED)
        pairs = self._pairs(call, activation, iterated)
        stream = _stream(LAYER, name or kind, call, described)
        return _Measured(stream, {**pairs, **values, "status": _worst(values, pairs)})

    def _pairs(
        self, call: KeptCall | None, activation: nn.Module | None, iterated: frozenset[str]
    ) -> dict[str, Tensor | float]:
        """Call a map again: bounds from pairs of samples, and the iteration where it is wanted."""
        if call is None:
            return {"status": float(OperatorStatus.NOT_SEEN)}

        def apply(x: Tensor) -> Tensor:
            y = call(x)
            return y if activation is None else activation(y)

        try:
            with torch.no_grad():
                y = apply(call.x.clone())
                x = call.rows(call.x)
                bounds = _pair_bounds(call, y, apply)
                values: dict[str, Tensor | float] = {
                    "lipschitz_least": bounds.lipschitz,
                    "gamma_least": bounds.gamma,
                    "samples": float(len(x)),
                    "status": float(OperatorStatus.OK),
                }
                return values | (self._iteration(call, y, apply) if call.name in iterated else {})
        except Exception as error:
            self._watch.withdraw(call.name, error)
            return {"status": float(OperatorStatus.FAILED)}

    def _iteration(
        self, call: KeptCall, y: Tensor, apply: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor | float]:
        """Iterate a map from the samples of a call, and sum what residuals there are."""
        point, scale = call.x, call.rows(call.x).norm(dim=-1).double()
        residuals, floors = list[Tensor](), list[Tensor]()
        for step in range(KM_STEPS + 1):
            if step > 0:
                point = point + self._relaxation * (y - point)
                y = apply(point.clone())
            residuals.append(call.rows(y - point).norm(dim=-1).double())
            floors.append(call.rows(point).norm(dim=-1).double())
        residual = torch.stack(residuals)
        # What remains of a difference of equal values is a few units of their last digit.
        floor = 4 * torch.finfo(y.dtype).eps * torch.stack(floors)
        away = ~((residual <= floor) & residual.isfinite()) & (scale > 0)
        logs = torch.where(away, (residual / scale).log(), 0.0)
        moving = away.all(0)
        rates = torch.where(moving, iteration_rate(residual.mT).log(), 0.0)
        return {
            "logs": torch.stack([logs.sum(-1), away.double().sum(-1)], -1),
            "rates": torch.stack([rates.sum(), moving.double().sum()]),
            "iterated": (scale > 0).double().sum(),
        }

    def _network(
        self, model: nn.Module, layers: Mapping[str, _Measured], call: KeptCall | None
    ) -> _Measured:
        """Compose the maps of the network, where its modules form a chain."""
        pairs = self._pairs(call, None, frozenset())
        by_name = {name: each.values for name, each in layers.items()}
        norms = [_number(each.get("norm", math.nan)) for each in by_name.values()]
        product = torch.stack(norms).prod() if norms else torch.tensor(math.nan)
        values: dict[str, Tensor | float] = {**pairs, "norm": product}
        described, status = type(model).__name__, OperatorStatus.OK
        lipschitz, gammas = torch.ones_like(product), list[Tensor]()
        links = self._chain.links
        broken = [link.name for link in links[1:] if not link.follows]
        if not links:
            status = OperatorStatus.NOT_SEEN
        elif broken or self._chain.is_whole is False:
            status = OperatorStatus.NO_CHAIN
            described = f"before {broken[0]}" if broken else "at the model's input or output"
        for link in links if status is OperatorStatus.OK else []:
            bound = bound_of(link.module)
            if (own := by_name.get(link.name)) is not None:
                lipschitz = lipschitz * _number(own.get("norm_most", math.nan)).to(lipschitz)
                gammas.append(_number(own.get("gamma", math.nan)).to(lipschitz))
            elif bound is not None:
                lipschitz = lipschitz * _number(bound.lipschitz).to(lipschitz)
                gammas.append(_number(bound.gamma).to(lipschitz))
            else:
                status, described = OperatorStatus.UNKNOWN_MODULE, f"{link.name}"
                break
        if status is OperatorStatus.OK:
            values["composed_lipschitz"] = lipschitz
            values["composed_gamma"] = composed_gamma(torch.stack(gammas))
        values["status"] = max(float(status), float(pairs["status"]))
        return _Measured(
            _stream(NETWORK, NETWORK, call, described),
            values | self._nash(model),
        )

    def _nash(self, model: nn.Module) -> dict[str, Tensor | float]:
        """Return the sum of the Nash gap over the probes, and their number."""
        if self._probes is None:
            return {}
        inputs, labels = self._probes
        device = next((each.device for each in model.parameters()), inputs.device)
        with torch.no_grad():
            logits = first_tensor(model(inputs.to(device)))
        if logits is None:
            return {}
        if not labels.is_floating_point():
            labels = nn.functional.one_hot(labels.to(device), logits.shape[-1])
        gaps = softmax_nash_gap(logits, labels.to(device, torch.float64))
        return {"nash": torch.stack([gaps.sum(), torch.full_like(gaps.sum(), gaps.numel())])}

    def _iterated(self, calls: Mapping[str, KeptCall]) -> frozenset[str]:
        """Choose which maps are iterated: the outermost first, blocks before layers."""
        fit = [
            call
            for call in calls.values()
            if call.is_endomap
            and any(fnmatchcase(call.name, pattern) for pattern in self._patterns)
        ]
        fit.sort(key=lambda call: (is_layer(call.module), bool(call.name) + call.name.count(".")))
        return frozenset(call.name for call in fit[: self._most_iterated])

    # Computing ------------------------------------------------------------------------------

    def compute(self, moments: Sequence[Moment]) -> list[Frame[OperatorRow]]:
        """Compose layers with their activations, and say what is known of each map."""
        return [self._frame(each) for each in moments]

    def _frame(self, moment: Moment) -> Frame[OperatorRow]:
        state = moment.state
        value = {name: _restored(state[name].cpu()) for name in self.quantities if name != "status"}
        streams = [slot.stream for slot in state.slots]
        is_layer_ = torch.tensor([stream.kind == LAYER for stream in streams], dtype=torch.bool)
        is_network = torch.tensor([stream.kind == NETWORK for stream in streams], dtype=torch.bool)
        slope = torch.maximum(value["low"].abs(), value["high"].abs())
        most = torch.where(is_layer_, value["norm_most"] * slope, value["composed_lipschitz"])
        activation = torch.where(
            (value["low"] >= -1) & (value["high"] <= 1), (1 - value["low"]) / 2, torch.nan
        )
        composed = composed_gamma(torch.stack([value["gamma"], activation], -1))
        gamma_most = torch.where(is_network, value["composed_gamma"], composed)
        # A pair gives a bound on γ wherever γ is defined: where the sizes are the same.
        is_square = ~value["gamma_least"].isnan()
        bound = torch.where(is_square, contraction_gamma(most), torch.nan)
        gamma_most = torch.fmin(gamma_most, bound)
        iterated = value["iterated"] > 0
        logs, away = value["logs"].unbind(-1)
        residuals = torch.where(away > 0, (logs / away).exp(), 0.0)
        residuals = torch.where(iterated[:, None], residuals, torch.nan)
        rates, moving = value["rates"].unbind(-1)
        at_fixed_point = iterated & (moving == 0)
        gaps, labelled = value["nash"].unbind(-1)
        return self.frame(
            moment,
            {
                "map": [stream.variable for stream in streams],
                "shape": [stream.shape for stream in streams],
                "samples": value["samples"].nan_to_num(0).to(torch.int64),
                "spectral_norm": value["norm"],
                "lipschitz_least": value["lipschitz_least"],
                "lipschitz_most": most,
                "gamma": value["gamma"],
                "gamma_least": value["gamma_least"],
                "gamma_most": gamma_most,
                "nonexpansive": _verdicts(most, value, is_layer_),
                "km_first": residuals[:, 0],
                "km_last": residuals[:, -1],
                "km_rate": (rates / moving).exp(),
                "nash_gap": gaps / labelled,
                "status": _statuses(
                    streams, state["status"].cpu(), value, is_square, at_fixed_point
                ),
            },
        )


def _pair_bounds(call: KeptCall, y: Tensor, apply: Callable[[Tensor], Tensor]) -> PairBounds:
    """Return the bounds from pairs of samples.

    Where each sample has a map of its own (it is called with more than x), each map is applied to
    the neighbour's x besides.

    Args:
        call: whose input is kept.
        y: the output.
        apply: the map.
    """
    x, rows = call.rows(call.x), call.rows(y)
    if not call.varies:
        return pair_bounds(x, rows)
    other = call.rows(apply(call.x.roll(1, call.dim)))
    size = torch.maximum(x.norm(dim=-1).amax(), rows.norm(dim=-1).amax())
    return difference_bounds(x - x.roll(1, 0), rows - other, size)


def _verdicts(most: Tensor, value: Mapping[str, Tensor], is_layer_: Tensor) -> list[str]:
    """Say of each map whether it is nonexpansive, as far as the bounds decide it."""
    limit = 1 + ROUNDING
    alone = is_layer_ & (value["low"] == 1) & (value["high"] == 1)
    apart = (value["lipschitz_least"] > limit) | (alone & (value["norm"] > limit))
    pairs = zip((most <= limit).tolist(), apart.tolist(), strict=True)
    return ["no" if no else "yes" if yes else "unknown" for yes, no in pairs]


def _statuses(
    streams: Sequence[Stream],
    status: Tensor,
    value: Mapping[str, Tensor],
    is_square: Tensor,
    at_fixed_point: Tensor,
) -> list[str]:
    """Return the reason of each row's nan."""
    reasons = []
    for row, stream in enumerate(streams):
        own = OperatorStatus(int(status[row]))
        if own is OperatorStatus.OK and stream.kind != NETWORK and not is_square[row]:
            own = OperatorStatus.SIZES_DIFFER
        elif own is OperatorStatus.OK and at_fixed_point[row]:
            own = OperatorStatus.AT_FIXED_POINT
        elif own is OperatorStatus.OK and stream.kind == LAYER and value["gamma"][row].isnan():
            expands = value["norm"][row] > 1 + ROUNDING
            own = OperatorStatus.EXPANSIVE if expands else OperatorStatus.ONLY_BOUNDED
        elif own is OperatorStatus.OK and stream.kind == BLOCK:
            own = OperatorStatus.ONLY_BOUNDED
        reasons.append(own.reason)
    return reasons


def _state(measured: Sequence[_Measured]) -> State:
    """Stack the values of all maps; ranks know the maximum, or the sum."""
    if not measured:
        return State.empty(Operators.quantities)
    device = next(
        (
            value.device
            for each in measured
            for value in each.values.values()
            if isinstance(value, Tensor)
        ),
        torch.device("cpu"),
    )
    tensors = {}
    for name, quantity in Operators.quantities.items():
        rows = [each.values.get(name) for each in measured]
        empty = torch.full(quantity.shape, 0.0 if quantity.reduction == "sum" else _UNKNOWN)
        found = [_number(empty if row is None else row).to(device) for row in rows]
        tensors[name] = torch.stack([torch.where(row.isnan(), _UNKNOWN, row) for row in found])
    streams = [Slot(each.stream) for each in measured]
    return State(streams, tensors, [True] * len(measured))


def _restored(values: Tensor) -> Tensor:
    """Give nan back to what no rank knows."""
    return torch.where(values < torch.finfo(torch.float64).min / 2, torch.nan, values)


def _number(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _worst(*values: Mapping[str, Tensor | float]) -> float:
    return max(float(each["status"]) for each in values)


def _stream(kind: str, name: str, call: KeptCall | None, described: str) -> Stream:
    shape = () if call is None else call.input_shape
    return Stream(kind, name, shape, (), described)


def _input_shape(layer: nn.Module, call: KeptCall | None) -> tuple[int, ...] | None:
    """Return the shape of a layer's input; of a convolution it is known by a call only."""
    if call is not None:
        return call.input_shape
    inputs = getattr(layer, "in_features", None)
    return (inputs,) if isinstance(inputs, int) else None


def _outputs(layer: nn.Module) -> int | None:
    return getattr(layer, "out_features", None) or getattr(layer, "nf", None)
