"""A small residual network after He et al. (CVPR 2016)."""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from experiments.check import positive_int
from experiments.models.activation import activation_module

__all__ = ["ResNet"]


class ResNet(nn.Sequential):
    """A 3×3 convolution, blocks of two convolutions and a shortcut, then each channel's mean.

    Images [batch, channels, height, width] in, logits [batch, classes] out.  From the second stage
    on, the first block halves height and width; its shortcut is a 1×1 convolution.

    Initialisation: torch's own for `nn.Conv2d` and `nn.Linear`, weights uniform on ±1/√fan_in;
    `nn.BatchNorm2d` at scale 1 and shift 0.  `experiments.init` replaces those of convolutions and
    linear layers on request.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of logits.
        channels: of each stage.
        blocks: per stage.
        activation: a name that `activation_module` knows.

    Raises:
        ValueError: for sizes that are not positive integers, or an unknown activation.

    Example:
        >>> import torch
        >>> ResNet((3, 32, 32), 10, channels=(8, 16))(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        channels: Sequence[int] = (16, 32, 64),
        blocks: int = 2,
        activation: str = "relu",
    ) -> None:
        fan_in = channels[0]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=_convolution(shape[0], positive_int("channels", fan_in)),
            norm=nn.BatchNorm2d(fan_in),
        )
        layers[activation] = activation_module(activation)
        for stage, wide in enumerate(channels, start=1):
            positive_int("channels", wide)
            for block in range(1, positive_int("blocks", blocks) + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                layers[f"block{stage}_{block}"] = Block(fan_in, wide, stride, activation)
                fan_in = wide
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["logits"] = nn.Linear(fan_in, positive_int("classes", classes))
        super().__init__(layers)


class Block(nn.Module):
    """Computes ``f(x + norm(conv(f(norm(conv(x))))))``; the two activations f are two streams."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = _convolution(fan_in, fan_out, stride)
        self.norm1 = nn.BatchNorm2d(fan_out)
        self.inner = activation_module(activation)
        self.conv2 = _convolution(fan_out, fan_out)
        self.norm2 = nn.BatchNorm2d(fan_out)
        self.outer = activation_module(activation)
        same = fan_in == fan_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(
        self, x: Float[Tensor, "batch fan_in height width"]
    ) -> Float[Tensor, "batch fan_out low narrow"]:
        """Add two convolutions to the input."""
        inner = self.inner(self.norm1(self.conv1(x)))
        added: Tensor = self.outer(self.shortcut(x) + self.norm2(self.conv2(inner)))
        return added


def _convolution(fan_in: int, fan_out: int, stride: int = 1) -> nn.Conv2d:
    """Make a convolution without a bias, which the norm after it would cancel."""
    return nn.Conv2d(fan_in, fan_out, kernel_size=3, stride=stride, padding=1, bias=False)
