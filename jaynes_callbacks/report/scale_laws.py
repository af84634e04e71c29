"""The law of the scales of rows and columns, pooled over the layers of a network.

One layer has few scales: a hundred or a thousand, where it has a million weights.  Each layer's
scales keep parameters of their own, for nothing ties the spread of one layer to another's; what is
pooled is how far each family stays from the scales, Σ n·gap / Σ n.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaynes_callbacks.instruments.cores import COLUMNS, ROWS
from jaynes_callbacks.instruments.laws import criterion, family_label
from jaynes_callbacks.instruments.scale_row import SCALE, SCHEMA
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import read_frame
from jaynes_callbacks.records.parts import parts
from jaynes_callbacks.records.schema import Array
from jaynes_callbacks.statistics import LOGNORMAL, RIVALS_2

__all__ = ["RELIABLE", "PooledLaw", "pooled_laws", "read_pooled_laws"]

#: Least share of the variance of a layer's scales that is not chance.  With less, the scales are
#: partly means of many values, which are nearly lognormal whatever the law.
RELIABLE = 0.9


class PooledLaw(NamedTuple):
    """How near the families are to the scales of some layers.

    Attributes:
        what: ``rows`` or ``columns``.
        layers: number of weights whose scales are pooled.
        left_out: number of weights whose scales are too near to chance, or have no fit.
        n: number of scales.
        gaps: weighted mean gap of each family that has a fit in every layer, in nats.
        best: the family that Schwarz's criterion prefers over all layers together.
        alone: labels of the families that layers prefer by themselves, and how many layers.
    """

    what: str
    layers: int
    left_out: int
    n: int
    gaps: Mapping[str, float]
    best: str
    alone: Sequence[tuple[str, int]]

    @property
    def rival(self) -> str:
        """The family with the smallest gap besides the lognormal; empty if there is none."""
        rivals = [name for name in self.gaps if name != LOGNORMAL.name]
        return min(rivals, key=self.gaps.__getitem__, default="")

    @property
    def label(self) -> str:
        """The preferred family, as people write it."""
        return family_label(self.best)

    @property
    def gap(self) -> float:
        """Pooled gap of the lognormal, in nats."""
        return self.gaps[LOGNORMAL.name]


def read_pooled_laws(folder: Path | None) -> list[PooledLaw]:
    """Read the newest record of the instrument `scales` and pool it; nothing if it has none.

    Raises:
        OSError: if a part cannot be read.
        ValueError: likewise.
    """
    if folder is None or not (found := parts(folder)):
        return []
    frame = read_frame(list(found.values())[-1], SCHEMA, counts=False)
    if not len(frame):
        return []
    ends = [rows[-1] for rows in frame.rows_by_stream().values()]
    return pooled_laws(frame.take(np.array(ends, dtype=np.int64)))


def pooled_laws(frame: Frame[Any]) -> list[PooledLaw]:
    """Pool the scales of rows, and those of columns.

    Args:
        frame: one row for each stream, of the instrument `scales`.
    """
    is_scale = frame["kind"] == SCALE
    found = []
    for suffix in (ROWS, COLUMNS):
        of_it = is_scale & np.array([name.endswith(suffix) for name in frame["name"].tolist()])
        usable = of_it & (frame["reliability"] >= RELIABLE) & np.isfinite(frame["core_gap"])
        if usable.any():
            left_out = int(of_it.sum() - usable.sum())
            found.append(_pooled(suffix.lstrip("."), frame.take(usable), left_out))
    return found


def _pooled(what: str, rows: Frame[Any], left_out: int) -> PooledLaw:
    n = rows["n"].astype(float)
    gaps: dict[str, float] = {}
    criteria: dict[str, float] = {}
    for family in (LOGNORMAL, *RIVALS_2):
        own = _gaps(rows, family.name)
        if np.isfinite(own).all():
            gaps[family.name] = float((n * own).sum() / n.sum())
            criteria[family.name] = float((n * criterion(own, n, len(family.parameters))).sum())
    alone = Counter(family_label(name) for name in rows["core_best_family"].tolist() if name)
    best = min(criteria, key=criteria.__getitem__)
    return PooledLaw(what, len(n), left_out, int(n.sum()), gaps, best, alone.most_common())


def _gaps(rows: Frame[Any], family: str) -> Array:
    name = "core_gap" if family == LOGNORMAL.name else f"core_gap_{family}"
    return np.ma.filled(rows[name].astype(float), np.nan)
