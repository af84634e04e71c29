"""One call from tensors to records."""

import math

import numpy as np
import pytest
import torch

from jaynes_callbacks import analyse
from jaynes_callbacks.instruments.tally import tally_of_tensors


def test_records_come_in_the_order_of_the_mapping(generator: torch.Generator) -> None:
    normal, uniform = torch.randn(200, 100, generator=generator), torch.rand(200, 100)
    records = analyse({"b": normal, "a": uniform - 0.5})
    assert [(row.name, row.best_family) for row in records] == [
        ("b", "half_normal"),
        ("a", "uniform"),
    ]
    assert records[0].shape == (200, 100)
    assert records[0].gap == pytest.approx(0.163, abs=0.01)


def test_a_single_tensor_is_one_record(generator: torch.Generator) -> None:
    (record,) = analyse(torch.randn(5000, generator=generator).exp())
    assert record.best_family == "lognormal"
    assert record.verdict == ""


def test_the_error_keeps_rows_whole(generator: torch.Generator) -> None:
    scales = torch.randn(300, 1, generator=generator).exp()
    weights = scales * torch.randn(300, 50, generator=generator)
    whole, flat = analyse(weights)[0].gap_se, analyse(weights.flatten())[0].gap_se
    assert whole == tally_of_tensors([weights]).errors.item()
    assert whole > 1.2 * flat


def test_what_has_no_magnitudes_says_why() -> None:
    steps, meta = torch.tensor(3), torch.empty(3, 3, device="meta")
    sparse = torch.eye(3).to_sparse()
    records = analyse({"steps": steps, "meta": meta, "sparse": sparse, "zeros": torch.zeros(20, 4)})
    assert [row.status for row in records] == [
        "of dtype torch.int64, not real floating-point",
        "on the meta device, without values",
        "sparse or nested, without one value per place",
        "no finite non-zero value in float32's range",
    ]
    assert all(math.isnan(row.gap) for row in records)


def test_a_state_dict_goes_in_as_it_is() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.BatchNorm1d(64))
    state = model.state_dict()
    assert [row.name for row in analyse(state)] == list(state)


def test_nothing_gives_nothing() -> None:
    assert len(analyse({})) == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (torch.arange(5), "of dtype torch.int64"),
        (torch.ones(3, dtype=torch.complex64), "of dtype torch.complex64"),
        ([torch.ones(3)], "got list"),
        ({"w": np.ones(3)}, "got ndarray under 'w'"),
        (torch.nn.Linear(2, 2), r"got Linear; for a module pass its state_dict\(\)"),
    ],
)
def test_wrong_arguments_are_told(argument: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        analyse(argument)  # type: ignore[arg-type]
