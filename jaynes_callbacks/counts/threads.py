"""How many threads torch works with, and what is done in several."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["one_thread", "side_by_side"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def one_thread() -> Iterator[int]:
    """Let torch work with one thread in a block, or in a function that this decorates.

    The block is told with how many it worked before.  It is for arrays of a core's cache, such as
    those of the fits: two threads gain a fifth there, and where another process wants the second
    core they wait for each other at every operation, which then takes ten times as long.

    Example:
        >>> import torch
        >>> with one_thread() as before:
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def side_by_side(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> list[_Result]:
    """The function of each item, in their order, in so many threads with one of torch's each.

    Such threads meet at the end only, so they gain what cores there are, and lose nothing where
    there is but one.  What torch keeps for each thread (gradients, inference mode) they have as
    this one.

    Example:
        >>> side_by_side(abs, [-3, 2], threads=2)
        [3, 2]
    """
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def work(item: _Item) -> _Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(item)

    with one_thread():
        if threads < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, "jaynes-fit") as pool:
            return list(pool.map(work, items))
