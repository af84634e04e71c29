"""Counting tensors that are larger than memory: slice by slice, in several threads.

Of a mapped tensor only the slices in work are held: each is given back to the system when it has
been counted, while the kernel already reads the next ones.  The counts are those of
`jaynes_callbacks.instruments.tally`, to the bit: integers add in any order.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from jaynes_callbacks.counts.counting import memory_order
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.counts.kernels import (
    FirstPass,
    first_pass,
    has_patterns,
    of_patterns,
    pattern_counts,
    position_counts,
)
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.files.pages import expect, forget
from jaynes_callbacks.instruments.tally import PAPER_BINS

__all__ = ["RESIDENT", "Counted", "SliceCounter", "slice_counter"]

#: Bytes of a slice, which one thread counts at a time.
_SLICE = 1 << 23
#: Bytes of a tensor that stays in memory from its first pass to its last.
RESIDENT = 1 << 26

_Result = TypeVar("_Result")


class Counted(NamedTuple):
    """What was counted of one tensor, on the CPU.

    Attributes:
        counts: on the universal grid.
        maximum: largest finite magnitude.
        linear: the paper's equal bins on [0, maximum].
    """

    counts: Int64[Tensor, " 4096"]
    maximum: Float32[Tensor, ""]
    linear: Int64[Tensor, " bins"]


class SliceCounter:
    """Counts one tensor after the other with a pool of threads.

    Attributes:
        pool: threads that count.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        ahead: int,
        device: torch.device,
        progress: Callable[[float], None],
    ) -> None:
        self.pool = pool
        self._ahead, self._device, self._progress = ahead, device, progress

    def count(self, tensor: Tensor, *, mapped: bool) -> Counted:
        """Counts of all values, and of the paper's bins.

        Args:
            tensor: real floating-point values.
            mapped: whether they are a view of a file, whose pages may be given back.
        """
        flat = memory_order(tensor.detach())
        slices = flat.split(max(1, _SLICE // flat.element_size())) if flat.numel() else ()
        # Where the values are no view of the file after all, giving them back would lose them.
        is_view = flat.data_ptr() == tensor.data_ptr()
        let_go = mapped and is_view and flat.nbytes > RESIDENT
        if has_patterns(flat.dtype):
            patterns = torch.zeros(1 << (8 * flat.element_size()), dtype=torch.int64)
            for found in self._each(_patterns_of, slices, 1.0, let_go=let_go):
                patterns += found
            first, linear = of_patterns(patterns, flat.dtype, PAPER_BINS)
            return Counted(*first, linear)
        counts, maximum = torch.zeros(CODES, dtype=torch.int64), torch.zeros(())
        for part in self._each(_first_pass_of, slices, 0.5, let_go=let_go):
            counts += part.counts
            maximum = torch.maximum(maximum, part.maximum)
        linear = torch.zeros(PAPER_BINS, dtype=torch.int64)
        for found in self._each(partial(_positions_of, maximum), slices, 0.5, let_go=let_go):
            linear += found
        return Counted(counts, maximum, linear)

    def _each(
        self,
        function: Callable[[Tensor], _Result],
        slices: Sequence[Tensor],
        share: float,
        *,
        let_go: bool,
    ) -> Iterator[_Result]:
        """The function of every slice, in order; `share` is the pass' part of the progress."""

        def work(index: int) -> _Result:
            if let_go and index + self._ahead < len(slices):
                expect(slices[index + self._ahead])
            found = function(slices[index].to(self._device))
            if let_go:
                forget(slices[index])
            return found

        for each, found in zip(slices, self.pool.map(work, range(len(slices))), strict=True):
            self._progress(share * each.nbytes)
            yield found


@contextmanager
def slice_counter(
    device: torch.device | str = "cpu",
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[SliceCounter]:
    """A counter and its threads, which end with the block.

    Within it torch itself works with one thread in each of them.

    Args:
        device: where slices are counted.
        threads: how many; by default as many as torch works with.
        progress: told how many bytes were counted, a slice at a time.
    """
    with one_thread() as before:
        number = threads or before
        with ThreadPoolExecutor(number, "jaynes-count") as pool:
            yield SliceCounter(pool, number, torch.device(device), progress or _say_nothing)


def _say_nothing(counted: float) -> None:
    """For those who do not watch."""


def _first_pass_of(values: Tensor) -> FirstPass:
    counts, maximum = first_pass(values)
    return FirstPass(counts.cpu(), maximum.cpu())


def _positions_of(maximum: Float32[Tensor, ""], values: Tensor) -> Int64[Tensor, " bins"]:
    return position_counts(values, maximum.to(values.device), PAPER_BINS).cpu()


def _patterns_of(values: Tensor) -> Int64[Tensor, " patterns"]:
    return pattern_counts(values).cpu()
