"""Figures of records, one function each: records in, a matplotlib Figure out.

===================  ======================================================================
`paper_view`         size-weighted counts and the lognormal curve, as the paper draws them,
                     beside what Gaussian weights would show
`log_density`        density of ln w with every fitted family, end over start, and residuals
`gap_over_steps`     the gap of every stream through training
===================  ======================================================================

No function touches pyplot or any other global state, so that they can be called from a training
loop, a notebook or a thread.  Each is readable at 400 pixels' width and in print, takes
``look=DARK`` for a dark page, and draws what there is of a record in which something could not be
measured.
"""

from jaynes_callbacks.sinks.figures.density import log_density
from jaynes_callbacks.sinks.figures.history import gap_over_steps
from jaynes_callbacks.sinks.figures.look import DARK, LIGHT, Look
from jaynes_callbacks.sinks.figures.paper import paper_view

__all__ = ["DARK", "LIGHT", "Look", "gap_over_steps", "log_density", "paper_view"]
