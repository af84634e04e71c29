import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from jaynes_callbacks.probes.parameters import CurrentValues, WeightFinder, WeightStream, sample
from jaynes_callbacks.probes.selection import Selection, Skipped


def _selection(include: str = "*", exclude: str | tuple[str, ...] = (), size: int = 1) -> Selection:
    return Selection.of(("weight",), include, exclude, size)


def _without_elements() -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(4, 0))
    return model


def _lazy() -> nn.Module:
    model = nn.Module()
    model.weight = nn.parameter.UninitializedParameter()
    return model


def find_weights(
    model: nn.Module, selection: Selection
) -> tuple[list[WeightStream], list[Skipped]]:
    return WeightFinder(model, selection).find(CurrentValues())


def _names(weights: list[WeightStream]) -> list[str]:
    return [weight.stream.name for weight in weights]


def test_every_parameter_with_two_or_more_dimensions() -> None:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "lstm": nn.LSTM(4, 5),
            "attention": nn.MultiheadAttention(4, 2),
            "embedding": nn.Embedding(7, 3),
            "norm": nn.LayerNorm(4),
        }
    )
    weights, skipped = find_weights(model, _selection())
    assert _names(weights) == [
        "conv.weight",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "embedding.weight",
    ]
    assert {reason for _, reason in skipped} == {"fewer than 2 dimensions"}


def test_tied_parameters_are_one_stream() -> None:
    model = nn.ModuleDict({"in": nn.Linear(4, 4), "out": nn.Linear(4, 4)})
    model["out"].weight = model["in"].weight
    weights, _ = find_weights(model, _selection())
    (weight,) = weights
    assert (weight.stream.name, weight.stream.aliases) == ("in.weight", ("out.weight",))


@pytest.mark.parametrize(
    ("model", "selection", "reason"),
    [
        (nn.Linear(4, 4), _selection(exclude="w*"), "excluded by pattern"),
        (nn.Linear(4, 4), _selection(include="b*"), "excluded by pattern"),
        (nn.Linear(4, 4), _selection(size=17), "fewer than min_size=17 elements"),
        (nn.Linear(4, 4, device="meta"), _selection(), "on the meta device, without values"),
        (_lazy(), _selection(), "not initialised yet (lazy)"),
        (_without_elements(), _selection(size=0), "fewer than min_size=1 elements"),
    ],
)
def test_what_is_skipped_says_why(model: nn.Module, selection: Selection, reason: str) -> None:
    weights, skipped = find_weights(model, selection)
    assert not weights
    assert ("weight", reason) in skipped


def test_integer_parameters_are_skipped() -> None:
    model = nn.Module()
    model.table = nn.Parameter(torch.zeros(3, 3, dtype=torch.int8), requires_grad=False)
    assert find_weights(model, _selection())[1] == [
        ("table", "of dtype torch.int8, not real floating-point")
    ]


def test_quantised_modules_say_so() -> None:
    model = nn.Sequential(nn.Module(), nn.Linear(8, 8))
    model[0]._packed_params = object()
    weights, skipped = find_weights(model, _selection())
    assert _names(weights) == ["1.weight"]
    assert ("0", "quantised: its weights are packed integers") in skipped


def test_wrapped_values_say_so() -> None:
    model = nn.Linear(8, 8)
    model.weight = nn.Parameter(TwoTensor(torch.ones(8, 8), torch.ones(8, 8)))
    weights, ((_, reason), _) = find_weights(model, _selection())
    assert not weights
    assert reason.startswith("a TwoTensor, whose values lie in other tensors")


def test_adapters_are_small_but_watched() -> None:
    model = nn.ModuleDict({"base": nn.Linear(64, 64), "lora_A": nn.Linear(64, 4, bias=False)})
    model["base"].requires_grad_(False)
    weights, _ = find_weights(model, Selection.of("weight", "*", (), 64))
    assert _names(weights) == ["base.weight", "lora_A.weight"]


def test_the_sample_is_a_copy_and_bounded() -> None:
    (weight,), _ = find_weights(nn.Linear(300, 200, bias=False), _selection())
    before = sample(weight.value())
    assert 2048 < before.numel() <= 4096
    with torch.no_grad():
        weight.value().add_(1)
    assert torch.allclose(sample(weight.value()) - before, torch.ones(()))
