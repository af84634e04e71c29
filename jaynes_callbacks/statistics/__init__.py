"""Statistics of counts: typed columns from the table ``[streams, 4096]``, batched over streams.

`neurons` alone works on power sums, ``[streams, neurons, 6]``.

Pure functions in float64 on the counts' device.  They know neither models nor plots.

=================  ============================================================================
`binned`           gather the occupied bins of many streams side by side
`moments`          moments of ln w, sizes
`families`         the lognormal and its rivals, one law in one file
`quadrature`       the mass of a bin from a log density
`likelihood`       the grouped likelihood and its derivatives
`newton`           batched maximisation within bounds
`fit`              grouped maximum likelihood of every family
`status`           how a fit ended
`goodness`         the gap and other distances to a fit, Vuong's z
`influence`        the influence of rows, columns and single values on the gap
`neurons`          variance of ln y within and between neurons
`dependence`       standard errors of the gap where values depend on each other
`landmarks`        skewness and kurtosis of ln w of known laws
`equilibrium`      utility, potential and entropy of the theory
`paper`            the paper's own protocol
`curve`            least squares of a lognormal curve, for `paper`
=================  ============================================================================

Formulas, references and errors: ``docs/statistics.md``; equations: arXiv 2405.10955.
"""

from jaynes_callbacks.statistics.binned import Binned, occupied_bins
from jaynes_callbacks.statistics.curve import paper_curve
from jaynes_callbacks.statistics.dependence import (
    jackknife_standard_error,
    standard_errors_of,
)
from jaynes_callbacks.statistics.equilibrium import (
    Equilibrium,
    effective_utility,
    equilibrium,
    log_partition,
)
from jaynes_callbacks.statistics.families import (
    FAMILIES,
    FAMILY_BY_NAME,
    GENERALIZED_GAMMA,
    LOGNORMAL,
    RIVALS,
    RIVALS_2,
    Dashes,
    Family,
    Parameter,
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
from jaynes_callbacks.statistics.influence import Influence, influences
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
    gaussian_paper_fit,
    linear_from_counts,
    paper_protocol,
)
from jaynes_callbacks.statistics.status import Status

__all__ = [
    "FAMILIES",
    "FAMILY_BY_NAME",
    "FEWEST_WEIGHTS",
    "GENERALIZED_GAMMA",
    "LOGNORMAL",
    "RIVALS",
    "RIVALS_2",
    "Binned",
    "Dashes",
    "Distances",
    "Equilibrium",
    "Family",
    "Fit",
    "Influence",
    "LogMoments",
    "LogShape",
    "PaperFit",
    "Parameter",
    "SmoothFamily",
    "Status",
    "Totals",
    "deviance",
    "distances",
    "effective_utility",
    "equilibrium",
    "fit_families",
    "fit_family",
    "gap",
    "gap_standard_error",
    "gaussian_masses",
    "gaussian_paper_fit",
    "generalized_gamma_shape",
    "half_student_t_shape",
    "influences",
    "jackknife_standard_error",
    "landmarks",
    "linear_from_counts",
    "log_moments",
    "log_partition",
    "occupied_bins",
    "paper_curve",
    "paper_protocol",
    "standard_errors_of",
    "totals",
    "vuong_z",
]
