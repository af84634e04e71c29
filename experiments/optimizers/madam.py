"""Madam: multiplicative updates driven by the normalised gradient."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.check import number_above, share
from experiments.optimizers.multiplicative import Multiplicative

__all__ = ["Madam"]


class Madam(Multiplicative):
    """``w ← w · exp(−lr · sign(w) · g / rms(g))``, magnitudes limited.

    J. Bernstein, J. Zhao, M. Meister, M.-Y. Liu, A. Anandkumar, Y. Yue, *Learning compositional
    functions via multiplicative weight updates*, NeurIPS 2020, arXiv 2006.14560, Algorithm 1.
    rms(g) is of each weight's gradient over time, an exponential average without its bias.

    Args:
        params: as of any optimizer.
        lr: step of ln|w| for a gradient of size rms(g); the authors train everything with 0.01.
        beta: of the average of g²; the authors use 0.999.
        bound: largest |g|/rms(g) that is taken; theirs is 10.
        ceiling: largest magnitude in root mean squares of the initial parameter; theirs is 3.
            Weights at the limit are an atom in their distribution.  None: no limit.
        weight_decay: shrinks magnitudes by the factor exp(−lr · weight_decay) a step.

    Raises:
        ValueError: for values out of range.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> before = layer.weight.detach().clone()
        >>> optimizer = Madam(layer.parameters(), lr=0.01)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> bool((layer.weight.sign() == before.sign()).all())
        True
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 0.01,
        beta: float = 0.999,
        bound: float = 10.0,
        ceiling: float | None = 3.0,
        weight_decay: float = 0.0,
    ) -> None:
        own = {"beta": share("beta", beta), "bound": number_above("bound", bound, 0)}
        super().__init__(params, lr=lr, weight_decay=weight_decay, ceiling=ceiling, **own)

    def drive(self, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Return g / rms(g), within the bound; 0 where there never was a gradient."""
        if "step" not in state:
            state["step"], state["square"] = 0, torch.zeros_like(gradient)
        state["step"] += 1
        state["square"].lerp_(gradient.square(), 1 - group["beta"])
        rms: Tensor = (state["square"] / (1 - group["beta"] ** state["step"])).sqrt_()
        normalised = gradient / rms
        return normalised.nan_to_num_(0.0).clamp_(-group["bound"], group["bound"])
