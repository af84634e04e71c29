"""Write to a Weights & Biases run.

W&B keeps rows and a counter of them, which may only grow: a row that is given a step behind the
counter is refused.  So a record never sets the counter.  It joins the row that is open, under the
optimizer step as a key of its own, and the user's next ``run.log`` completes the row.  Only where
the user has logged nothing since the record before, which would otherwise be overwritten, the open
row is closed first and the counter moves by one: never by more than there were optimizer steps.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.sinks.trackers.base import STEP, Ability, BinnedValues, Tracker, has, loaded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["WandbRun"]


class WandbRun(Tracker):
    """A `wandb.Run`, online or offline.

    Args:
        run: the run.
        own_rows: close a row that the user has left open since the record before.  Say False if
            your own ``run.log(..., step=)`` counts something slower than optimizer steps, such as
            epochs: W&B then keeps the newest record of each of your rows.
        log_metrics: logs a row at a step in place of the run: Lightning's logger, which has rows
            of its own and may put a prefix before tags.
    """

    name = "W&B"
    needs = {  # noqa: RUF012
        Ability.SCALARS: "log",
        Ability.HISTOGRAMS: "log",
        Ability.IMAGES: "log",
        Ability.AXES: "define_metric",
        Ability.TABLE: "log",
        Ability.SUMMARY: "summary",
    }

    def __init__(
        self,
        run: Any,
        *,
        own_rows: bool = True,
        log_metrics: Callable[..., None] | None = None,
    ) -> None:
        super().__init__(run)
        self._own_rows = own_rows
        self._log_metrics = log_metrics
        #: The counter and the optimizer step at our last row.
        self._open: tuple[int, int] | None = None

    @classmethod
    def recognises(cls, target: Any) -> bool:
        """Tell whether an object defines axes and has a summary that can be updated."""
        return has(target, "define_metric", "summary") and has(target.summary, "update")

    def log_scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        self._log(numbers, step)

    def log_histograms(self, histograms: Mapping[str, BinnedValues], step: int) -> None:
        """Show distributions, all in one row."""
        row = {
            tag: loaded("wandb").Histogram(np_histogram=(each.counts.tolist(), each.edges.tolist()))
            for tag, each in histograms.items()
        }
        self._log(row, step)

    def log_image(self, tag: str, pixels: Any, step: int) -> None:
        """Show an image."""
        self._log({tag: [loaded("wandb").Image(pixels)]}, step)

    def define_axes(self, groups: Iterable[str]) -> None:
        """Set the optimizer step as the axis; Lightning does so for runs that it makes itself."""
        self._target.define_metric(STEP)
        for group in groups:
            self._target.define_metric(group, step_metric=STEP, step_sync=True)

    def log_table(self, tag: str, table: "pd.DataFrame", step: int) -> None:
        """Show a table."""
        self._log({tag: loaded("wandb").Table(dataframe=table)}, step)

    def summarise(self, ends: Mapping[str, float], counts: Mapping[str, float], step: int) -> None:
        """Put final numbers into the run's summary."""
        self._target.summary.update({**ends, **counts})

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        if self._log_metrics is not None:
            self._log_metrics(dict(row), step=step)
            return
        run = self._target
        if self._own_rows and self._open is not None:
            counter, last = self._open
            if last != step and counter == run.step:
                run.log({}, commit=True)
        run.log({**row, STEP: step}, commit=False)
        self._open = run.step, step
