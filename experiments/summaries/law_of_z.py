"""Compare the lognormal with the exponential on iota itself, Z.

Constant benefit and linear cost give an exponential law of Z, the prediction of the Hopfield
network and the Boltzmann machine (the paper's Eqs 32-37).  Of ReLU the outputs y are counted and
Z = y², so that the edges of Z's bins are the squares of y's.  The lognormal's gap is the same for
both; the exponential's is not: for y it would be a Rayleigh law.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from jaynes_callbacks.instruments.distribution import counts_of
from jaynes_callbacks.instruments.record import Record
from jaynes_callbacks.records.stream import IOTA
from jaynes_callbacks.statistics import (
    FAMILY_BY_NAME,
    LOGNORMAL,
    fit_family,
    gap,
    log_moments,
    occupied_bins,
)

__all__ = ["gaps_on_z"]

_EXPONENTIAL = FAMILY_BY_NAME["exponential"]


def gaps_on_z(records: Sequence[Record]) -> pd.DataFrame:
    """Return the gaps of Z's law in nats per value, one row per record; nan for weights.

    Args:
        records: with their counts.

    Returns:
        Columns ``z_lognormal`` and ``z_exponential``.
    """
    gaps = np.full((len(records), 2), np.nan)
    rows = [number for number, record in enumerate(records) if record.kind == IOTA and record.n]
    if rows:
        chosen = [records[row] for row in rows]
        binned = occupied_bins(counts_of(chosen))
        power = torch.tensor([2.0 if record.variable == "y" else 1.0 for record in chosen])
        power = power.to(binned.lower)[:, None]
        z = binned._replace(lower=power * binned.lower, upper=power * binned.upper)
        for column, family in enumerate((LOGNORMAL, _EXPONENTIAL)):
            gaps[rows, column] = gap(z, fit_family(family, z, log_moments(z))).numpy()
    return pd.DataFrame(gaps, columns=["z_lognormal", "z_exponential"])
