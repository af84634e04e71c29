"""A process that writes records without end, until it is killed."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from jaynes_callbacks.records import parts
from tests.records.demo import record


class Writing:
    """The process, and what it tells of."""

    def __init__(self, process: BaseProcess, told: int) -> None:
        self._process, self._told = process, told
        self.last = self._hear()

    def kill(self) -> None:
        """End it with SIGKILL, and hear what it has told till then."""
        self._process.kill()
        self._process.join()
        os.write(self._told, b"\n")
        self.last = max(self.last, self._hear())

    def _hear(self) -> int:
        """The last step of which `write` had returned; waits for one."""
        return int((os.read(self._told, 1 << 20).split() or [b"-1"])[-1])


@contextmanager
def writing(folder: Path, first: int, *, repeat: bool = False) -> Iterator[Writing]:
    """Let a process write from a step on; with `repeat` it writes every fifth step twice."""
    fifo = folder.parent / f"told-{time.monotonic_ns()}"
    os.mkfifo(fifo)
    told = os.open(fifo, os.O_RDWR)
    process = get_context("forkserver").Process(
        target=_write_on, args=(str(folder), first, str(fifo), repeat)
    )
    process.start()
    try:
        yield Writing(process, told)
    finally:
        process.kill()
        process.join()
        os.close(told)
        fifo.unlink()


def _write_on(folder: str, first: int, fifo: str, repeat: bool) -> None:
    parts._ALONE, parts._TOGETHER = 3, 8
    told = os.open(fifo, os.O_WRONLY)
    writer = parts.PartWriter(Path(folder), "id")
    writer.truncate(first - 1)
    step = first
    while True:
        writer.write(record(step))
        os.write(told, b"%d\n" % step)
        if repeat and step % 5 == 4:
            writer.write(record(step - 2))
        step += 1
