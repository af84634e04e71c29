"""Counts in, typed results out: pure functions, batched over streams, on the counts' device.

=================  ==========================================================================
`binned`           the occupied bins of many streams side by side
`moments`          moments of ln w
`families`         the lognormal and its rivals
`fit`              batched grouped maximum likelihood
`goodness`         the gap and other distances to a fit
`dependence`       standard errors where values depend on each other
`landmarks`        where known laws lie in the microstructure map
`equilibrium`      utility, potential, entropy, arbitrage gap
`paper`            the paper's own protocol
`curve`            its least squares
=================  ==========================================================================
"""

from jaynes_callbacks.statistics.binned import Binned, occupied_bins
from jaynes_callbacks.statistics.curve import paper_curve
from jaynes_callbacks.statistics.dependence import (
    bootstrap_standard_error,
    clustered_standard_errors,
    jackknife_standard_error,
)
from jaynes_callbacks.statistics.equilibrium import (
    ActivationReading,
    Equilibrium,
    NetworkTotals,
    activation_reading,
    effective_utility,
    equilibrium,
    log_partition,
    network_totals,
)
from jaynes_callbacks.statistics.families import (
    FAMILIES,
    GENERALIZED_GAMMA,
    LOGNORMAL,
    RIVALS,
    Family,
    SmoothFamily,
)
from jaynes_callbacks.statistics.fit import Fit, fit_families, fit_family
from jaynes_callbacks.statistics.goodness import (
    Distances,
    deviance,
    distances,
    gap,
    gap_standard_error,
    vuong_z,
)
from jaynes_callbacks.statistics.landmarks import (
    LogShape,
    generalized_gamma_shape,
    half_student_t_shape,
    landmarks,
)
from jaynes_callbacks.statistics.moments import LogMoments, Totals, log_moments, totals
from jaynes_callbacks.statistics.paper import (
    FEWEST_WEIGHTS,
    PaperFit,
    gaussian_masses,
    linear_from_counts,
    paper_protocol,
)
from jaynes_callbacks.statistics.status import Status

__all__ = [
    "FAMILIES",
    "FEWEST_WEIGHTS",
    "GENERALIZED_GAMMA",
    "LOGNORMAL",
    "RIVALS",
    "ActivationReading",
    "Binned",
    "Distances",
    "Equilibrium",
    "Family",
    "Fit",
    "LogMoments",
    "LogShape",
    "NetworkTotals",
    "PaperFit",
    "SmoothFamily",
    "Status",
    "Totals",
    "activation_reading",
    "bootstrap_standard_error",
    "clustered_standard_errors",
    "deviance",
    "distances",
    "effective_utility",
    "equilibrium",
    "fit_families",
    "fit_family",
    "gap",
    "gap_standard_error",
    "gaussian_masses",
    "generalized_gamma_shape",
    "half_student_t_shape",
    "jackknife_standard_error",
    "landmarks",
    "linear_from_counts",
    "log_moments",
    "log_partition",
    "network_totals",
    "occupied_bins",
    "paper_curve",
    "paper_protocol",
    "totals",
    "vuong_z",
]
