"""Gibrat's process: every weight is multiplied by random factors, the gradient is ignored."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.optimizers.multiplicative import Multiplicative

__all__ = ["Gibrat"]


class Gibrat(Multiplicative):
    """``w ← w · exp(lr · ξ)`` with ξ standard normal, drawn anew for each weight and step.

    The law of proportionate effect (R. Gibrat, *Les inégalités économiques*, 1931): after t steps
    ln|w| is where it began plus a normal variate of standard deviation lr·√t, so that magnitudes
    become lognormal from any start.  Nothing is learnt.  As an optimizer it is the control whose
    answer is known: a monitor must call it *emerged*.

    Args:
        params: as of any optimizer.
        lr: standard deviation of a step of ln|w|.
        weight_decay: shrinks magnitudes by the factor exp(−lr · weight_decay) a step.

    Raises:
        ValueError: for values out of range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 0.06,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, ceiling=None)

    def drive(self, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Return Gaussian noise of torch's global generator, which is symmetric."""
        return torch.randn_like(gradient)
