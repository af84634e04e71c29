"""Load the tensors of a checkpoint ahead of their use, in threads and in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from torch import Tensor

from jaynes_callbacks.files.entry import CheckpointError, Entry

__all__ = ["Loaded", "ReadAhead"]

#: Connections to a server, and most bytes on their way or waiting; a larger tensor comes alone.
_CONNECTIONS, _WAITING = 4, 1 << 26


class Loaded(NamedTuple):
    """An entry with its values, or with what prevented loading them."""

    entry: Entry
    tensor: Tensor | None
    error: CheckpointError | None


class ReadAhead:
    """Iterates over entries, each loaded while those before it are in use.

    Of local files the next one is loaded where both are light; of a server several at once.
    Iterating begins to read, unless `start` did before.

    Args:
        entries: of one checkpoint.
        load: returns the values of an entry.
        light: most bytes of a local tensor in memory beside which another is loaded.
    """

    def __init__(
        self, entries: Sequence[Entry], load: Callable[[Entry], Tensor], light: int
    ) -> None:
        self._entries, self._load, self._light = deque(entries), load, light
        remote = any(entry.remote for entry in entries)
        self._pool = ThreadPoolExecutor(_CONNECTIONS if remote else 1, "jaynes-read")
        self._loading: deque[tuple[Entry, Future[Tensor]]] = deque()

    def start(self) -> None:
        """Load as many entries as may be in memory at once."""
        while self._entries and self._has_room_for(self._entries[0]):
            entry = self._entries.popleft()
            self._loading.append((entry, self._pool.submit(self._load, entry)))

    def __iter__(self) -> Iterator[Loaded]:
        try:
            self.start()
            while self._loading:
                entry, future = self._loading[0]
                loaded = _result(entry, future)
                self.start()
                # The future would keep the tensor alive.
                self._loading.popleft()
                del future
                yield loaded
                del loaded
                self.start()
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is not loaded yet."""
        self._entries.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _has_room_for(self, entry: Entry) -> bool:
        if not self._loading:
            return True
        if entry.remote:
            return entry.nbytes + sum(each.nbytes for each, _ in self._loading) <= _WAITING
        return len(self._loading) == 1 and all(map(self._is_light, (entry, self._loading[0][0])))

    def _is_light(self, entry: Entry) -> bool:
        return entry.mapped or entry.nbytes <= self._light


def _result(entry: Entry, future: "Future[Tensor]") -> Loaded:
    try:
        return Loaded(entry, future.result(), None)
    except CheckpointError as error:
        return Loaded(entry, None, error)
