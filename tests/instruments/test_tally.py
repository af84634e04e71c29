"""What is known of tensors, and of mere counts."""

import torch

from jaynes_callbacks.counts.counting import linear_counts
from jaynes_callbacks.instruments.tally import PAPER_BINS, tally_of_counts, tally_of_tensors
from jaynes_callbacks.statistics import clustered_standard_errors


def test_each_tensor_has_all_its_parts(generator: torch.Generator) -> None:
    tensors = [torch.randn(20, 30, generator=generator), torch.randn(200, generator=generator)]
    tally = tally_of_tensors(tensors)
    assert tally.counts.sum(-1).tolist() == [600, 200]
    for row, tensor in enumerate(tensors):
        paper = linear_counts(tensor, PAPER_BINS)
        assert tally.maximum[row] == paper.maximum == tensor.abs().max()
        assert torch.equal(tally.linear[row], paper.counts)
    errors = clustered_standard_errors(tensors, tally.counts)
    torch.testing.assert_close(tally.errors, errors, rtol=0, atol=0, equal_nan=True)
    assert tally.errors.isnan().tolist() == [False, True]


def test_nothing_tallies_to_nothing() -> None:
    assert [len(part) for part in tally_of_tensors([])] == [0, 0, 0, 0]


def test_of_counts_the_rest_is_unknown(generator: torch.Generator) -> None:
    whole = tally_of_tensors([torch.randn(50, 4, generator=generator)])
    tally = whole.joined(tally_of_counts(2 * whole.counts))
    assert tally.counts.sum(-1).tolist() == [200, 400]
    assert tally.linear.sum(-1).tolist() == [200, 0]
    assert tally.maximum.isnan().tolist() == tally.errors.isnan().tolist() == [False, True]
