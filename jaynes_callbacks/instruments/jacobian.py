"""Jacobians of modules: is a map the gradient of a potential, and is its input a fixed point?

Of modules whose output has their input's shape: the asymmetry a = ‖½(J − Jᵀ)‖²/‖J‖² of the Jacobian
(0 symmetric, ½ of independent entries, 1 antisymmetric), the relative residual ‖f(z) − z‖/‖f(z)‖
and the growth of a vector under repeated products with Jᵀ.  Symmetric Jacobians are those of maps
that descend a potential, as equilibrium propagation and energy-based models suppose; a deep
equilibrium model seeks residuals of zero.  Formulas: `statistics.jacobian`.

A few samples of each module's input are kept from the forward.  At the record the module is called
once with them, in evaluation mode and with the weights as they are then; products with J and Jᵀ are
taken by reverse mode alone (Jε is the derivative of Jᵀu by u).

Beside them stands the norm of the gradient of each optimizer's parameters, one row for each player
of a run with several optimizers (generator and critic, say).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jaynes_callbacks.instruments.base import Instrument, Moment, Quantity, Slot, State
from jaynes_callbacks.probes.dtensors import is_sharded, owned_values
from jaynes_callbacks.probes.maps import KeptCall, MapWatch
from jaynes_callbacks.probes.operators import is_layer
from jaynes_callbacks.probes.selection import Coverage, Selection
from jaynes_callbacks.probes.undisturbed import undisturbed
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.schema import Row, Schema, column
from jaynes_callbacks.records.stream import Stream
from jaynes_callbacks.schedule import Cadence
from jaynes_callbacks.statistics.jacobian import asymmetry, growth_rate, probe_squares

__all__ = ["MAP", "PLAYER", "Jacobian", "JacobianRow", "JacobianStatus"]

#: Kinds of the rows: modules, and parameters of one optimizer.
MAP, PLAYER = "map", "player"
#: Most values of a module's samples: attention differentiated twice takes memory with their square.
_MOST_VALUES = 1 << 20
#: Random probes for the asymmetry, and steps of the power iteration.
PROBES, STEPS = 8, 20


class JacobianStatus(IntEnum):
    """Why columns of a row are nan; its `reason` stands in the status column."""

    OK = 0
    FAILED = 1
    NO_SECOND_DERIVATIVE = 2
    ZERO = 3
    PLAYER = 4

    @property
    def reason(self) -> str:
        """Describe what is missing, and why, in one phrase."""
        return _REASONS[self]


_REASONS = {
    JacobianStatus.OK: "ok",
    JacobianStatus.FAILED: "calling it again failed: see the coverage",
    JacobianStatus.NO_SECOND_DERIVATIVE: "one of its operations cannot be differentiated twice",
    JacobianStatus.ZERO: "the Jacobian is zero",
    JacobianStatus.PLAYER: "ok",
}


@dataclass(frozen=True, eq=False)
class JacobianRow(Row):
    """The Jacobian of one module, or the gradient of one optimizer's parameters."""

    shape: tuple[int, ...] = column("", "of one sample's input", ())
    samples: int = column("samples", "of the module's input, on all ranks", 0)
    asymmetry: float = column("1", "‖½(J − Jᵀ)‖²/‖J‖²: 0 symmetric, 1 antisymmetric", curve=True)
    asymmetry_se: float = column(
        "1", f"standard error of it, from {PROBES} random probes; too small for J of low rank"
    )
    residual: float = column(
        "1", "mean of ‖f(z) − z‖/‖f(z)‖", label="‖f(z) − z‖/‖f(z)‖", curve=True
    )
    growth_rate: float = column(
        "1",
        "mean growth of a vector in products 11 to 20 with Jᵀ: the spectral radius where J is near "
        "normal, transient growth otherwise; J is taken at the batch's input, not at a fixed point",
        curve=True,
    )
    gradient_norm: float = column(
        "loss/w", "norm of the gradient of an optimizer's parameters", curve=True
    )
    status: str = column("", "ok, or the reason of each nan", JacobianStatus.OK.reason)


class _Measured(NamedTuple):
    """A row of a state before it is stacked: the stream and its values by quantity."""

    stream: Stream
    values: Mapping[str, Tensor | float]
    shared: bool = True


class Jacobian(Instrument[JacobianRow]):
    """Records Jacobians of modules, and the gradients of several optimizers beside each other.

    A trainer's host shows gradients by itself.  In a loop of your own, call `Recorder.before_step`
    as `Gradients` describes; without it rows of players are missing.

    Args:
        modules: glob patterns on the names of modules; by default all that contain linear layers or
            convolutions and whose output has the input's shape, the outermost `most` ones.
        most: most modules where none are named.
        samples: most samples of a module's input.
        cadence: when to record; None for whenever the recorder does.

    Raises:
        ValueError: for numbers that are not positive; at `attach` for a pattern that no module has.

    Example:
        >>> import torch
        >>> from jaynes_callbacks import Recorder
        >>> rotation = torch.nn.Linear(2, 2, bias=False)
        >>> rotation.weight = torch.nn.Parameter(torch.tensor([[0.0, -0.5], [0.5, 0.0]]))
        >>> with Recorder(rotation, instruments="jacobian", min_size=0) as recorder:
        ...     _ = rotation(torch.randn(8, 2))
        ...     (row,) = recorder.record()["jacobian"]
        >>> row.asymmetry, round(row.growth_rate, 6)
        (1.0, 0.5)
    """

    name = "jacobian"
    schema = Schema(
        JacobianRow,
        "jacobian",
        "Jacobians and players",
        ahead=("kind", "name", "step"),
        invariant=("samples",),
    )
    only_due_forwards = first_forward = True
    quantities: ClassVar = {
        "squares": Quantity((PROBES, 2)),
        "sums": Quantity((3,)),
        "gradient": Quantity((2,)),
        "status": Quantity(reduction="max"),
    }

    def __init__(
        self,
        *,
        modules: Sequence[str] | str = (),
        most: int = 8,
        samples: int = 8,
        cadence: Cadence | None = None,
    ) -> None:
        if samples < 1 or most < 1:
            raise ValueError(f"samples and most must be positive, got {samples} and {most}")
        super().__init__(cadence)
        self._patterns = (modules,) if isinstance(modules, str) else tuple(modules)
        self._most, self._samples = most, samples
        self._streams: dict[tuple[str, str], Stream] = {}
        self._players: dict[str, _Measured] = {}
        self._failure: Exception | None = None
        self._waits_for_first = False

    # Watching -------------------------------------------------------------------------------

    def attach(self, model: nn.Module, selection: Selection) -> None:
        """Find the modules whose calls are kept.

        Raises:
            ValueError: for a pattern that no module has.
        """
        super().attach(model, selection)
        modules = dict(model.named_modules())
        for pattern in self._patterns:
            if not any(fnmatchcase(name, pattern) for name in modules):
                raise ValueError(
                    f"modules pattern {pattern!r} of Jacobian matches no module; there are "
                    f"{[name for name in modules if name][:5]} and others"
                )
        self._watch = MapWatch(
            {name: each for name, each in modules.items() if self._wants(name, each)},
            self._samples,
        )

    def detach(self) -> None:
        """Take every hook off, and let go of what was kept."""
        self._waits_for_first = False
        self.close()
        self.forget()

    def open(self, *, one_forward: bool = False) -> None:
        """Keep a few samples of the calls that follow."""
        self._watch.open()

    def close(self) -> None:
        """Keep no more calls; after the very first forward the untouched model is measured."""
        self._watch.close()
        if self._waits_for_first and self._watch.calls:
            self._waits_for_first = False
            self._untouched = self._collected()

    @property
    def wants_forward(self) -> bool:
        """True until the first forward, which shows the untouched model."""
        return self._waits_for_first

    @property
    def coverage(self) -> Coverage:
        """The modules and players that have been measured, and what could not be."""
        return Coverage(tuple(self._streams.values()), tuple(self._watch.skipped))

    # Recording ------------------------------------------------------------------------------

    def before_step(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take the norm of the gradients of one optimizer's parameters.

        Args:
            parameters: that are about to be updated.
        """
        try:
            if (player := _player(self.model, parameters)) is not None:
                self._players[player.stream.name] = player
        except Exception as error:
            self._failure = error

    def begin(self) -> None:
        """Wait for the first forward: without an input there is no Jacobian."""
        self._waits_for_first = True

    def collect_once(self) -> State:
        """Cease to wait for the first forward."""
        self._waits_for_first = False
        return super().collect_once()

    def collect(self) -> State:
        """Measure the modules that were called, and return what `before_step` showed.

        Raises:
            Exception: the one that kept `before_step` from measuring.
        """
        players = list(self._players.values())
        try:
            if self._failure is not None:
                raise self._failure
            self._streams |= {each.stream.key: each.stream for each in players}
            return self._collected().joined(_state(players))
        finally:
            self.forget()

    def forget(self) -> None:
        """Let go of what `before_step` showed, and of the inputs."""
        self._players, self._failure = {}, None
        self._watch.forget()

    def _collected(self) -> State:
        """Measure the modules whose calls were kept."""
        measured = []
        if calls := self._chosen():
            # The other kernels of attention cannot be differentiated twice.
            with undisturbed(self.model) as model, sdpa_kernel(SDPBackend.MATH):
                model.eval()
                measured = [self._measured(each) for each in calls]
        self._streams |= {each.stream.key: each.stream for each in measured}
        return _state(measured)

    def _wants(self, name: str, module: nn.Module) -> bool:
        if self._patterns:
            return any(fnmatchcase(name, pattern) for pattern in self._patterns)
        admitted = self.selection.admits(name or type(module).__name__)
        return admitted and any(map(is_layer, module.modules()))

    def _chosen(self) -> list[KeptCall]:
        """Return the calls of modules that map into their own space, the outermost first."""
        fit = []
        for call in [each for each in self._watch.calls.values() if each.is_endomap]:
            if call.x.numel() > _MOST_VALUES:
                error = ValueError(f"more than {_MOST_VALUES:,} values in its samples")
                self._watch.withdraw(call.name, error)
            else:
                fit.append(call)
        fit.sort(key=lambda call: bool(call.name) + call.name.count("."))
        return fit if self._patterns else fit[: self._most]

    def _measured(self, call: KeptCall) -> _Measured:
        """Measure one module; an error costs its row's values only."""
        stream = Stream(MAP, call.name or type(call.module).__name__, call.input_shape, (), "J")
        try:
            return _Measured(stream, _measure(call))
        except Exception as error:
            self._watch.withdraw(call.name, error)
            return _Measured(stream, {"status": float(JacobianStatus.FAILED)})

    # Computing ------------------------------------------------------------------------------

    def compute(self, moments: Sequence[Moment]) -> list[Frame[JacobianRow]]:
        """Estimate, for each moment."""
        return [self._frame(each) for each in moments]

    def _frame(self, moment: Moment) -> Frame[JacobianRow]:
        state = moment.state
        residual, growth, number = state["sums"].cpu().unbind(-1)
        found = asymmetry(state["squares"].cpu())
        square, known = state["gradient"].cpu().unbind(-1)
        status = [JacobianStatus(int(each)) for each in state["status"].tolist()]
        zero = state["squares"].cpu()[:, :, 1].sum(-1) == 0
        status = [
            JacobianStatus.ZERO if own is JacobianStatus.OK and bool(zero[row]) else own
            for row, own in enumerate(status)
        ]
        return self.frame(
            moment,
            {
                "shape": [slot.stream.shape for slot in state.slots],
                "samples": number.to(torch.int64),
                "asymmetry": found.value,
                "asymmetry_se": found.error,
                "residual": residual / number,
                "growth_rate": growth / number,
                "gradient_norm": torch.where(known > 0, square, torch.nan).sqrt(),
                "status": [each.reason for each in status],
            },
        )


def _measure(call: KeptCall) -> dict[str, Tensor | float]:
    """Measure a module at the input that was kept of its call."""
    z = call.x.clone().requires_grad_()
    output = call(z * 1)  # A tensor that is no leaf may be written over.
    backward = _adjoint(output, z)
    generator = torch.Generator(z.device).manual_seed(z.numel())
    values: dict[str, Tensor | float] = {"status": float(JacobianStatus.OK)}
    own, image = call.rows(z.detach()).double(), call.rows(output.detach()).double()
    residual = (image - own).norm(dim=-1) / image.norm(dim=-1)
    growth = _growth(call, backward, generator)
    number = torch.full_like(growth.sum(), len(own))
    values["sums"] = torch.stack([residual.sum(), growth.sum(), number])
    try:
        forward = _derivative(output, z)
        values["squares"] = torch.stack(
            [_probe(z, forward, backward, generator) for _ in range(PROBES)]
        )
    except RuntimeError:
        values["status"] = float(JacobianStatus.NO_SECOND_DERIVATIVE)
    return values


def _adjoint(output: Tensor, z: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the product with the transposed Jacobian."""

    def product(u: Tensor) -> Tensor:
        return torch.autograd.grad(output, z, u, retain_graph=True)[0]

    return product


def _derivative(output: Tensor, z: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the product with the Jacobian: the derivative of Jᵀu by u, which is linear in u."""
    u = torch.zeros_like(output, requires_grad=True)
    (pulled,) = torch.autograd.grad(output, z, u, create_graph=True)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, u, v, retain_graph=True)[0]

    return product


def _probe(
    z: Tensor,
    forward: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Return the squares of one random probe."""
    signs = torch.randint(2, z.shape, generator=generator, device=z.device) * 2 - 1
    probe = signs.to(z.dtype)
    return probe_squares(forward(probe), backward(probe))


def _growth(
    call: KeptCall, backward: Callable[[Tensor], Tensor], generator: torch.Generator
) -> Tensor:
    """Return how a random vector of each sample grows under the transposed Jacobian.

    Its eigenvalues are those of the Jacobian.
    """
    x = call.x
    vector = torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
    tiny = torch.finfo(x.dtype).tiny
    norms: list[Tensor] = []
    for _ in range(STEPS + 1):
        norm = call.rows(vector).norm(dim=-1)
        norms.append(norm.double())
        shape = [1] * x.dim()
        shape[call.dim] = -1
        vector = backward(vector / norm.clamp(min=tiny).view(shape))
    return growth_rate(torch.stack(norms[1:]))


def _player(model: nn.Module, parameters: Sequence[nn.Parameter]) -> _Measured | None:
    """Return ‖gradient‖² of some parameters; None if none of them has a gradient."""
    ids = {id(each) for each in parameters}
    names = [name for name, each in model.named_parameters() if id(each) in ids]
    gradients = [each.grad for each in parameters if each.grad is not None]
    if not gradients:
        return None
    sharded = [is_sharded(each) for each in gradients]
    ranks = dist.get_world_size() if any(sharded) else 1
    squares = [
        torch.linalg.vector_norm(_dense(owned_values(each)), dtype=torch.float64).square()
        / (1 if in_parts else ranks)
        for each, in_parts in zip(gradients, sharded, strict=True)
    ]
    square = torch.stack([each.to(squares[0].device) for each in squares]).sum()
    values: dict[str, Tensor | float] = {
        "gradient": torch.stack([square, torch.ones_like(square)]),
        "status": float(JacobianStatus.PLAYER),
    }
    stream = Stream(PLAYER, _common(names) or type(model).__name__, (), (), "g")
    return _Measured(stream, values, any(sharded))


def _dense(gradient: Tensor) -> Tensor:
    """Return the values of a gradient that may be sparse, as those of embeddings are."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _common(names: Sequence[str]) -> str:
    """Return the module that contains all parameters of some names, '' for the whole model.

    >>> _common(["net.d.0.weight", "net.d.1.bias"]), _common(["a.weight"]), _common(["a.b", "c.d"])
    ('net.d', 'a', '')
    """
    owners = [name.split(".")[:-1] for name in names]
    common = owners[0] if owners else []
    for owner in owners[1:]:
        shared = [one == other for one, other in zip(common, owner, strict=False)]
        common = common[: [*shared, False].index(False)]
    return ".".join(common)


def _state(measured: Sequence[_Measured]) -> State:
    """Stack the values of all rows."""
    if not measured:
        return State.empty(Jacobian.quantities)
    tensors = [each for row in measured for each in row.values.values() if isinstance(each, Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    stacked: dict[str, Any] = {}
    for name, quantity in Jacobian.quantities.items():
        empty = torch.zeros(quantity.shape, dtype=torch.float64)
        rows = [row.values.get(name, empty) for row in measured]
        stacked[name] = torch.stack(
            [torch.as_tensor(row, dtype=torch.float64).to(device) for row in rows]
        )
    streams = [Slot(row.stream) for row in measured]
    return State(streams, stacked, [row.shared for row in measured])
