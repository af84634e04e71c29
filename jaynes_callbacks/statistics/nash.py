"""The Nash gap of a layer: how far outputs are from the best answer to their pre-activations.

For a convex function g with gradient r (the activation) and its conjugate g*, the inequality of
Fenchel and Young says

    g(z) − ⟨z, y⟩ + g*(y) ≥ 0,   zero if and only if y = r(z).

An output y that is computed as r(z) has the gap zero.  It is informative where y comes from
elsewhere: of labels y and logits z, with r = softmax, it is the cross-entropy less the entropy of
the labels.
"""

from jaxtyping import Float, Float64
from torch import Tensor
from torch.special import entr

__all__ = ["softmax_nash_gap"]


def softmax_nash_gap(
    z: Float[Tensor, "*samples classes"], y: Float[Tensor, "*samples classes"]
) -> Float64[Tensor, "*samples"]:
    """Return ln Σ e^z − ⟨z, y⟩ + Σ y ln y, in nats: of logits and probabilities of classes.

    Example:
        >>> import torch
        >>> softmax_nash_gap(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # ln 2
        tensor([0.6931], dtype=torch.float64)
    """
    z, y = z.double(), y.double()
    gap: Tensor = z.logsumexp(-1) - (z * y).sum(-1) - entr(y).sum(-1)
    return gap
