"""Training histories in files: a model's checkpoints, one after the other, become a run's dataset.

`steps` reads the step from a name, `moments` lists the checkpoints of a history, on the hub or in a
folder, `measuring` measures them in order, and `curves` writes a dataset to TensorBoard.
"""

from jaynes_callbacks.revisions.measuring import History, measure_history
from jaynes_callbacks.revisions.moments import Moment, moments_in, moments_on_hub
from jaynes_callbacks.revisions.steps import Thinning

__all__ = ["History", "Moment", "Thinning", "measure_history", "moments_in", "moments_on_hub"]
