"""Figures: one function each takes records and returns a `matplotlib.figure.Figure`.

Of one stream, with its counts:

========================  ==================================================================
`paper_view`              size-weighted counts as in the paper, with its lognormal fit, and the
                          same of Gaussian weights
`log_density`             density of ln w with every fitted family, start and end, residuals
`utility_over_magnitude`  the theory's effective utility over ln w: constant at equilibrium
========================  ==================================================================

Of all streams, without counts:

========================  ==================================================================
`gap_over_steps`          the gap of every stream through training
`gap_map`                 the same as a map: rows are streams, columns records
`laws_over_steps`         which law fits best, and when
`microstructure_map`      training as a path among known laws, by skewness and kurtosis of ln w
`statistics_map`          every statistic of every stream at one moment
`exponents_over_layers`   α and β beside those of Gaussian weights and the paper's Table II
`columns_over_steps`      the curves of any instrument
`coalition_map`           places of strong neurons in a sample's maps (instrument ``coalitions``)
========================  ==================================================================

No function uses pyplot or any other global state, so that they can be called from a training
loop, a thread or a server; `rendered` turns a figure into pixels.  Where nothing could be fitted,
the figure says why.  Names of streams are shown as they are, never interpreted as formulas.
"""

from jaynes_callbacks.figures.coalitions import coalition_map
from jaynes_callbacks.figures.columns_over_steps import columns_over_steps
from jaynes_callbacks.figures.density import log_density
from jaynes_callbacks.figures.exponents import exponents_over_layers
from jaynes_callbacks.figures.history import gap_over_steps
from jaynes_callbacks.figures.look import DARK, LIGHT, Look, Pixels, rendered
from jaynes_callbacks.figures.maps import gap_map, statistics_map
from jaynes_callbacks.figures.microstructure import microstructure_map
from jaynes_callbacks.figures.paper import paper_view
from jaynes_callbacks.figures.utility import utility_over_magnitude
from jaynes_callbacks.figures.winners import laws_over_steps

__all__ = [
    "DARK",
    "LIGHT",
    "Look",
    "Pixels",
    "coalition_map",
    "columns_over_steps",
    "exponents_over_layers",
    "gap_map",
    "gap_over_steps",
    "laws_over_steps",
    "log_density",
    "microstructure_map",
    "paper_view",
    "rendered",
    "statistics_map",
    "utility_over_magnitude",
]
