"""One call each: from tensors and from checkpoints to records and to a comparison."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jaynes_callbacks import analyse, compare, measure_checkpoint
from jaynes_callbacks.api import GapChange
from jaynes_callbacks.files import CheckpointError
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
    steps, meta = torch.arange(64).view(8, 8), torch.empty(8, 8, device="meta")
    sparse = torch.eye(8).to_sparse()
    records = analyse({"steps": steps, "meta": meta, "sparse": sparse, "zeros": torch.zeros(20, 4)})
    assert [row.status for row in records] == [
        "of dtype torch.int64, not real floating-point",
        "on the meta device, without values",
        "sparse or nested, without one value per place",
        "no finite non-zero value in float32's range",
    ]
    assert all(math.isnan(row.gap) for row in records)


def test_of_a_state_dict_the_same_is_measured_as_of_its_file(tmp_path: Path) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 64), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 64, bias=False)
    )
    model.append(model[2])  # tied
    model.register_parameter("few", torch.nn.Parameter(torch.ones(2, 3)))
    state = model.state_dict()
    torch.save(state, tmp_path / "model.pt")
    assert [row.name for row in analyse(state)] == ["0.weight", "2.weight"]
    assert [row.name for row in analyse(tmp_path / "model.pt")] == ["0.weight", "2.weight"]


def test_tensors_given_one_by_one_are_all_measured() -> None:
    assert [row.name for row in analyse({"a": torch.rand(500), "b": torch.rand(10)})] == ["a", "b"]


def test_nothing_gives_nothing() -> None:
    assert len(analyse({})) == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (torch.arange(5), "of dtype torch.int64"),
        (torch.ones(3, dtype=torch.complex64), "of dtype torch.complex64"),
        ([torch.ones(3)], "got list"),
        ({"w": [1.0]}, "got list under 'w'"),
        (torch.nn.Linear(2, 2), r"got Linear; for a module pass its state_dict\(\)"),
    ],
)
def test_wrong_arguments_are_told(argument: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        analyse(argument)  # type: ignore[arg-type]


# Two states of a network --------------------------------------------------------------------------


@pytest.fixture
def states(generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of three weights one becomes lognormal, one becomes normal, one stays; then one more."""
    uniform = torch.rand(100, 100, generator=generator) - 0.5
    normal = torch.randn(100, 100, generator=generator)
    before = {"a.weight": uniform, "b.weight": uniform + 0, "c.weight": normal, "bias": uniform[0]}
    after = {
        "a.weight": normal.exp(),
        "b.weight": normal + 0,
        "c.weight": normal,
        "d.weight": 2 * normal,
    }
    return before, after


def test_two_states_are_compared(states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    comparison = compare(*states)
    assert [pair.after.name for pair in comparison.pairs] == ["a.weight", "b.weight", "c.weight"]
    assert [pair.after.verdict for pair in comparison.pairs] == [
        "emerged",
        "approaching",
        "not emerging",
    ]
    assert comparison.verdicts == {"emerged": 1, "approaching": 1, "not emerging": 1}
    assert (comparison.only_before, comparison.only_after) == ((), ("d.weight",))
    before, after = states
    # A sample of 4096 of 10,000 values.
    moved = float((after["a.weight"] - before["a.weight"]).norm() / before["a.weight"].norm())
    assert comparison.pairs[0].after.moved == pytest.approx(moved, rel=0.05)
    assert comparison.pairs[2].after.moved == 0
    changes = [pair.after.gap - pair.before.gap for pair in comparison.pairs]
    assert [pair.gap_change for pair in comparison.pairs] == changes
    assert comparison.gap_change == GapChange(3, 2, float(np.median(changes)))
    assert {(pair.before.run, pair.after.run) for pair in comparison.pairs} == {("before", "after")}


def test_files_and_tensors_give_the_same_comparison(
    states: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    for name, state in zip(("before", "after"), states, strict=True):
        torch.save(state, tmp_path / f"{name}.pt")
    of_files = compare(tmp_path / "before.pt", tmp_path / "after.pt")
    for found, expected in zip(of_files.pairs, compare(*states).pairs, strict=True):
        assert found.after.name == expected.after.name
        assert np.array_equal(found.after.counts, expected.after.counts)
        assert found.gap_change == pytest.approx(expected.gap_change)
        assert found.after.moved == expected.after.moved
    assert of_files.pairs[0].before.run == str(tmp_path / "before.pt")


def test_a_comparison_takes_patterns(states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    comparison = compare(*states, include=["a.*", "b.*"], exclude="b.*")
    assert [pair.after.name for pair in comparison.pairs] == ["a.weight"]
    with pytest.raises(ValueError, match=r"pattern 'x\.\*' matches no tensor of before"):
        compare(*states, include="x.*")


def test_a_gap_that_is_nan_is_not_compared() -> None:
    comparison = compare({"w": torch.zeros(20, 20)}, {"w": torch.randn(20, 20)})
    assert comparison.gap_change is None
    assert comparison.verdicts == {"undetermined": 1}


def test_nothing_to_compare_says_why(states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match="after holds no weight to measure: all 1 tensors"):
        compare(states[0], {"bias": torch.ones(30)})
    with pytest.raises(TypeError, match=r"got Linear; for a module pass its state_dict\(\)"):
        compare(states[0], torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_tied_tensors_in_memory_are_one_weight(generator: torch.Generator) -> None:
    weight = torch.randn(40, 50, generator=generator)
    (pair,) = compare({"in": weight, "out": weight}, {"in": weight + 1, "out": weight + 1}).pairs
    assert (pair.before.name, pair.after.name) == ("in", "in")


def test_a_checkpoint_is_measured_as_its_tensors_are(
    states: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    torch.save(states[0], tmp_path / "a.pt")
    records = measure_checkpoint(tmp_path / "a.pt", exclude="c.*")
    assert [record.name for record in records] == ["a.weight", "b.weight"]
    expected = analyse({name: states[0][name] for name in ("a.weight", "b.weight")})
    assert [r.gap for r in records] == pytest.approx([r.gap for r in expected])
