"""The activations of a model: one stream for each place where a ReLU is applied.

A `TorchFunctionMode` sees ``F.relu``, ``torch.relu``, ``x.relu_()`` and the call inside ``nn.ReLU``
alike; hooks on every module tell whose forward it happens in.  What is seen is counted at once and
nothing of it is kept, so neither in-place operations nor memory are a concern.

For ReLU Z = z·y = y² on the active neurons: the stream is y itself, whose gap and q are those of Z,
and whose exact zeros are the inactive neurons (THEORY §5).
"""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from jaynes_callbacks.histogram import MagnitudeHistogram, count_, subsample
from jaynes_callbacks.record import Stream

__all__ = ["ActivationWatch"]

_RELUS = frozenset({functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
_ACTIVATION_MODULES = (nn.ReLU,)


class ActivationWatch:
    """Counts what every ReLU of a model puts out while the watch is open.

    Args:
        model: any module; names are those of its ``named_modules``.
        admits: which names to count.
        limit: most values counted of one call, picked at a constant stride.
    """

    def __init__(self, model: nn.Module, admits: Callable[[str], bool], limit: int) -> None:
        self.model = model
        self.streams: list[Stream] = []
        self._admits = admits
        self._limit = limit
        self._mode = _ReluMode(self._see)
        self._stack = ExitStack()
        self._open = False
        self._sites: list[str] = []
        self._calls: dict[str, int] = {}
        self._rows: dict[str, int | None] = {}
        self._fresh: set[int] = set()
        self._handles: list[RemovableHandle] = []
        self._histogram = MagnitudeHistogram([])

    def attach(self) -> None:
        """Put hooks on every module; they do nothing while the watch is closed."""
        for name, module in self.model.named_modules():
            site = _site(name, module)
            self._handles += [
                module.register_forward_pre_hook(self._enter(site)),
                module.register_forward_hook(self._leave, always_call=True),
            ]

    def detach(self) -> None:
        """Close the watch and take every hook off."""
        self.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def open(self) -> None:
        """Begin to count; calls of one site are numbered from here on."""
        if self._open:
            return
        self._sites.clear()
        self._calls.clear()
        self._open = True
        self._stack.enter_context(self._mode)

    def close(self) -> None:
        """Cease to count."""
        if not self._open:
            return
        self._open = False
        self._stack.close()

    @property
    def fresh(self) -> list[int]:
        """Rows that have seen a forward since the last `reset`."""
        return sorted(self._fresh)

    @property
    def histogram(self) -> MagnitudeHistogram:
        """The counts, one row per stream in the order of `streams`."""
        return self._histogram

    def reset(self) -> None:
        """Forget the counts; the streams stay known."""
        self._histogram.reset()
        self._fresh.clear()

    def _enter(self, site: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:  # noqa: ARG001
            if self._open:
                self._sites.append(site)

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._open and self._sites:
            self._sites.pop()

    def _see(self, output: Tensor) -> None:
        """Count one call; whatever goes wrong here closes the watch and spares the training."""
        try:
            row = self._row(output)
            if row is not None:
                count_(subsample(output.detach(), self._limit), self._histogram.counts, row)
                self._fresh.add(row)
        except Exception as error:
            self._admits = _nothing
            self._rows = dict.fromkeys(self._rows)
            warnings.warn(
                f"activations are no longer recorded: counting {self._sites[-1:]} failed with "
                f"{type(error).__name__}: {error}; training goes on",
                stacklevel=2,
            )

    def _row(self, output: Tensor) -> int | None:
        """The row of this call's stream, made at its first appearance; None if not wanted."""
        site = self._sites[-1] if self._sites else "relu"
        call = self._calls.get(site, 0)
        self._calls[site] = call + 1
        name = f"{site}#{call}" if call else site
        if name not in self._rows:
            self._rows[name] = self._new_row(name, output)
        return self._rows[name]

    def _new_row(self, name: str, output: Tensor) -> int | None:
        if not self._admits(name) or not output.dtype.is_floating_point or output.is_meta:
            return None
        if not self.streams:
            self._histogram.to(output.device)
        self.streams.append(Stream("iota", name, tuple(output.shape[1:])))
        return self._histogram.add_stream(name)


class _ReluMode(TorchFunctionMode):
    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _RELUS:
            self._see(output)
        return output


def _site(name: str, module: nn.Module) -> str:
    """Name of a ReLU applied while `module` is the innermost running one."""
    if isinstance(module, _ACTIVATION_MODULES):
        return name or "relu"
    return f"{name}.relu" if name else "relu"


def _nothing(name: str) -> bool:  # noqa: ARG001
    return False
