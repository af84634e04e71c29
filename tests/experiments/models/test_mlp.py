import pytest
import torch
from torch import nn

from experiments.models import MLP


def test_layers_have_the_chosen_sizes_and_names() -> None:
    net = MLP((1, 8, 8), 10, width=32, depth=3)
    weights = {name: tuple(p.shape) for name, p in net.named_parameters() if p.ndim == 2}
    assert weights == {
        "hidden1.weight": (32, 64),
        "hidden2.weight": (32, 32),
        "hidden3.weight": (32, 32),
        "logits.weight": (10, 32),
    }


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        ("relu", nn.ReLU),
        ("gelu", nn.GELU),
        ("silu", nn.SiLU),
        ("tanh", nn.Tanh),
        ("leaky_relu", nn.LeakyReLU),
    ],
)
def test_activation_by_name(activation: str, kind: type[nn.Module]) -> None:
    net = MLP((1, 8, 8), 10, depth=2, activation=activation)
    assert sum(type(layer) is kind for layer in net) == 2


def test_logits_of_any_image_shape() -> None:
    assert MLP((3, 5, 7), 4, width=8)(torch.zeros(6, 3, 5, 7)).shape == (6, 4)


def test_dropout_only_where_asked_for() -> None:
    assert not any(isinstance(layer, nn.Dropout) for layer in MLP((1, 8, 8), 10))
    dropped = [layer for layer in MLP((1, 8, 8), 10, dropout=0.25) if isinstance(layer, nn.Dropout)]
    assert [layer.p for layer in dropped] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"width": -3}, "width must be a positive integer, got -3"),
        ({"depth": "two"}, "depth must be a positive integer, got 'two'"),
        ({"dropout": 1.5}, "dropout must be a number of at least 0 and below 1, got 1.5"),
        ({"activation": "rellu"}, "activation must be one of relu, .*, got 'rellu'"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MLP((1, 8, 8), 10, **wrong)  # type: ignore[arg-type]
