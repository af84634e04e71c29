"""Collectives of `torch.distributed`, counted by tests."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from jaynes_callbacks.recorder import Recorder


class Collectives(TorchDispatchMode):
    """Counts every collective, whichever function calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            self.calls[func._opname] += 1
        return func(*args, **(kwargs or {}))


def note_records(calls: list[dict[str, int]]) -> None:
    """Note what every record of this process calls."""
    count = Recorder.count

    def counted(recorder: Recorder, *args: Any) -> Any:
        with Collectives() as collectives:
            moment = count(recorder, *args)
        calls.append(dict(collectives.calls))
        return moment

    Recorder.count = counted  # type: ignore[method-assign]
