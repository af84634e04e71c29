"""Say at the end of a run what was found, where it is, and how to look at it."""

import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.stream import in_order, kind_label
from jaynes_callbacks.records.text import cell_text, counted

__all__ = ["closing_lines"]


def closing_lines(end: Frame[Any], dataset: Path | None, *, finished: bool) -> list[str]:
    """Return the verdict in one line, then where the dataset is and the command of the report.

    Args:
        end: the last record of the main instrument.
        dataset: the run's; None if none was written.
        finished: whether the run came to its end.
    """
    step = int(end["step"][-1]) if len(end) else 0
    ended = "" if finished else f"interrupted after step {step}; "
    lines = [f"{ended}{_verdict_line(end)}"]
    if dataset is None:
        return [*lines, "dataset  none was written: no DatasetSink in sinks, or no local folder"]
    shown = _shown(dataset)
    return [*lines, f"dataset  {shown}", f"report   {_program()} report {shown}"]


def _verdict_line(end: Frame[Any]) -> str:
    """Count the streams of each verdict, and give the median gap of each kind."""
    if not len(end):
        return "nothing was recorded"
    names = set(end.schema.names)
    parts = [counted(len(end), "stream")]
    shown = end.schema.by_name.get("verdict")
    verdicts = Counter(cell_text(row, shown) for row in end) if shown else Counter[str]()
    if any(verdicts):
        passed = (f"{number} {name}" for name, number in verdicts.most_common() if name)
        parts.append(", ".join(passed))
    if "gap" in names:
        gaps = {kind: end.select(kind=kind)["gap"] for kind in in_order(end["kind"].tolist())}
        medians = [
            f"{np.nanmedian(values):.3f} ({kind_label(kind)})"
            for kind, values in gaps.items()
            if np.isfinite(values).any()
        ]
        if medians:
            parts.append(f"median gap {', '.join(medians)} nats")
    if "core_gap" in names and np.isfinite(end["core_gap"]).any():
        core, gaussian, share = (
            float(np.nanmedian(end[name]))
            for name in ("core_gap", "core_gap_gaussian", "scale_share")
        )
        parts.append(
            f"without scales of rows and columns ({100 * share:.0f} % of the spread) "
            f"{core:.3f}, Gaussian {gaussian:.3f}"
        )
    return "; ".join([": ".join(parts[:2]), *parts[2:]])


def _shown(path: Path) -> str:
    """Return a path relative to the working directory if it lies below it, quoted if needed."""
    path, working = path.absolute(), Path.cwd()
    return shlex.quote(str(path.relative_to(working) if path.is_relative_to(working) else path))


def _program() -> str:
    """Return how this installation's command is called."""
    if shutil.which("jaynes"):
        return "jaynes"
    return f"{shlex.quote(sys.executable)} -m jaynes_callbacks"
