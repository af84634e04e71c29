import pytest
import torch
from torch import nn

from experiments.models import CNN


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 32, 16)])
def test_logits_of_every_data_sets_images(shape: tuple[int, int, int]) -> None:
    assert CNN(shape, 10)(torch.zeros(2, *shape)).shape == (2, 10)


def test_blocks_follow_channels_and_convolutions() -> None:
    net = CNN((3, 32, 32), 10, channels=(4, 8), convolutions=3)
    widths = [layer.out_channels for layer in net if isinstance(layer, nn.Conv2d)]
    assert widths == [4, 4, 4, 8, 8, 8]
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in net) == 2
    assert sum(isinstance(layer, nn.ReLU) for layer in net) == 7


def test_batch_norm_where_asked_for() -> None:
    def norms(net: CNN) -> int:
        return sum(isinstance(layer, nn.BatchNorm2d) for layer in net)

    assert norms(CNN((3, 32, 32), 10)) == 0
    assert norms(CNN((3, 32, 32), 10, batch_norm=True)) == 6


def test_too_many_blocks_for_the_image_are_named() -> None:
    with pytest.raises(ValueError, match=r"images of 8×8 cannot be halved 4 times"):
        CNN((1, 8, 8), 10, channels=(2, 2, 2, 2))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"channels": [8, -8]}, "channels must be a positive integer, got -8"),
        ({"convolutions": 1.5}, "convolutions must be a positive integer, got 1.5"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"dropout": -0.1}, "dropout must be a number"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CNN((1, 28, 28), 10, **wrong)  # type: ignore[arg-type]
