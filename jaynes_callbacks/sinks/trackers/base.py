"""Define a tracker: one run in a viewer, such as TensorBoard, W&B, MLflow or trackio.

Sinks ask a tracker for an `Ability` and call the method of that ability; they know no tracker by
its class.  Each class states in `Tracker.needs` which abilities it has and which method of the
tracker's own object each of them calls; docs/loggers.md shows these tables side by side.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STEP", "Ability", "BinnedValues", "Detached", "Tracker", "finite", "has", "loaded"]

#: The optimizer step, in rows of trackers that count rows instead of steps.
STEP = "trainer/global_step"

_Array = np.ndarray[Any, np.dtype[Any]]


class Ability(Enum):
    """One thing that a tracker may be able to show or keep; the value is its row in the docs."""

    SCALARS = "scalars"
    HISTOGRAMS = "histograms of ln w, from the counts"
    IMAGES = "figures"
    CHARTS = "one chart per statistic over all layers"
    HYPERPARAMETERS = "final gaps beside the hyperparameters"
    AXES = "the optimizer step as the axis of our curves"
    TABLE = "table of the final records"
    SUMMARY = "final numbers, to rank runs by"
    ARTIFACTS = "the report"


@dataclass(frozen=True)
class BinnedValues:
    """Values of one stream in bins.

    Attributes:
        edges: ``[bins + 1]``, ascending.
        counts: ``[bins]``, values between an edge and the next.
        mean: of the values themselves, not of their bins; nan where it is not known.
        std: likewise, the standard deviation.
    """

    edges: _Array
    counts: _Array
    mean: float
    std: float


class Tracker:
    """One run in a viewer; a subclass implements the methods of the abilities that it states.

    A copy of a tracker, by `copy` or `pickle`, is `Detached`: a run has one writer.

    Args:
        target: the tracker's own object, whose methods are called.

    Attributes:
        name: of the tracker, as it stands in the docs.
        needs: the abilities, and the method of the target that each needs.
    """

    name: ClassVar[str]
    needs: ClassVar[Mapping[Ability, str]] = {}

    def __init__(self, target: Any) -> None:
        self._target = target

    @property
    def label(self) -> str:
        """The name by which warnings call the tracker."""
        return self.name

    def can(self, ability: Ability) -> bool:
        """Tell whether the target has what an ability needs.

        Raises:
            Exception: whatever the target raises when it is asked.
        """
        return ability in self.needs and hasattr(self._target, self.needs[ability])

    def log_scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Add one point to each curve, by its tag."""
        raise self._cannot(Ability.SCALARS)

    def log_histograms(self, histograms: Mapping[str, BinnedValues], step: int) -> None:
        """Show distributions, by their tags."""
        raise self._cannot(Ability.HISTOGRAMS)

    def log_image(self, tag: str, pixels: _Array, step: int) -> None:
        """Show an image.

        Args:
            tag: under which it is shown.
            pixels: ``[height, width, 3 or 4]``, 8 bits each.
            step: at which it was drawn.
        """
        raise self._cannot(Ability.IMAGES)

    def lay_out(self, charts: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay out charts of several curves, in the form of TensorBoard's `add_custom_scalars`."""
        raise self._cannot(Ability.CHARTS)

    def enter(self, numbers: Mapping[str, float], step: int) -> None:
        """Enter final numbers beside the run's hyperparameters."""
        raise self._cannot(Ability.HYPERPARAMETERS)

    def define_axes(self, groups: Iterable[str]) -> None:
        """Set the optimizer step as the axis of tags, given as they begin, with ``*`` behind."""
        raise self._cannot(Ability.AXES)

    def log_table(self, tag: str, table: "pd.DataFrame", step: int) -> None:
        """Show a table of plain numbers and texts."""
        raise self._cannot(Ability.TABLE)

    def summarise(self, ends: Mapping[str, float], counts: Mapping[str, float], step: int) -> None:
        """Keep final numbers where runs can be compared and ranked by them.

        Args:
            ends: final values of curves, which `log_scalars` has had.
            counts: numbers of which there is no curve.
            step: of both.
        """
        raise self._cannot(Ability.SUMMARY)

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        raise self._cannot(Ability.ARTIFACTS)

    def _cannot(self, ability: Ability) -> NotImplementedError:
        return NotImplementedError(f"{self.label} has no {ability.value}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Detached, (self.label,)


class Detached(Tracker):
    """A tracker's copy: it has no run, and no ability."""

    name = "detached"

    @property
    def label(self) -> str:
        """The name of the tracker that was copied."""
        return str(self._target)


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that are finite."""
    return {tag: value for tag, value in numbers.items() if math.isfinite(value)}


def loaded(name: str) -> ModuleType:
    """Return a module that has been imported by whoever made the run; nothing is imported here."""
    return sys.modules[name]


def has(target: Any, *names: str) -> bool:
    """Tell whether an object has attributes of all these names."""
    return all(hasattr(target, name) for name in names)
