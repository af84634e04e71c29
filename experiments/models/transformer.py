"""A small Transformer encoder on an image's patches (Dosovitskiy et al., ICLR 2021)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.check import positive_int, share
from experiments.models.activation import activation_module

__all__ = ["Transformer"]


class Transformer(nn.Module):
    """Patches as a sequence, pre-norm encoder blocks, the mean over positions, logits.

    Images [batch, channels, height, width] in, logits [batch, classes] out.

    Initialisation: torch's own for `nn.Linear`, uniform on ±1/√fan_in, which `experiments.init`
    replaces on request; positions normal with standard deviation 0.02.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of logits.
        patch: side of a square patch in pixels; it divides height and width.
        width: of a place's state.
        depth: number of blocks.
        heads: of the attention; they divide the width.
        activation: of the hidden layers, four times as wide, by `activation_module`'s names.
        dropout: share of a block's outputs dropped in training.

    Raises:
        ValueError: for sizes that do not divide, and what `MLP` refuses.

    Example:
        >>> Transformer((1, 28, 28), 10, patch=7)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        patch: int = 4,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, side = shape
        if height % positive_int("patch", patch) or side % patch:
            raise ValueError(f"patch must divide images of {height}×{side}, got {patch}")
        if positive_int("width", width) % positive_int("heads", heads):
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        self.patches = nn.Unfold(kernel_size=patch, stride=patch)
        self.embedding = nn.Linear(channels * patch**2, width)
        self.positions = nn.Parameter(0.02 * torch.randn(height // patch * (side // patch), width))
        numbers = range(positive_int("depth", depth))
        self.blocks = nn.Sequential(*(Block(width, heads, activation, dropout) for _ in numbers))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, positive_int("classes", classes))

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the logits of a batch of images."""
        places = self.embedding(self.patches(images).transpose(1, 2)) + self.positions
        logits: Tensor = self.logits(self.norm(self.blocks(places)).mean(1))
        return logits


class Block(nn.Module):
    """Attention between positions, then two layers within each; both are added to their input."""

    def __init__(self, width: int, heads: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.together = nn.Linear(width, width)
        self.hidden = nn.Linear(width, 4 * width)
        self.activation = activation_module(activation)
        self.back = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(share("dropout", dropout))

    def forward(self, places: Float[Tensor, "batch places width"]) -> Tensor:
        """Apply one block; the shape stays."""
        places = places + self.dropout(self._attended(self.norm1(places)))
        hidden = self.activation(self.hidden(self.norm2(places)))
        return torch.add(places, self.dropout(self.back(hidden)))

    def _attended(self, places: Tensor) -> Tensor:
        apart = self.query_key_value(places).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        mixed = nn.functional.scaled_dot_product_attention(*apart.unbind(2))
        together: Tensor = self.together(mixed.transpose(1, 2).flatten(2))
        return together
