import pytest
import torch
from torch import nn

from experiments.models import ResNet
from jaynes_callbacks import Recorder


def test_stages_have_the_chosen_sizes() -> None:
    net = ResNet((3, 16, 16), 7, channels=(4, 8, 16), blocks=2)
    convolutions = {
        name: (layer.out_channels, layer.stride[0])
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    }
    assert len(convolutions) == 1 + 3 * 2 * 2
    assert convolutions["block1_1.conv1"] == (4, 1)
    assert convolutions["block2_1.conv1"] == (8, 2)
    assert convolutions["block2_2.conv1"] == (8, 1)
    assert convolutions["block3_1.conv1"] == (16, 2)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_logits_of_any_image_shape(shape: tuple[int, int, int]) -> None:
    assert ResNet(shape, 4, channels=(4, 8))(torch.zeros(6, *shape)).shape == (6, 4)


def test_a_block_adds_to_what_came_in() -> None:
    net = ResNet((1, 8, 8), 3, channels=(4,), blocks=1).eval()
    block = net.block1_1
    nn.init.zeros_(block.norm2.weight)  # type: ignore[union-attr, arg-type]
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x.relu())


def test_every_activation_is_a_stream() -> None:
    net = ResNet((1, 8, 8), 3, channels=(4, 8), blocks=1, activation="gelu").eval()
    with Recorder(net, min_size=1) as recorder:
        net(torch.randn(5, 1, 8, 8))
        records = recorder.snapshot(step=0)
    assert {record.name for record in records.select(kind="iota")} == {
        "gelu", "block1_1.inner", "block1_1.outer", "block2_1.inner", "block2_1.outer",
    }  # fmt: skip
    assert all(record.n > 0 for record in records.select(kind="iota"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"channels": (4, 0)}, "channels must be a positive integer, got 0"),
        ({"blocks": 0}, "blocks must be a positive integer, got 0"),
        ({"activation": "rellu"}, "activation must be one of relu, .*, got 'rellu'"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ResNet((1, 8, 8), 10, **wrong)  # type: ignore[arg-type]
