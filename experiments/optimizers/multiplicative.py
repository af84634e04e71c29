"""Multiplicative updates: ln|w| moves by what other optimizers add to w.

``w ← w · exp(−lr · (sign(w) · drive + weight_decay))``

Signs never change, and an exact zero stays zero: biases that start at zero never move.  Steps that
add up in ln|w| make magnitudes lognormal (Pogodin et al., ICLR 2024, arXiv 2305.19394) if there are
many of similar size; with independent random steps (`Gibrat`) they always do.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Multiplicative"]


class Multiplicative(Optimizer, ABC):
    """Base of multiplicative optimizers; a subclass defines `drive`.

    Args:
        params: as of any optimizer.
        lr: of ln|w|; 0 keeps every weight as it is.
        weight_decay: shrinks magnitudes by the factor exp(−lr · weight_decay) a step.
        ceiling: largest magnitude, in root mean squares of the parameter's first state; None for
            no limit.
        **defaults: of the subclass.

    Raises:
        ValueError: for a negative `lr` or `weight_decay`, or a `ceiling` that is not positive.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        ceiling: float | None,
        **defaults: Any,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {value}")
        if ceiling is not None and not ceiling > 0:
            raise ValueError(f"ceiling must be a number above 0, or None, got {ceiling}")
        common = {"lr": lr, "weight_decay": weight_decay, "ceiling": ceiling}
        super().__init__(params, {**common, **defaults})

    @abstractmethod
    def drive(self, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Return what moves ln|w|, of the gradient's shape, before sign and learning rate.

        Args:
            gradient: of one parameter.
            state: of that parameter, kept between steps.
            group: of parameters, with its options.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if group["ceiling"] is not None and "ceiling" not in state:
            state["ceiling"] = group["ceiling"] * weight.square().mean().sqrt()
        assert weight.grad is not None
        drive = self.drive(weight.grad, state, group) * weight.sign()
        weight.mul_((drive + group["weight_decay"]).mul_(-group["lr"]).exp_())
        if "ceiling" in state:
            weight.clamp_(-state["ceiling"], state["ceiling"])
