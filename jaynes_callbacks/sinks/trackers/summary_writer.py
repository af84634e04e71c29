"""Write to TensorBoard through a `SummaryWriter`.

Of a run's layouts of charts TensorBoard heeds the last, so none is written where the run's files
hold one already; of its entries of hyperparameters it heeds the first.

Lightning's logger writes the entry when a run begins: if a module or a user gave hyperparameters,
with one metric, ``hp_metric``, a placeholder of -1 (``default_hp_metric=True``).  No column can be
added to it afterwards; so a placeholder that nobody has filled until the end gets the median gap.
With ``default_hp_metric=False`` Lightning writes none, and the entry is ours: all aggregates.  A
writer of a user's own knows no hyperparameters, and gets no entry.
"""

import math
import re
from collections.abc import Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from jaynes_callbacks.sinks.trackers.base import Ability, BinnedValues, Tracker

__all__ = ["SummaryWriterTracker"]

_LAYOUT, _PLACEHOLDER = "custom_scalars__config__", "hp_metric"


class SummaryWriterTracker(Tracker):
    """A `torch.utils.tensorboard.SummaryWriter`, or what has some of its methods.

    Args:
        writer: the writer.
        owner: the logger that the writer belongs to; its ``hparams`` are entered.
    """

    name = "TensorBoard"
    needs = {  # noqa: RUF012
        Ability.SCALARS: "add_scalar",
        Ability.HISTOGRAMS: "add_histogram_raw",
        Ability.IMAGES: "add_image",
        Ability.CHARTS: "add_custom_scalars",
        Ability.HYPERPARAMETERS: "add_custom_scalars",
    }

    def __init__(self, writer: Any, owner: Any = None) -> None:
        super().__init__(writer)
        self._owner = owner
        self._placeholders = 0

    @classmethod
    def recognises(cls, target: Any) -> bool:
        """Tell whether an object has any of the writer's methods."""
        return any(hasattr(target, name) for name in cls.needs.values())

    def can(self, ability: Ability) -> bool:
        """Tell whether the writer has what an ability needs, and files to look into for charts."""
        if ability is Ability.HYPERPARAMETERS and self._owner is None:
            return False
        if ability in (Ability.CHARTS, Ability.HYPERPARAMETERS):
            # Lightning's placeholder of a logger answers to every name, with None.
            return super().can(ability) and isinstance(self._target.get_logdir(), str | Path)
        return super().can(ability)

    def log_scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        for tag, value in numbers.items():
            self._target.add_scalar(tag, value, global_step=step)

    def log_histograms(self, histograms: Mapping[str, BinnedValues], step: int) -> None:
        """Write one summary each; its sums are of the values' own moments, not of their bins."""
        for tag, each in histograms.items():
            n = int(each.counts.sum())
            square = each.std**2 + each.mean**2
            self._target.add_histogram_raw(
                tag,
                min=float(each.edges[0]),
                max=float(each.edges[-1]),
                num=n,
                sum=n * each.mean if math.isfinite(each.mean) else 0.0,
                sum_squares=n * square if math.isfinite(square) else 0.0,
                bucket_limits=each.edges[1:].tolist(),
                bucket_counts=each.counts.tolist(),
                global_step=step,
            )

    def log_image(self, tag: str, pixels: Any, step: int) -> None:
        """Write an image."""
        self._target.add_image(tag, pixels, global_step=step, dataformats="HWC")

    def lay_out(self, charts: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay out the tab Custom Scalars, unless the run's files have a layout."""
        self._placeholders = self._occurrences(_PLACEHOLDER)
        if not self._occurrences(_LAYOUT):
            self._target.add_custom_scalars(charts)

    def enter(self, numbers: Mapping[str, float], step: int) -> None:
        """Fill Lightning's placeholder, or make the entry if hyperparameters are known."""
        if self._placeholders:
            if self._placeholders == self._occurrences(_PLACEHOLDER):
                self._target.add_scalar(_PLACEHOLDER, _headline(numbers), global_step=step)
        elif given := dict(_flat(getattr(self._owner, "hparams", {}))):
            self._enter_all(given, numbers, step)

    def _enter_all(self, given: dict[str, Any], numbers: Mapping[str, float], step: int) -> None:
        # Not `SummaryWriter.add_hparams`: it puts the entry into a run of its own.
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(given, dict(numbers)):
            self._target._get_file_writer().add_summary(summary, step)

    def _occurrences(self, text: str) -> int:
        """Count a text in the run's files: cheaper than to parse a million events."""
        self._target.flush()
        files = Path(self._target.get_logdir()).glob("*tfevents*")
        return sum(_occurrences(file, text.encode()) for file in files if file.stat().st_size)


def _occurrences(file: Path, text: bytes) -> int:
    with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        return sum(1 for _ in re.finditer(re.escape(text), content))


def _headline(numbers: Mapping[str, float]) -> float:
    """Return the median gap of the weights, or of activations where no weights are watched."""
    return next(value for tag, value in numbers.items() if tag.endswith("/gap_median"))


def _flat(values: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested hyperparameters as Lightning names them; what is no number as text.

    >>> dict(_flat({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}}))
    {'optimizer/lr': 0.1, 'optimizer/betas': '[0.9, 0.99]'}
    """
    for key, value in (values if isinstance(values, Mapping) else vars(values)).items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}/")
        else:
            yield f"{before}{key}", value if isinstance(value, int | float | str) else str(value)
