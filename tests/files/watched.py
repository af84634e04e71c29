"""Measure many files in one process, each under a limit of time, and say what each cost.

Each process prints a line of JSON for each file.  A file that takes longer than its seconds ends
the process.
"""

import faulthandler
import json
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.processes import in_a_process
from tests.rough import leave_laws_unfitted

__all__ = ["Cost", "Fits", "measured"]


class Fits(Enum):
    """What is done of the fits, which take nearly all the time.

    Attributes:
        WHOLE: all of them.
        ROUGH: laws stay at their estimates by moments; all else is done.
        NONE: files are opened, loaded and counted.
    """

    WHOLE, ROUGH, NONE = range(3)


@dataclass(frozen=True)
class Cost:
    """What measuring one file cost.

    Attributes:
        path: of the file.
        said: the sentence why it was refused; empty if it was measured.
        problems: sentences on parts that could not be read.
        traceback: of an error that is no sentence.
        seconds: of this process, not of the machine.
        kibibytes: peak above what the process had before.
    """

    path: str
    said: str
    problems: list[str]
    traceback: str
    seconds: float
    kibibytes: int


def measured(
    paths: Sequence[Path], seconds: int = 60, *, fits: Fits = Fits.WHOLE, timeout: float = 3600
) -> list[Cost]:
    """Measure files in processes of their own, a new one after each that does not end.

    A file that does not end has infinite seconds.
    """
    found: list[Cost] = []
    while len(found) < len(paths):
        left = [str(path) for path in paths[len(found) :]]
        with in_a_process(_print_costs, left, seconds, fits) as process:
            done = process.wait(timeout)
        found += [Cost(**json.loads(line)) for line in done.stdout.splitlines()]
        if len(found) < len(paths):
            path = str(paths[len(found)])
            found.append(Cost(path, "", [], done.stderr, float("inf"), 0))
    return found


def _memory(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def _leave_fits_out() -> None:
    from jaynes_callbacks import Record, Records
    from jaynes_callbacks.files.survey import Survey

    def unfitted(self: Survey, group: Any, *_: Any) -> Records:
        return Records(Record(name=each.entry.name) for each in group)

    Survey._fit = unfitted  # type: ignore[method-assign]


def _costs(paths: Sequence[str], seconds: int) -> Iterator[Cost]:
    import traceback

    import torch

    from jaynes_callbacks import analyse
    from jaynes_callbacks.files import CheckpointError

    torch.set_num_threads(1)
    analyse({"w": torch.randn(9, 9)})
    for path in paths:
        faulthandler.dump_traceback_later(seconds, exit=True)
        # The peak begins anew.
        Path("/proc/self/clear_refs").write_text("5")
        before, start = _memory("VmRSS"), time.process_time()
        said, trace = "", ""
        with warnings.catch_warnings(record=True) as problems:
            warnings.simplefilter("always")
            try:
                analyse(path)
            except CheckpointError as error:
                said = str(error)
            except Exception:
                trace = traceback.format_exc()
        yield Cost(
            path,
            said,
            [str(problem.message) for problem in problems],
            trace,
            time.process_time() - start,
            _memory("VmHWM") - before,
        )
        faulthandler.cancel_dump_traceback_later()


def _print_costs(paths: Sequence[str], seconds: int, fits: Fits) -> None:
    if fits is Fits.NONE:
        _leave_fits_out()
    if fits is Fits.ROUGH:
        leave_laws_unfitted(pytest.MonkeyPatch())
    for cost in _costs(paths, seconds):
        sys.stdout.write(f"{json.dumps(vars(cost))}\n")
        sys.stdout.flush()
