"""Exponentiated gradient: multiplicative updates driven by the gradient itself."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from experiments.optimizers.multiplicative import Multiplicative

__all__ = ["ExponentiatedGradient"]


class ExponentiatedGradient(Multiplicative):
    """``w ← w · exp(−lr · sign(w) · g)``: signs are fixed, as those of synapses are.

    J. Kivinen, M. K. Warmuth, *Exponentiated gradient versus gradient descent for linear
    predictors*, Information and Computation 132 (1997) 1-63, unnormalised, on magnitudes; its
    weights are predicted to become lognormal by R. Pogodin et al., ICLR 2024, arXiv 2305.19394.

    Args:
        params: as of any optimizer.
        lr: of ln|w| per unit of gradient, so that useful values are far above other optimizers'.
        ceiling: largest magnitude in root mean squares of the initial parameter; None: no limit.
        weight_decay: shrinks magnitudes by the factor exp(−lr · weight_decay) a step.

    Raises:
        ValueError: for values out of range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 2.0,
        ceiling: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, ceiling=ceiling)

    def drive(self, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Return the gradient."""
        return gradient
