"""Counting tensors that are larger than memory: slice by slice, in several threads.

What is counted, and how, is `jaynes_callbacks.counts.counting.count`.  This module decides what
happens around each slice: of a mapped tensor only the slices being counted are in memory, because
the pages of each are given back to the system afterwards, while the kernel already reads ahead.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from jaynes_callbacks.counts.counting import Apply, TensorCounts, count, memory_order
from jaynes_callbacks.counts.kernels import passes_over
from jaynes_callbacks.counts.threads import one_thread
from jaynes_callbacks.counts.two_way import Effects
from jaynes_callbacks.counts.with_core import count_with_core
from jaynes_callbacks.files.pages import prefetch, release
from jaynes_callbacks.instruments.cores import Core
from jaynes_callbacks.instruments.tally import PAPER_BINS
from jaynes_callbacks.statistics.two_way import core_standard_error

__all__ = ["RESIDENT", "SliceCounter", "UnjudgedCore", "slice_counter"]

#: Bytes of a slice, which one thread counts at a time.
_SLICE = 1 << 23
#: Most bytes of a tensor whose pages stay in memory between the passes over it.
RESIDENT = 1 << 25

_Result = TypeVar("_Result")


class UnjudgedCore(NamedTuple):
    """The core of a weight, of which the standard error is not known yet.

    Attributes:
        counts: of the core on the universal grid.
        effects: of rows and columns, taken off.
    """

    counts: Int64[Tensor, " 4096"]
    effects: Effects


class SliceCounter:
    """Counts one tensor after the other with a pool of threads.

    Attributes:
        pool: the threads.

    Args:
        pool: the threads.
        ahead: for how many slices after the current one pages are read in advance.
        device: where slices are counted.
        progress: called with the number of bytes counted, after each slice.
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

    def count(self, tensor: Tensor, *, mapped: bool, bins: int = PAPER_BINS) -> TensorCounts:
        """Count the magnitudes of a tensor.

        Args:
            tensor: real floating-point values on the CPU.
            mapped: whether they are a view of a file, whose pages may be given back.
            bins: number of the paper's equal bins.

        Returns:
            The counts, on the CPU.

        Raises:
            TypeError: if `tensor` is not of a floating-point dtype.
        """
        flat = memory_order(tensor.detach())
        # A copy is no view of the file: giving back its pages would lose the values.
        is_view = flat.data_ptr() == tensor.data_ptr()
        size = max(1, _SLICE // flat.element_size())
        share = 1 / passes_over(flat)
        apply = self._over_slices(
            flat, share, gives_back=mapped and is_view and flat.nbytes > RESIDENT
        )
        return TensorCounts(
            *(each.cpu() for each in count(flat, bins, slice_size=size, apply=apply))
        )

    def count_with_core(
        self, tensor: Tensor, *, mapped: bool, bins: int = PAPER_BINS
    ) -> tuple[TensorCounts, UnjudgedCore]:
        """Count the magnitudes of a weight and its core, reading it by rows; see `count`.

        Raises:
            TypeError: if `tensor` is not of a floating-point dtype.
            ValueError: for fewer than two dimensions.
        """
        values = tensor.detach()
        size = max(1, _SLICE // values.element_size())
        gives_back = mapped and values.nbytes > RESIDENT
        apply = self._over_slices(values, 1 / 2, gives_back=gives_back)
        counted, core, effects = count_with_core(values, bins, slice_size=size, apply=apply)
        return TensorCounts(*(each.cpu() for each in counted)), UnjudgedCore(
            core.cpu(), Effects(*(each.cpu() for each in effects))
        )

    def judged(
        self,
        tensors: Sequence[Tensor],
        cores: Sequence[UnjudgedCore],
        release: Callable[[Tensor], object],
    ) -> list[Core]:
        """Estimate the standard errors of the cores of some weights, several at once.

        Args:
            tensors: the weights.
            cores: of them.
            release: called with each part of a weight after its use.
        """

        def judge(tensor: Tensor, core: UnjudgedCore) -> Core:
            return Core(*core, core_standard_error(tensor, core.effects, core.counts, release))

        return list(self.pool.map(judge, tensors, cores))

    def _over_slices(self, tensor: Tensor, share: float, *, gives_back: bool) -> Apply:
        """Return what goes over the slices of a tensor in threads.

        Args:
            tensor: the whole of them.
            share: of its bytes by which a slice counts as progress, until all have been counted.
            gives_back: whether the slices are views of a file, of which only those in work are kept
                in memory.
        """
        left: float = tensor.nbytes

        def apply(
            function: Callable[..., _Result], slices: Sequence[Tensor], /, *others: Sequence[Any]
        ) -> Iterator[_Result]:
            def work(index: int) -> _Result:
                if gives_back and index + self._ahead < len(slices):
                    prefetch(slices[index + self._ahead])
                found = function(slices[index].to(self._device), *(each[index] for each in others))
                if gives_back:
                    release(slices[index])
                return found

            nonlocal left
            for each, found in zip(slices, self.pool.map(work, range(len(slices))), strict=True):
                counted = min(left, each.nbytes * share)
                left -= counted
                self._progress(counted)
                yield found

        return apply


@contextmanager
def slice_counter(
    device: torch.device | str = "cpu",
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[SliceCounter]:
    """Open a pool of threads that count, for the duration of a block.

    Within the block, torch itself works with one thread in each of them.

    Args:
        device: where slices are counted.
        threads: how many; by default as many as torch works with.
        progress: called with the number of bytes counted, after each slice.
    """
    with one_thread() as before:
        number = threads or before
        with ThreadPoolExecutor(number, "jaynes-count") as pool:
            yield SliceCounter(pool, number, torch.device(device), progress or _ignore)


def _ignore(counted: float) -> None:
    """Report no progress."""
