"""A small convolutional network after VGG."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from experiments.check import positive_int, share
from experiments.models.activation import activation_module

__all__ = ["CNN"]


class CNN(nn.Sequential):
    """Blocks of 3×3 convolutions with a halving pool after each, one hidden layer, the logits.

    Images [batch, channels, height, width] in, logits [batch, classes] out.  The plan of VGG
    (Simonyan and Zisserman, ICLR 2015) at the size of small images.

    Initialisation: torch's own for `nn.Conv2d` and `nn.Linear`, weights and biases uniform on
    ±1/√fan_in, so that weights have the variance 1/(3 fan_in); `experiments.init` replaces it on
    request.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of logits.
        channels: of each block's convolutions; each block halves height and width.
        convolutions: per block.
        width: neurons of the hidden layer.
        activation: a name that `activation_module` knows.
        batch_norm: whether convolutions are followed by `nn.BatchNorm2d`.
        dropout: share of hidden neurons dropped in training.

    Raises:
        ValueError: for sizes that are not positive integers, more blocks than the image can be
            halved, a dropout outside [0, 1), or an unknown activation.

    Example:
        >>> import torch
        >>> CNN((3, 32, 32), 10, channels=(8, 16))(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        channels: Sequence[int] = (16, 32, 64),
        convolutions: int = 2,
        width: int = 256,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        fan_in, height, side = shape
        pixels = (height >> len(channels)) * (side >> len(channels))
        if pixels == 0:
            raise ValueError(
                f"images of {height}×{side} cannot be halved {len(channels)} times: "
                f"name fewer channels than {list(channels)}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block, wide in enumerate(channels, start=1):
            for layer in range(1, positive_int("convolutions", convolutions) + 1):
                name = f"{block}_{layer}"
                layers[f"conv{name}"] = _convolution(fan_in, positive_int("channels", wide))
                if batch_norm:
                    layers[f"norm{name}"] = nn.BatchNorm2d(wide)
                layers[f"{activation}{name}"] = activation_module(activation)
                fan_in = wide
            layers[f"pool{block}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["hidden"] = nn.Linear(fan_in * pixels, positive_int("width", width))
        layers[activation] = activation_module(activation)
        layers["dropout"] = nn.Dropout(share("dropout", dropout))
        layers["logits"] = nn.Linear(width, positive_int("classes", classes))
        super().__init__(layers)


def _convolution(fan_in: int, fan_out: int) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, kernel_size=3, padding=1)
