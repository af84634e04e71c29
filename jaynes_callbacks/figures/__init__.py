"""Figures: records in, `matplotlib.figure.Figure` out, one function for each.

Of one stream, with its counts:

========================  ==================================================================
`paper_view`              size-weighted counts as the paper draws them, with its lognormal fit
                          and beside what Gaussian weights would show
`log_density`             density of ln w with every fitted family, end over start, residuals
`utility_over_magnitude`  the theory's effective utility over ln w: flat at equilibrium
========================  ==================================================================

Of all streams, without counts:

========================  ==================================================================
`gap_over_steps`          the gap of every stream through training
`gap_map`                 the same as a map: streams by records
`laws_over_steps`         which law fits best, and when
`microstructure_map`      paths among known laws, by skewness and kurtosis of ln w
`statistics_map`          every statistic of every stream at one moment
`exponents_over_layers`   α and β beside Gaussian weights' and the paper's Table II
========================  ==================================================================

No function touches pyplot or any other global state, so that they can be called from a training
loop, a thread or a server.  Records in which nothing could be fitted are drawn with the reason;
names are never read as formulas.
"""

from jaynes_callbacks.figures.density import log_density
from jaynes_callbacks.figures.exponents import exponents_over_layers
from jaynes_callbacks.figures.history import gap_over_steps
from jaynes_callbacks.figures.look import DARK, LIGHT, Look
from jaynes_callbacks.figures.maps import gap_map, statistics_map
from jaynes_callbacks.figures.microstructure import microstructure_map
from jaynes_callbacks.figures.paper import paper_view
from jaynes_callbacks.figures.utility import utility_over_magnitude
from jaynes_callbacks.figures.winners import laws_over_steps

__all__ = [
    "DARK",
    "LIGHT",
    "Look",
    "exponents_over_layers",
    "gap_map",
    "gap_over_steps",
    "laws_over_steps",
    "log_density",
    "microstructure_map",
    "paper_view",
    "statistics_map",
    "utility_over_magnitude",
]
