import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from jaynes_callbacks.counts.metric import MagnitudeHistogram


class TestMagnitudeHistogram:
    def test_streams_by_row_and_by_name(self) -> None:
        histogram = MagnitudeHistogram(["a", "b"])
        histogram.update(torch.ones(3), "b")
        histogram.update(torch.ones(2), 0)
        assert histogram.compute().sum(-1).tolist() == [2, 3]

    @pytest.mark.parametrize("stream", ["c", 2, -1])
    def test_unknown_streams_are_named(self, stream: int | str) -> None:
        with pytest.raises(KeyError, match=r"no stream .*\['a', 'b'\]"):
            MagnitudeHistogram(["a", "b"]).update(torch.ones(3), stream)

    def test_names_must_differ(self) -> None:
        with pytest.raises(ValueError, match="must differ"):
            MagnitudeHistogram(["a", "a"])

    def test_merge_is_a_sum(self, generator: torch.Generator) -> None:
        ours, theirs = MagnitudeHistogram(2), MagnitudeHistogram(2)
        values = torch.randn(100, generator=generator)
        ours.update(values[:40], 1)
        theirs.update(values[40:], 1)
        ours.merge_state(theirs)
        alone = MagnitudeHistogram(2)
        alone.update(values, 1)
        assert torch.equal(ours.compute(), alone.compute())

    def test_other_streams_do_not_merge(self) -> None:
        with pytest.raises(ValueError, match="different streams"):
            MagnitudeHistogram(["a"]).merge_state(MagnitudeHistogram(["b"]))

    def test_reset_and_copies(self) -> None:
        histogram = MagnitudeHistogram(1)
        histogram.update(torch.ones(5))
        copied = copy.deepcopy(histogram)
        histogram.reset()
        assert histogram.counts.sum() == 0
        assert copied.compute().sum() == 5

    def test_the_state_dict_holds_what_was_counted(self) -> None:
        histogram = MagnitudeHistogram(1)
        histogram.persistent(True)
        histogram.update(torch.ones(5))
        other = MagnitudeHistogram(1)
        other.persistent(True)
        other.load_state_dict(histogram.state_dict())
        assert other.counts.sum() == 5


def _sum_over_ranks() -> tuple[list[int], int]:
    rank = dist.get_rank()
    histogram = MagnitudeHistogram(2)
    histogram.update(torch.ones(3 + rank), rank)
    total = histogram.compute().sum(-1).tolist()
    return total, int(histogram.counts.sum())


def test_compute_adds_the_ranks_and_leaves_each_its_own(ranks: Callable[..., list[Any]]) -> None:
    assert ranks(_sum_over_ranks) == [([3, 4], 3), ([3, 4], 4)]
