"""One call each: analyse tensors, measure a checkpoint, compare two states of one network."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from os import PathLike
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from jaynes_callbacks.counts.arrays import Array, as_tensor
from jaynes_callbacks.counts.counting import reason_not_countable
from jaynes_callbacks.files import Checkpoint, CheckpointError, Limits, open_checkpoint
from jaynes_callbacks.files.entry import tensor_entries
from jaynes_callbacks.files.pairing import pair_names
from jaynes_callbacks.files.survey import Survey
from jaynes_callbacks.instruments.cores import core_of
from jaynes_callbacks.instruments.distribution import Tallied
from jaynes_callbacks.instruments.judge import judged
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.instruments.scales import with_cores
from jaynes_callbacks.instruments.tally import PAPER_BINS, checked_bins, tally_of_tensors
from jaynes_callbacks.probes.selection import MIN_SIZE, Selection
from jaynes_callbacks.records.stream import WEIGHT, Stream

__all__ = [
    "Comparison",
    "GapChange",
    "Measured",
    "Pair",
    "analyse",
    "compare",
    "compare_measured",
    "measure_checkpoint",
]

_Tensors = Array | Mapping[str, Array]
_Path = str | PathLike[str]


def analyse(tensors: _Tensors | _Path, *, paper_bins: int = PAPER_BINS) -> Records:
    """Measure how the magnitudes of tensors are distributed.

    A record's `gap_se` is cluster-robust, with rows and columns (the first two dimensions) as
    clusters, where a tensor has at least two dimensions and at least ten rows (rows alone with
    fewer than ten columns); otherwise its values count as independent.  There is no `verdict`: it
    compares a start and an end.

    Args:
        tensors: one tensor of weights; several by name, such as a model's ``state_dict()``; or the
            path of a checkpoint of any size.  A tensor may be one of PyTorch, an array of numpy,
            or anything with ``__dlpack__``, such as an array of JAX.  Of a state dict and of a
            checkpoint those tensors are measured that a training run would watch: weights of two or
            more dimensions and at least `MIN_SIZE` elements, tied ones once.  (`measure_checkpoint`
            also takes patterns.)  In a mapping, such a tensor without magnitudes (an integer or
            complex one, one on the meta device) gets a record whose status says so; a mapping that
            has tensors of fewer dimensions only is measured whole.
        paper_bins: number of equal bins of the paper's protocol.

    Returns:
        One record per tensor, in order.

    Raises:
        TypeError: for anything else than tensors or a path, and for a single tensor without
            magnitudes.
        ValueError: for too few or too many bins.
        FileNotFoundError, CheckpointError: for a path at which there is nothing to measure.

    Example:
        >>> import torch
        >>> weights = torch.randn(500, 200, generator=torch.Generator().manual_seed(0))
        >>> (record,) = analyse(weights)
        >>> record.best_family, round(record.gap, 1)
        ('half_normal', 0.2)
    """
    if isinstance(tensors, str | PathLike):
        return measure_checkpoint(tensors, paper_bins=paper_bins)
    checked_bins(paper_bins)
    is_single = not isinstance(tensors, Mapping)
    named = _by_name(tensors)
    refused = {
        name: reason for name, tensor in named.items() if (reason := reason_not_countable(tensor))
    }
    if refused and is_single:
        (reason,) = refused.values()
        raise TypeError(
            f"magnitudes are taken of a real floating-point tensor that holds values, got one "
            f"{reason}; convert it (a complex tensor by .abs()) and call again"
        )
    named = _weights(named)
    known = {name: tensor for name, tensor in named.items() if name not in refused}
    measured = _measure(known, paper_bins)
    return Records(
        measured.get(name) or Record(name=name, shape=tuple(tensor.shape), status=refused[name])
        for name, tensor in named.items()
    )


def measure_checkpoint(
    path: _Path,
    *,
    include: Sequence[str] | str = "*",
    exclude: Sequence[str] | str = (),
    min_size: int = MIN_SIZE,
    device: torch.device | str = "cpu",
    max_expanded: int = 256,
    paper_bins: int = PAPER_BINS,
    scales: bool = True,
) -> Records:
    """Measure the weights in a checkpoint, as a training run would have recorded them.

    The network may be of any size: where the file's format can be mapped, only one slice of a
    tensor is in memory at a time.

    Args:
        path: a file, an index of shards, a directory of one model, or a model on the hub
            (``hf://org/name[@revision][/file]``), of which nothing is kept.
        include: glob patterns; a tensor must match one.
        exclude: glob patterns; a tensor must match none.
        min_size: tensors with fewer elements are left out.
        device: where values are counted.
        max_expanded: MiB of memory that one tensor may take although the file stores fewer than a
            32nd of its bytes (compressed or repeated values).
        paper_bins: number of equal bins of the paper's protocol.
        scales: whether to measure the core of each weight, without the scales of rows and columns.

    Returns:
        One record per weight of two or more dimensions, tied ones once, in the file's order.  Their
        `run` is the path.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: if it is no checkpoint that can be read, or holds nothing to measure.
        ValueError: for a pattern that matches nothing, or too few or too many bins.

    Warns:
        UserWarning: with one sentence for each part that could not be read.
    """
    selection = Selection.of(WEIGHT, include, exclude, min_size)
    checkpoint = open_checkpoint(path, Limits(max_expanded << 20))
    survey = Survey(checkpoint, selection, paper_bins, scales=scales)
    return _measure_survey(survey, device).records


# Comparing ----------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """A checkpoint and the records of its weights."""

    survey: Survey
    records: Records


class Pair(NamedTuple):
    """The records of one weight in both checkpoints; the later one has `moved` and `verdict`."""

    before: Record
    after: Record

    @property
    def gap_change(self) -> float:
        """The later gap minus the earlier one, in nats; nan where a gap is."""
        return self.after.gap - self.before.gap


class GapChange(NamedTuple):
    """How the gaps of a network's weights changed.

    Attributes:
        comparable: number of weights that have a gap in both checkpoints.
        fell: number of them whose gap is smaller in the later one.
        median: of the changes, in nats.
    """

    comparable: int
    fell: int
    median: float


class Comparison(NamedTuple):
    """Two checkpoints of one network, weight by weight.

    Attributes:
        pairs: the weights that both have, in the order of the earlier one.
        only_before: names of weights that only the earlier one has.
        only_after: names of weights that only the later one has.
    """

    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def verdicts(self) -> Mapping[str, int]:
        """Number of pairs by verdict, in the order in which the verdicts appear."""
        return Counter(pair.after.verdict for pair in self.pairs)

    @property
    def gap_change(self) -> GapChange | None:
        """How the gaps changed; None if no weight has a gap in both checkpoints."""
        changes = [pair.gap_change for pair in self.pairs if math.isfinite(pair.gap_change)]
        if not changes:
            return None
        return GapChange(len(changes), sum(change < 0 for change in changes), median(changes))


def compare(
    before: _Tensors | _Path,
    after: _Tensors | _Path,
    *,
    include: Sequence[str] | str = "*",
    exclude: Sequence[str] | str = (),
    min_size: int = MIN_SIZE,
    device: torch.device | str = "cpu",
    max_expanded: int = 256,
) -> Comparison:
    """Compare two states of one network, and judge each weight by the rule of a training run.

    Weights are paired by name, and what is left by the longest common end of the name at equal
    shape.  `moved` is ‖w − w₀‖/‖w₀‖ over 4096 evenly spread values, to about 1 % of itself; the
    verdict is explained in docs/statistics.md.

    Args:
        before: the earlier state: the path of a checkpoint, or tensors by name.
        after: the later state, likewise.
        include: glob patterns; a tensor must match one.
        exclude: glob patterns; a tensor must match none.
        min_size: tensors with fewer elements are left out.
        device: where values are counted.
        max_expanded: as for `measure_checkpoint`.

    Returns:
        The records of each weight, and the names that only one state has.  The records' `run` is
        the path, or ``before`` and ``after`` for tensors.

    Raises:
        FileNotFoundError: if there is no such path.
        CheckpointError: if one is no checkpoint that can be read, or holds nothing to measure.
        ValueError: for a pattern that matches nothing.
        TypeError: for anything else than tensors or a path.

    Warns:
        UserWarning: with one sentence for each part that could not be read.

    Example:
        >>> import torch
        >>> source = torch.Generator().manual_seed(0)
        >>> before = {"fc.weight": torch.randn(100, 100, generator=source)}
        >>> after = {"fc.weight": torch.randn(100, 100, generator=source).exp()}
        >>> (pair,) = compare(before, after).pairs
        >>> pair.after.best_family, pair.after.verdict
        ('lognormal', 'emerged')
    """
    selection = Selection.of(WEIGHT, include, exclude, min_size)
    # Open both first, so that a wrong path or pattern is refused before anything is measured.
    limits = Limits(max_expanded << 20)
    survey_before = Survey(_checkpoint(before, "before", limits), selection)
    survey_after = Survey(_checkpoint(after, "after", limits), selection)
    measured_before = _measure_survey(survey_before, device, keep_traces=True)
    measured_after = _measure_survey(survey_after, device, keep_traces=True)
    return compare_measured(measured_before, measured_after)


def compare_measured(before: Measured, after: Measured) -> Comparison:
    """Compare two checkpoints that have been measured; see `compare`."""
    names = pair_names(
        {record.name: record.shape for record in before.records},
        {record.name: record.shape for record in after.records},
    )
    later = {record.name: record for record in after.records}
    pairs = []
    for record in before.records:
        if record.name in names:
            end = later[names[record.name]]
            first, now = before.survey.traces[record.name], after.survey.traces[end.name]
            end = end.replace(
                moved=now.distance_from(first), gap_change_se=now.error_of_change(first)
            )
            pairs.append(Pair(record, judged(record, end)))
    return Comparison(
        tuple(pairs),
        tuple(record.name for record in before.records if record.name not in names),
        tuple(name for name in later if name not in names.values()),
    )


# Measuring ----------------------------------------------------------------------------------------


def _by_name(tensors: _Tensors) -> Mapping[str, Tensor]:
    """Check the tensors and arrays that a user gave, and name a single one.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(tensors, Mapping):
        if not isinstance(tensors, Array):
            raise TypeError(
                "expected a tensor, an array, a mapping of names to some or the path of a "
                f"checkpoint, got {type(tensors).__name__}; for a module pass its state_dict()"
            )
        return {"tensor": as_tensor(tensors)}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Array):
            raise TypeError(
                f"expected a tensor or an array under every name, got {type(tensor).__name__} "
                f"under {name!r}; convert it by numpy.asarray"
            )
    return {name: as_tensor(tensor) for name, tensor in tensors.items()}


def _weights(named: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Leave out of a state dict what a training run would not watch, and `jaynes fit` does not.

    Tensors that a user gives one by one, such as flattened weights, are all kept.
    """
    if all(tensor.dim() < 2 for tensor in named.values()):
        return named
    selection = Selection.of(WEIGHT, "*", (), MIN_SIZE)
    entries = tensor_entries(named.items(), mapped=False)
    return {
        entry.name: named[entry.name]
        for entry in entries
        if len(entry.shape) >= 2 and selection.too_small(entry.size) is None
    }


def _measure(named: Mapping[str, Tensor], paper_bins: int) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for flat in (False, True):
        # Only a matrix has rows and columns.
        own = {name: each for name, each in named.items() if (each.dim() < 2) is flat}
        streams = [Stream(WEIGHT, name, tuple(tensor.shape)) for name, tensor in own.items()]
        tallied = Tallied(streams, tally_of_tensors(list(own.values()), paper_bins))
        cores = [] if flat else [core_of(tensor) for tensor in own.values()]
        # No verdict: it compares two moments of a training run; here is only one.
        found |= {row.name: row for row in with_cores(tallied, cores)} if own else {}
    return found


def _checkpoint(state: _Tensors | _Path, name: str, limits: Limits) -> Checkpoint:
    """Open a path, or make a checkpoint of tensors in memory under the given name."""
    if isinstance(state, str | PathLike):
        return open_checkpoint(state, limits)
    return Checkpoint(Path(name), tensor_entries(_by_name(state).items(), mapped=False))


def _measure_survey(
    survey: Survey, device: torch.device | str, *, keep_traces: bool = False
) -> Measured:
    with closing(survey):
        groups = survey.records(device=device, keep_traces=keep_traces)
        records = Records(chain.from_iterable(groups))
    if not records:
        raise CheckpointError(survey.reason_for_no_records())
    for problem in survey.problems:
        # Point at the caller of the public function.
        warnings.warn(problem.reason, stacklevel=3)
    return Measured(survey, records)
