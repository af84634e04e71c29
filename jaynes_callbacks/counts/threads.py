"""Limiting torch to one thread, and running a function over items in several threads."""

import threading
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

    Meant for work on arrays that fit into a core's cache, such as the fits.  There, a second thread
    saves a fifth of the time; but torch's threads synchronise at the end of every operation, and
    where another process uses the second core, each operation takes ten times as long.

    Yields:
        How many threads torch worked with before.

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
    """Call the function with each item, in several threads, each limited to one thread of torch.

    The threads synchronise only at the end, unlike torch's own, so they use all cores there are and
    cost nothing extra on one.  The settings that torch keeps per thread (gradients, inference mode)
    are those of the calling thread.

    Args:
        function: called once with each item.
        items: its arguments.
        threads: how many to use; with fewer than two, and while Python ends, the calling thread
            does the work.

    Returns:
        The results, in the order of the items.

    Example:
        >>> side_by_side(abs, [-3, 2], threads=2)
        [3, 2]
    """
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def work(item: _Item) -> _Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(item)

    with one_thread():
        # Python starts no thread any more once the main thread has ended, as in `atexit`.
        if threads < 2 or not threading.main_thread().is_alive():
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, "jaynes-fit") as pool:
            return list(pool.map(work, items))
