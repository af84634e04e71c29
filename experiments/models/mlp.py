"""A multilayer perceptron on flattened images."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from experiments.check import positive_int, share
from experiments.models.activation import activation_module

__all__ = ["MLP"]


class MLP(nn.Sequential):
    """``depth`` hidden layers of ``width`` neurons each, then the logits.

    Images [batch, channels, height, width] in, logits [batch, classes] out.

    Initialisation: torch's own for `nn.Linear`, weights and biases uniform on ±1/√fan_in, so that
    weights have the variance 1/(3 fan_in); `experiments.init` replaces it on request.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of logits.
        width: neurons of a hidden layer.
        depth: number of hidden layers.
        activation: a name that `activation_module` knows.
        dropout: share of hidden neurons dropped in training.

    Raises:
        ValueError: for sizes that are not positive integers, a dropout outside [0, 1), or an
            unknown activation.

    Example:
        >>> import torch
        >>> MLP((1, 8, 8), 10, width=32, depth=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        width: int = 512,
        depth: int = 2,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        width, depth = positive_int("width", width), positive_int("depth", depth)
        dropout = share("dropout", dropout)
        fan_in = math.prod(shape)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for layer in range(1, depth + 1):
            layers[f"hidden{layer}"] = nn.Linear(fan_in, width)
            layers[f"{activation}{layer}"] = activation_module(activation)
            if dropout > 0:
                layers[f"dropout{layer}"] = nn.Dropout(dropout)
            fan_in = width
        layers["logits"] = nn.Linear(fan_in, positive_int("classes", classes))
        super().__init__(layers)
