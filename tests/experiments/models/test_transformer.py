import pytest
import torch
from torch import nn

from experiments.models import Transformer
from jaynes_callbacks import Recorder


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_logits_of_any_image_shape(shape: tuple[int, int, int]) -> None:
    net = Transformer(shape, 4, width=16, depth=1)
    assert net.positions.shape == (shape[1] * shape[2] // 16, 16)
    assert net(torch.zeros(6, *shape)).shape == (6, 4)


def test_attention_is_torchs_own() -> None:
    block = Transformer((1, 8, 8), 3, width=16, heads=2).blocks[0]
    assert isinstance(block, nn.Module)
    oracle = nn.MultiheadAttention(16, 2, batch_first=True)
    oracle.load_state_dict({
        "in_proj_weight": block.query_key_value.weight,
        "in_proj_bias": block.query_key_value.bias,
        "out_proj.weight": block.together.weight,
        "out_proj.bias": block.together.bias,
    })  # fmt: skip
    places = torch.randn(3, 5, 16)
    torch.testing.assert_close(
        block._attended(places), oracle(places, places, places)[0], atol=1e-6, rtol=1e-5
    )


def test_a_patch_sees_its_own_pixels_only() -> None:
    net = Transformer((1, 8, 8), 3, patch=4, width=16)
    images = torch.zeros(2, 1, 8, 8)
    images[1, 0, :4, 4:] = 1.0
    before, after = net.embedding(net.patches(images).transpose(1, 2))
    assert (before != after).any(-1).tolist() == [False, True, False, False]


def test_places_are_told_apart() -> None:
    net = Transformer((1, 8, 8), 3, patch=4, width=16)
    image = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(net(image), net(image.roll(4, dims=-1)), atol=1e-5)
    nn.init.zeros_(net.positions)
    torch.testing.assert_close(net(image), net(image.roll(4, dims=-1)), atol=1e-5, rtol=1e-4)


def test_the_monitor_sees_its_weights_and_activations() -> None:
    net = Transformer((1, 8, 8), 3, width=16, depth=2, activation="relu")
    with Recorder(net, min_size=1) as recorder:
        net(torch.randn(5, 1, 8, 8))
        records = recorder.snapshot(step=0)
    neurons = {record.name for record in records.select(kind="iota")}
    assert neurons == {"blocks.0.activation", "blocks.1.activation"}
    weights = {record.name for record in records.select(kind="weight")}
    assert {"embedding.weight", "blocks.1.query_key_value.weight", "logits.weight"} <= weights


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"patch": 3}, "patch must divide images of 8×8, got 3"),
        ({"heads": 5}, "heads must divide the width 64, got 5"),
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"dropout": 1.0}, "dropout must be a number"),
        ({"activation": "rellu"}, "activation must be one of relu, .*, got 'rellu'"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Transformer((1, 8, 8), 10, **wrong)  # type: ignore[arg-type]
