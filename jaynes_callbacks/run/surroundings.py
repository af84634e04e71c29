"""Find what the Hugging Face Trainer does not tell its callbacks: by the frames that call them.

A `TrainerCallback` is given the settings, the state and the bare model.  It is not given the other
callbacks (which hold the trackers), the module that is really called (DDP, or what torch.compile
returns), the checkpoint that is resumed, or word of an exception.  All of these are known to the
functions that are running while a callback is called.
"""

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

__all__ = ["Surroundings", "surroundings_of"]

#: Name under which a frame of the Trainer keeps what tells that it has been left.
_ALIVE = "jaynes_callbacks_alive"


class _Alive:
    """Lives as long as a call of a function."""


@dataclass(frozen=True)
class Surroundings:
    """What is around a callback; nothing where no Trainer is found on the stack.

    Attributes:
        callbacks: the Trainer's own list.
        called: the module that the Trainer calls.
        checkpoint: the folder from which training is resumed.
    """

    callbacks: list[Any] = field(default_factory=list)
    called: nn.Module | None = None
    checkpoint: Path | None = None
    _alive: _Alive | None = None

    def put_first(self, callback: Any) -> None:
        """Move a callback to the front, so that it is called before the others from now on.

        Only for the callback that is being called: the Trainer then goes on with the one after it.
        """
        place = next((at for at, each in enumerate(self.callbacks) if each is callback), 0)
        if place:
            self.callbacks.insert(0, self.callbacks.pop(place))

    def when_left(self, act: Callable[[], None]) -> None:
        """Act once the Trainer's loop is left, by an exception too; or when Python ends.

        While a traceback of that exception is kept, as notebooks do, the loop counts as running.
        """
        if self._alive is not None:
            weakref.finalize(self._alive, act)


def surroundings_of(callback: Any) -> Surroundings:
    """Look for the Trainer among the callers of this function.

    Args:
        callback: that the Trainer is calling.
    """
    callbacks: list[Any] | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        owner = names.get("self")
        if callbacks is None:
            callbacks = _callbacks_of(owner, callback)
        elif _callbacks_of(getattr(owner, "callback_handler", None), callback) is not None:
            called = getattr(owner, "model_wrapped", None)
            resumed = names.get("resume_from_checkpoint")
            # A name that the function does not have: the frame keeps it until it is left.
            alive = names.get(_ALIVE) or _Alive()
            names[_ALIVE] = alive
            return Surroundings(
                callbacks,
                called if isinstance(called, nn.Module) else None,
                Path(resumed) if isinstance(resumed, str | Path) else None,
                alive,
            )
        frame = frame.f_back
    return Surroundings()


def _callbacks_of(owner: Any, callback: Any) -> list[Any] | None:
    """Return the list of callbacks of an object that holds this one; None of any other."""
    callbacks = getattr(owner, "callbacks", None)
    if isinstance(callbacks, list) and any(each is callback for each in callbacks):
        return callbacks
    return None
