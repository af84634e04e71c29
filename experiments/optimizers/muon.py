"""Muon for the matrices of a network, AdamW for everything else, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

__all__ = ["MuonWithAdamW"]


class MuonWithAdamW(Optimizer):
    """`torch.optim.Muon` on parameters of two dimensions, `torch.optim.AdamW` on the others.

    Muon (K. Jordan, 2024) orthogonalises the momentum of a matrix, and only that: biases, norms and
    convolutions go to AdamW.  Muon's steps are scaled to the size of AdamW's (J. Liu et
    al., arXiv 2502.16982), so that one learning rate serves both.

    Args:
        params: of the network.
        lr: of both.
        momentum: Muon's.
        weight_decay: of both, decoupled.

    Raises:
        RuntimeError: if this torch has no Muon.
        ValueError: if no parameter has two dimensions, or for values out of range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(
                f"torch {torch.__version__} has no torch.optim.Muon, which came with 2.9; "
                "use a newer torch or another optimizer"
            )
        params = list(params)
        matrices = [weight for weight in params if weight.ndim == 2]
        others = [weight for weight in params if weight.ndim != 2]
        if not matrices:
            raise ValueError("Muon needs a parameter of two dimensions, got none: use adamw")
        common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        adjust = "match_rms_adamw"
        self.members: list[Optimizer] = [
            torch.optim.Muon(matrices, momentum=momentum, adjust_lr_fn=adjust, **common)
        ]
        if others:
            self.members.append(AdamW(others, **common))
        groups = [group for member in self.members for group in member.param_groups]
        super().__init__(groups, common)
        self._share()

    def _share(self) -> None:
        """Use the members' own parameter groups and state, so that a scheduler reaches them."""
        first = 0
        for member in self.members:
            last = first + len(member.param_groups)
            member.param_groups = self.param_groups[first:last]
            member.state = self.state
            first = last

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both optimizers; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._share()
