"""The order in which a forward calls modules, and which of them come one right after another.

A module follows the one before it if its input is the very output of that one (or a view of the
same values, such as a flattened map).  Where a function that is no module's lies in between, such
as ``F.relu(x)`` or ``x + y``, the chain is broken.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jaynes_callbacks.probes.maps import Listener, first_tensor, leave_uncompiled

__all__ = ["ChainWatch", "Link"]

#: Modules without children that are noted of a forward.
_MOST_LINKS = 4096


class Link(NamedTuple):
    """A call of a module without children.

    Attributes:
        name: of the module.
        module: itself.
        follows: whether its input is the output of the link before.
    """

    name: str
    module: nn.Module
    follows: bool


class ChainWatch:
    """Notes the calls of the modules without children, in order.

    Args:
        model: any module.

    Attributes:
        links: the calls of the last forward.
        is_whole: whether the model's input is that of the first link, and its output that of the
            last; None if only parts of the model were called.
    """

    def __init__(self, model: nn.Module) -> None:
        self.links: list[Link] = []
        self.is_whole: bool | None = None
        self._model = model
        self._tail: Tensor | None = None
        self._version = 0
        self._first: Tensor | None = None
        self._depth = 0
        self._one_forward = False
        self._listener = Listener(dict(model.named_modules()), self._enter, self._leave)
        leave_uncompiled(ChainWatch._enter, ChainWatch._leave, ChainWatch._begin)
        leave_uncompiled(ChainWatch._note, ChainWatch._is_tail, _is_leaf)

    def open(self, *, one_forward: bool = False) -> None:
        """Note calls from here on.

        Args:
            one_forward: take all until `close` as one forward; by default each begins anew.
        """
        self._one_forward = one_forward
        self._begin()
        self._listener.open()

    def close(self) -> None:
        """Note no more calls."""
        self._listener.close()
        self._tail = self._first = None

    def following(self, name: str) -> Link | None:
        """Return the link right after the first call of a module; None if none follows it."""
        places = [place for place, link in enumerate(self.links) if link.name == name]
        after = self.links[places[0] + 1 : places[0] + 2] if places else []
        return after[0] if after and after[0].follows else None

    def _begin(self) -> None:
        self.links, self.is_whole, self._depth = [], None, 0
        self._tail = self._first = None

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if module is self._model or (self._depth == 0 and not self._one_forward):
            self._begin()
        self._depth += 1
        if _is_leaf(module) and len(self.links) < _MOST_LINKS:
            x = first_tensor([*args, *kwargs.values()])
            self._first = self._first if self.links else x
            self.links.append(Link(name, module, self._is_tail(x)))

    def _leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self._depth = max(0, self._depth - 1)
        found = first_tensor(output)
        if _is_leaf(module):
            self._note(found)
        if module is self._model:
            x = first_tensor([*args, *kwargs.values()])
            self.is_whole = x is not None and x is self._first and self._is_tail(found)
            self._tail = self._first = None

    def _note(self, output: Tensor | None) -> None:
        """Remember a link's output, and its version, which any writing over it raises."""
        self._tail = output
        try:
            self._version = 0 if output is None else output._version
        except RuntimeError:
            # A tensor of inference mode has none.
            self._tail = None

    def _is_tail(self, x: Tensor | None) -> bool:
        """Tell whether a tensor holds the values of the last link's output, all of them."""
        tail = self._tail
        if x is None or tail is None:
            return False
        try:
            same = x is tail or (
                x.data_ptr() == tail.data_ptr() != 0
                and (x.numel(), x.dtype, x.device) == (tail.numel(), tail.dtype, tail.device)
            )
            return same and x._version == self._version
        except Exception:
            # Tensors without memory or version of their own: nothing is known of them.
            return False


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None
