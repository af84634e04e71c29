"""What is known of tensors, and of mere counts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jaynes_callbacks.counts.counting import count
from jaynes_callbacks.instruments.tally import PAPER_BINS, tally_of_counts, tally_of_tensors
from jaynes_callbacks.statistics import standard_errors_of
from jaynes_callbacks.statistics.influence import influences


def test_each_tensor_has_all_its_parts(generator: torch.Generator) -> None:
    tensors = [torch.randn(20, 30, generator=generator), torch.randn(200, generator=generator)]
    tally = tally_of_tensors(tensors)
    assert tally.counts.sum(-1).tolist() == [600, 200]
    for row, tensor in enumerate(tensors):
        expected = count(tensor, PAPER_BINS)
        assert torch.equal(tally.counts[row], expected.counts)
        assert tally.maximum[row] == expected.maximum == tensor.abs().max()
        assert torch.equal(tally.linear[row], expected.linear)
    errors = standard_errors_of(influences(tensors, tally.counts), tally.counts.device)
    torch.testing.assert_close(tally.errors, errors, rtol=0, atol=0, equal_nan=True)
    assert tally.errors.isnan().tolist() == [False, True]


class _Computed(Sequence[Tensor]):
    """Tensors that are made on every access, as a parametrized weight is."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.accesses: Counter[int] = Counter()
        self._seeds = seeds

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: Any) -> Any:
        seed = self._seeds[index]
        self.accesses[index] += 1
        return torch.randn(30, 20, generator=torch.Generator().manual_seed(seed))


def test_each_tensor_is_computed_once() -> None:
    tensors = _Computed([3, 4, 5])
    tally = tally_of_tensors(tensors)
    assert {index: tensors.accesses[index] for index in range(3)} == {0: 1, 1: 1, 2: 1}
    expected = tally_of_tensors([tensors[index] for index in range(3)])
    for found, whole in zip(tally, expected, strict=True):
        torch.testing.assert_close(found, whole, rtol=0, atol=0, equal_nan=True)


def test_nothing_tallies_to_nothing() -> None:
    assert [len(part) for part in tally_of_tensors([])] == [0, 0, 0, 0, 0, 0]


def test_of_counts_the_rest_is_unknown(generator: torch.Generator) -> None:
    whole = tally_of_tensors([torch.randn(50, 4, generator=generator)])
    tally = whole.joined(tally_of_counts(2 * whole.counts))
    assert tally.counts.sum(-1).tolist() == [200, 400]
    assert tally.linear.sum(-1).tolist() == [200, 0]
    assert tally.maximum.isnan().tolist() == tally.errors.isnan().tolist() == [False, True]
