"""Hooks that come off whatever happens, and that no copy of a module takes along."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from torch import nn

__all__ = ["DeepCalls", "Hook", "HookedModule"]


class Hook:
    """A forward hook that belongs to one watch.

    A model may be pickled or copied amid its forward.  The copy gets a function of the standard
    library in this hook's place that does nothing, and so can be read where this package is not
    installed.

    Args:
        act: is called with what torch hands to the hook.
    """

    def __init__(self, act: Callable[..., None]) -> None:
        self._act = act

    def __call__(self, *args: Any) -> None:
        """Call what the hook is for; it returns nothing, so nothing is changed."""
        self._act(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


class HookedModule:
    """A module and the hooks that are on it while a watch is open.

    Args:
        name: of the module in its model.
        module: any.
        enter: is called with the module, the arguments and the keyword arguments of a forward.
        leave: is called with the module, the arguments and the output.
        leave_with_kwargs: whether it gets the keyword arguments, too, before the output.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        enter: Callable[..., None],
        leave: Callable[..., None],
        *,
        leave_with_kwargs: bool = False,
    ) -> None:
        self.name = name
        self._leave_with_kwargs = leave_with_kwargs
        self._module = module
        self._enter, self._leave = Hook(enter), Hook(leave)

    def put_on(self) -> None:
        """Register the hooks.

        Raises:
            Exception: what the module raises (scripted modules take only scripted hooks); neither
                hook is on it then.
        """
        try:
            self._module.register_forward_pre_hook(self._enter, with_kwargs=True)
            self._module.register_forward_hook(self._leave, with_kwargs=self._leave_with_kwargs)
        except BaseException:
            self.take_off()
            raise

    def take_off(self) -> None:
        """Remove the hooks, by what they are: an interruption may have cost us their handles."""
        module = self._module
        flags: list[dict[int, Any]] = [
            module._forward_pre_hooks_with_kwargs,
            module._forward_hooks_with_kwargs,
            module._forward_hooks_always_called,
        ]
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in list(self._own(hooks)):
                del hooks[key]
                for flag in flags:
                    flag.pop(key, None)

    def _own(self, hooks: Mapping[int, Any]) -> Iterator[int]:
        return (key for key, hook in list(hooks.items()) if hook in (self._enter, self._leave))


class DeepCalls:
    """Room on Python's stack for the frames that hooks add to each level of a nested model.

    Without hooks torch calls a module in three frames, with hooks in four, and the innermost
    hook has frames of its own.  A model that nearly fills the stack still runs while it is watched.
    """

    _open = 0
    _before = 0
    #: Frames below the innermost module: hook, mode, reading, custom op.
    _OWN = 200

    @classmethod
    def allow(cls) -> None:
        """Raise the limit when the first watch opens."""
        if cls._open == 0:
            cls._before = sys.getrecursionlimit()
            sys.setrecursionlimit(cls._raised())
        cls._open += 1

    @classmethod
    def end(cls) -> None:
        """Set the limit back when the last watch closes, unless somebody else has changed it."""
        cls._open = max(0, cls._open - 1)
        if cls._open == 0 and sys.getrecursionlimit() == cls._raised():
            sys.setrecursionlimit(cls._before)

    @classmethod
    def _raised(cls) -> int:
        return cls._before * 3 // 2 + cls._OWN
