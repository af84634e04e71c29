"""Measure many files in one process, each under a limit of time, and say what each cost.

``python -m tests.files.watched SECONDS [--no-fits]`` reads paths from standard input, a line each,
and prints a line of JSON for each.  A file that takes longer than the seconds ends the process.
"""

import faulthandler
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "measured"]


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


def measured(paths: Sequence[Path], seconds: int = 60, *, fits: bool = True) -> list[Cost]:
    """Measure files in processes of their own, a new one after each that does not end.

    A file that does not end has infinite seconds.  Without fits, which take nearly all the time,
    files are opened, loaded and counted.
    """
    options = [] if fits else ["--no-fits"]
    found: list[Cost] = []
    while len(found) < len(paths):
        left = "".join(f"{path}\n" for path in paths[len(found) :])
        done = subprocess.run(
            [sys.executable, "-m", "tests.files.watched", str(seconds), *options],
            input=left, capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
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

    Survey._fit = lambda self, group, counter: Records(  # type: ignore[method-assign]
        Record(name=each.entry.name) for each in group
    )


def _costs(paths: Iterator[str], seconds: int) -> Iterator[Cost]:
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


if __name__ == "__main__":
    if "--no-fits" in sys.argv:
        _leave_fits_out()
    for cost in _costs((line.rstrip("\n") for line in sys.stdin), int(sys.argv[1])):
        sys.stdout.write(f"{json.dumps(vars(cost))}\n")
        sys.stdout.flush()
