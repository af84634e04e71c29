"""When a checkpoint was saved, read from its name, and which of many are chosen."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Thinning", "step_in"]

#: The last of these in a name counts: `stage1-step150-tokens1B` was saved at step 150.
_STEP = re.compile(r"(?:step|ckpt|checkpoint|iteration|iter)s?[-_=]?(\d+)([kKmM]?)(?![a-zA-Z0-9])")
_TIMES = {"": 1, "k": 1000, "m": 1_000_000}


def step_in(name: str) -> int | None:
    """Return the step that a name states; None if it states none.

    >>> names = ["step1000", "stage1-step150-tokens1B", "global_step5000", "ckpt_12", "step_20k"]
    >>> [step_in(name) for name in names]
    [1000, 150, 5000, 12, 20000]
    >>> step_in("epoch=3-step=700.ckpt"), step_in("checkpoint-50"), step_in("main")
    (700, 50, None)
    """
    found = _STEP.findall(name)
    if not found:
        return None
    digits, times = found[-1]
    return int(digits) * _TIMES[times.lower()]


@dataclass(frozen=True)
class Thinning:
    """Which steps of a history are measured.

    Attributes:
        first: no step before this one.
        last: no step after it.
        every: only steps that are a multiple of this.
        log_spaced: at most so many steps, at about equal ratios; the first and the last among them.

    Raises:
        ValueError: for numbers that cannot be followed.
    """

    first: int | None = None
    last: int | None = None
    every: int | None = None
    log_spaced: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"--every must be at least 1 step, got {self.every}")
        if self.log_spaced is not None and self.log_spaced < 2:
            raise ValueError(f"--log-spaced must be at least 2 revisions, got {self.log_spaced}")
        if self.first is not None and self.last is not None and self.first > self.last:
            raise ValueError(f"--from must not be beyond --to, got {self.first} and {self.last}")

    def chosen(self, steps: Iterable[int]) -> list[int]:
        """Return the chosen ones of some steps, in order.

        >>> Thinning(log_spaced=4).chosen(range(0, 1001, 10))
        [0, 10, 100, 1000]
        >>> Thinning(first=5, every=10).chosen([0, 10, 15, 20])
        [10, 20]
        """
        found = sorted(
            {
                step
                for step in steps
                if (self.first is None or step >= self.first)
                and (self.last is None or step <= self.last)
                and (self.every is None or step % self.every == 0)
            }
        )
        if self.log_spaced is None or len(found) <= self.log_spaced:
            return found
        places = [math.log1p(step) for step in found]
        ratio = (places[-1] - places[0]) / (self.log_spaced - 1)
        wanted = [places[0] + number * ratio for number in range(self.log_spaced)]
        nearest = {
            min(range(len(found)), key=lambda i: (abs(places[i] - place), i)) for place in wanted
        }
        return [found[i] for i in sorted(nearest)]
