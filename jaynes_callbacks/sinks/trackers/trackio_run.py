"""Write to a trackio run.

trackio takes records at any step, in any order.  Its run also counts the rows that a user logs
without a step, and a later step moves that counter on; it is put back, so that the user's next row
has the number that it would have had.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.sinks.trackers.base import Ability, BinnedValues, Tracker, has, loaded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TrackioRun"]


class TrackioRun(Tracker):
    """A run that `trackio.init` has made.

    Args:
        run: the run.
    """

    name = "trackio"
    needs = {  # noqa: RUF012
        Ability.SCALARS: "log",
        Ability.HISTOGRAMS: "log",
        Ability.IMAGES: "log",
        Ability.TABLE: "log",
        Ability.SUMMARY: "log",
        Ability.ARTIFACTS: "log_artifact",
    }

    @classmethod
    def recognises(cls, target: Any) -> bool:
        """Tell whether an object logs both metrics and measurements of the machine."""
        return has(target, "log", "log_system", "project")

    def log_scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        self._log(numbers, step)

    def log_histograms(self, histograms: Mapping[str, BinnedValues], step: int) -> None:
        """Show distributions."""
        row = {
            tag: loaded("trackio").Histogram(np_histogram=(each.counts, each.edges))
            for tag, each in histograms.items()
        }
        self._log(row, step)

    def log_image(self, tag: str, pixels: Any, step: int) -> None:
        """Show an image."""
        self._log({tag: loaded("trackio").Image(pixels)}, step)

    def log_table(self, tag: str, table: "pd.DataFrame", step: int) -> None:
        """Show a table."""
        self._log({tag: loaded("trackio").Table(dataframe=table)}, step)

    def summarise(self, ends: Mapping[str, float], counts: Mapping[str, float], step: int) -> None:
        """Log the counts: trackio compares runs by the values of their metrics."""
        if counts:
            self._log(counts, step)

    def log_artifact(self, path: Path) -> None:
        """Keep a file as a version of the run's artifact of that name."""
        name = f"equilibrium-{path.stem}-{self._target.name}"
        self._target.log_artifact(path, name=name, type="report")

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        counter = getattr(self._target, "_next_step", None)
        self._target.log(dict(row), step=step)
        if counter is not None:
            self._target._next_step = counter
