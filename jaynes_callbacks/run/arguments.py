"""The arguments that every host's monitor takes, stated once, and what is made of them.

`EquilibriumMonitor` of Lightning, the callback of the Hugging Face Trainer and `watch` of a plain
loop have the signature of `Arguments`: `accepts` gives it to their constructors.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from torch import nn

from jaynes_callbacks.instruments import DEFAULT, made
from jaynes_callbacks.instruments.base import Instrument
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.probes.selection import Selection
from jaynes_callbacks.recorder import IOTA_VALUES_PER_CALL, MIN_SIZE, Recorder
from jaynes_callbacks.records.stream import IOTA, WEIGHT
from jaynes_callbacks.run.run import IotaFrom, Listening, WatchedRun
from jaynes_callbacks.schedule import Cadence, Schedule, describe, every
from jaynes_callbacks.sinks.base import Sink
from jaynes_callbacks.sinks.delivery import Delivery

__all__ = ["DESCRIPTION", "Arguments", "accepts", "default_sinks"]

P = ParamSpec("P")
A_co = TypeVar("A_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

#: The arguments, as the docstrings of all that take them have them.
DESCRIPTION = """\
instruments: what is measured: names, of `jaynes_callbacks.instruments.KNOWN`, ``"all"``
            for every one of them, or objects with a cadence of their own, such as
            ``Gradients(Cadence(every_n_steps=100))``.
        kinds: ``weight``, ``iota`` (activations) or both.
        include: glob patterns on stream names, e.g. ``"encoder.*"``; only these are watched.
        exclude: glob patterns on stream names that are not watched.
        min_size: weights with fewer elements are skipped.
        activations: modules that are activations as a whole, where a function is written out by
            hand: glob patterns on their names, or a mapping of such patterns to what is recorded,
            e.g. ``{"*.act": "gelu", "*.softcap": None}``.  ``"z*y"`` (by default) or the name of a
            function is the pre-activation times the output, ``"y"`` or ``"relu"`` the output, and
            None leaves the module out.  Classes of transformers and timm are known.
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
        dirpath: where to write; by default where the host keeps its own files.
        sinks: replaces the default sinks (loggers, dataset, figures)."""


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


@dataclass(frozen=True, kw_only=True)
class Arguments:  # noqa: D101
    __doc__: str | None = f"""All that a user chooses when a run is watched.

    Args:
        {DESCRIPTION}

    Raises:
        ValueError: for an argument that is out of range.
        TypeError: for an instrument or a sink that is none.
    """

    instruments: Sequence[str | Instrument[Any]] | str | Instrument[Any] = DEFAULT
    kinds: Sequence[str] | str = (WEIGHT, IOTA)
    include: Sequence[str] | str = "*"
    exclude: Sequence[str] | str = ()
    min_size: int = MIN_SIZE
    activations: Mapping[str, str | None] | Sequence[str] | str = ()
    every_n_epochs: int | Schedule | None = 1
    every_n_steps: int | Schedule | None = None
    iota_every_n_batches: int = 16
    iota_values_per_call: int = IOTA_VALUES_PER_CALL
    iota_groups: int | None = None
    paper_bins: int = PAPER_BINS
    iota_from: IotaFrom = "train"
    figures_every_n_epochs: int | None = None
    dirpath: str | Path | None = None
    sinks: Sequence[Sink] | None = None
    _made: Sequence[Instrument[Any]] = field(init=False, repr=False)
    _cadence: Cadence = field(init=False, repr=False)
    _listening: Listening = field(init=False, repr=False)

    def __post_init__(self) -> None:
        Selection.of(self.kinds, self.include, self.exclude, self.min_size, self.activations)
        of_magnitudes = {
            "iota_values_per_call": self.iota_values_per_call,
            "iota_groups": self.iota_groups,
            "paper_bins": self.paper_bins,
        }
        due = every(self.iota_every_n_batches, what="iota_every_n_batches")
        derived = {
            "_made": made(self.instruments, {"magnitudes": of_magnitudes}),
            "_cadence": Cadence(self.every_n_epochs, self.every_n_steps),
            "_listening": Listening(due, self.iota_from),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # The class is frozen.

    def delivery(self) -> Delivery:
        """Make the histories of the instruments, and the sinks that get their records."""
        sinks = default_sinks(self.figures_every_n_epochs) if self.sinks is None else self.sinks
        return Delivery(sinks, {each.name: each.schema for each in self._made})

    def watched_run(self, model: nn.Module, delivery: Delivery, dirpath: Path | None) -> WatchedRun:
        """Find the streams of a model, and make the run that records them.

        Args:
            model: that is about to be trained.
            delivery: where records go.
            dirpath: where sinks write; None for where the host says.

        Raises:
            ValueError: for patterns that match nothing, or a `min_size` above every layer.
        """
        recorder = Recorder(
            model,
            instruments=deepcopy(self._made),
            kinds=self.kinds,
            include=self.include,
            exclude=self.exclude,
            min_size=self.min_size,
            activations=self.activations,
        )
        recorder.attach()
        return WatchedRun(recorder, delivery, self._cadence, self._listening, dirpath)

    @property
    def key(self) -> str:
        """Tells the states of several monitors in one checkpoint apart.

        The same in every process; a function of one's own counts by its qualified name.
        """
        named: dict[str, Any] = {
            "kinds": self.kinds,
            "include": self.include,
            "exclude": self.exclude,
            "min_size": self.min_size,
            "iota_values_per_call": self.iota_values_per_call,
            # None was 0 in version 0.1, whose checkpoints are resumed.
            "iota_groups": self.iota_groups or 0,
            "every_n_epochs": self.every_n_epochs,
            "every_n_steps": self.every_n_steps,
            "iota_every_n_batches": self.iota_every_n_batches,
            "iota_from": self.iota_from,
            "dirpath": self.dirpath,
        }
        if self.activations:
            named["activations"] = self.activations
        if self.paper_bins != PAPER_BINS:
            named["paper_bins"] = self.paper_bins
        # With the default the key is that of version 0.1, whose checkpoints are resumed.
        if (names := [each.name for each in self._made]) != list(DEFAULT):
            named["instruments"] = names
        return ", ".join(f"{name}={describe(value)}" for name, value in named.items())


class _Decorator(Protocol[P, A_co]):
    """Types of what `accepts` returns, for functions with one and two arguments of their own."""

    @overload
    def __call__(self, function: Callable[[S, A_co], R], /) -> Callable[Concatenate[S, P], R]: ...
    @overload
    def __call__(
        self, function: Callable[[S, T, A_co], R], /
    ) -> Callable[Concatenate[S, T, P], R]: ...


def accepts(arguments: Callable[P, A_co]) -> _Decorator[P, A_co]:
    """Let a constructor or function whose last argument is `Arguments` take each by its name.

    Signature, defaults and types are those of the class of arguments: for type checkers, for
    `help`, and for parsers of configurations, which read the signature.

    Args:
        arguments: the class, `Arguments` or one derived from it.

    Example:
        >>> class Monitor:
        ...     @accepts(Arguments)
        ...     def __init__(self, arguments: Arguments) -> None:
        ...         self.arguments = arguments
        >>> Monitor(min_size=100).arguments.min_size
        100
    """
    make = cast("Callable[..., Any]", arguments)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        of_function, of_class = inspect.signature(function), inspect.signature(make)
        *own, last = of_function.parameters.values()

        @wraps(function)
        def accepting(*args: Any, **kwargs: Any) -> Any:
            named = {each.name: kwargs.pop(each.name) for each in own if each.name in kwargs}
            chosen = make(*args[len(own) :], **kwargs)
            return function(*args[: len(own)], **named, **{last.name: chosen})

        # What parsers read: of a function that is wrapped they would read the function itself.
        del vars(accepting)["__wrapped__"]
        parameters = [*own, *of_class.parameters.values()]
        vars(accepting)["__signature__"] = of_function.replace(parameters=parameters)
        accepting.__annotations__ = {}
        return accepting

    return cast("_Decorator[P, A_co]", decorate)
