"""Write to an MLflow run, through a client and the run's id.

MLflow takes metric names of some characters only, and none that would be another path when it is
taken for one.  `metric_name` writes any other character as ``_x<hex>_``; `tag_of` reads it back.
"""

import re
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaynes_callbacks.sinks.trackers.base import Ability, Tracker, has, loaded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MlflowRun", "metric_name", "tag_of"]

#: Most metrics of one request, and most characters of a name: limits of MLflow's servers.
_BATCH, _LONGEST = 1000, 250
#: Image names become file names, to which MLflow adds step, time and an identifier.
_LONGEST_IMAGE = 120
_FOLDER = "equilibrium"
_ESCAPED = re.compile(r"_x([0-9a-f]+)_")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_./ -]")
#: An underscore that would be read as the beginning of an escaped character.
_AMBIGUOUS = re.compile(rf"_(?=x[0-9a-f]+(?:_|{_FORBIDDEN.pattern}|//|/$))")


class MlflowRun(Tracker):
    """A run of MLflow: on a server, in a database or in a folder.

    Args:
        client: `mlflow.MlflowClient` of the store that has the run.
        run_id: the run's id.
    """

    name = "MLflow"
    needs = {  # noqa: RUF012
        Ability.SCALARS: "log_batch",
        Ability.IMAGES: "log_image",
        Ability.TABLE: "log_text",
        Ability.SUMMARY: "log_batch",
        Ability.ARTIFACTS: "log_artifact",
    }

    def __init__(self, client: Any, run_id: str) -> None:
        super().__init__(client)
        self._run_id = run_id

    @classmethod
    def of_run(cls, run: Any) -> "MlflowRun":
        """Take an `mlflow.ActiveRun`, in the store that MLflow's functions write to now."""
        return cls(loaded("mlflow").MlflowClient(), run.info.run_id)

    @classmethod
    def recognises(cls, target: Any) -> bool:
        """Tell whether an object is a client of MLflow's."""
        return has(target, "log_batch", "create_run")

    @classmethod
    def recognises_run(cls, target: Any) -> bool:
        """Tell whether an object is a run, which MLflow gives out without methods to log by."""
        return has(target, "info", "data") and has(target.info, "run_id", "experiment_id")

    def log_scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        now = time.time_ns() // 1_000_000
        metric = loaded("mlflow.entities").Metric
        metrics = [metric(metric_name(tag), value, now, step) for tag, value in numbers.items()]
        for first in range(0, len(metrics), _BATCH):
            self._target.log_batch(self._run_id, metrics=metrics[first : first + _BATCH])

    def log_image(self, tag: str, pixels: Any, step: int) -> None:
        """Keep an image among those of its name, one a step."""
        key = metric_name(tag, _LONGEST_IMAGE)
        self._target.log_image(self._run_id, pixels, key=key, step=step)

    def log_table(self, tag: str, table: "pd.DataFrame", step: int) -> None:
        """Keep a table as an artifact that MLflow shows as a table; a later one replaces it."""
        # `log_table` would append the rows of a resumed run to those of its first part.
        text = table.to_csv(index=False)
        self._target.log_text(self._run_id, text, f"{metric_name(tag)}.csv")

    def summarise(self, ends: Mapping[str, float], counts: Mapping[str, float], step: int) -> None:
        """Log the counts: MLflow lists and ranks runs by the last value of each metric."""
        self.log_scalars(counts, step)

    def log_artifact(self, path: Path) -> None:
        """Copy a file to the run's artifacts, into the folder ``equilibrium``."""
        self._target.log_artifact(self._run_id, str(path), _FOLDER)


def metric_name(tag: str, longest: int = _LONGEST) -> str:
    """Return the name under which MLflow keeps a tag; no two tags have the same.

    Letters, digits, ``_``, ``-``, ``.``, blanks and slashes stay.  A name that is too long is cut,
    and ends with a digest of the tag: it alone cannot be read back.

    >>> metric_name("gap_weight/net.0.weight")
    'gap_weight/net.0.weight'
    >>> metric_name("gap_iota/relu#1")
    'gap_iota/relu_x23_1'
    """
    name = _FORBIDDEN.sub(lambda found: _escape(found[0]), _AMBIGUOUS.sub(_escape("_"), tag))
    parts = name.split("/")
    # A path's empty parts and those of one or two dots would be resolved.
    parts = [_escape(part[0]) + part[1:] if part in (".", "..") else part for part in parts]
    name = parts[0]
    for part in parts[1:]:
        name += f"/{part}" if name and part else f"{_escape('/')}{part}"
    if len(name) > longest:
        digest = sha256(tag.encode(errors="surrogatepass")).hexdigest()[:12]
        name = f"{name[: longest - len(digest) - 1].rstrip('/.')}-{digest}"
    return name


def tag_of(name: str) -> str:
    """Return the tag that `metric_name` has made a name of.

    >>> tag_of("gap_iota/relu_x23_1")
    'gap_iota/relu#1'
    """
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)


def _escape(character: str) -> str:
    return f"_x{ord(character):x}_"
