"""The callback for the Trainer of ``transformers``, and for those derived from it."""

from jaynes_callbacks._extras import require_extra
from jaynes_callbacks.run.trainer_callback import TrainerWatch

with require_extra("huggingface", "EquilibriumCallback"):
    from transformers import TrainerCallback

__all__ = ["EquilibriumCallback"]


class EquilibriumCallback(TrainerWatch, TrainerCallback):  # type: ignore[misc]  # noqa: D101
    __doc__ = TrainerWatch.__doc__
