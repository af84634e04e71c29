"""The optimizers of a loop, and when a step of all of them is complete."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["Rounds", "closure_of", "has_scaled_gradients", "optimizers_of", "parameters_of"]

Optimizers = Optimizer | Sequence[Optimizer] | Mapping[str, Optimizer]


def optimizers_of(optimizers: Optimizers) -> dict[int | str, Optimizer]:
    """Return torch's own optimizers in what a user gave, by their place or key.

    A wrapper that has the optimizer as its ``optimizer`` (Accelerate's ``AcceleratedOptimizer``) is
    unwrapped: it may skip a step, and the hooks of the inner one are then not called.

    Raises:
        TypeError: for what is no torch optimizer.
        ValueError: for no optimizer at all, or the same one twice.
    """
    named: dict[Any, Any]
    if isinstance(optimizers, Mapping):
        named = dict(optimizers)
    elif isinstance(optimizers, Iterable):
        named = dict(enumerate(optimizers))
    else:
        named = {0: optimizers}
    found = {name: _unwrapped(each) for name, each in named.items()}
    if not found or len({id(each) for each in found.values()}) < len(found):
        raise ValueError(f"watch needs one or more different optimizers, got {len(found)}")
    return found


def _unwrapped(optimizer: Any) -> Optimizer:
    inner = optimizer
    while isinstance(wrapped := getattr(inner, "optimizer", None), Optimizer):
        inner = wrapped
    if not isinstance(inner, Optimizer):
        raise TypeError(
            f"watch needs torch.optim.Optimizer objects, got {optimizer!r}; with another kind of "
            "optimizer use jaynes_callbacks.Recorder"
        )
    return inner


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters that an optimizer updates."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def closure_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the closure of a call of ``step``, None if it has none.

    Args:
        args: as a hook gets them: the optimizer, then those of the call.
        kwargs: likewise.
    """
    return args[1] if len(args) > 1 else kwargs.get("closure")


def has_scaled_gradients(optimizer: Optimizer) -> bool:
    """Tell whether `torch.amp.GradScaler` leaves it to a fused optimizer to unscale gradients."""
    return isinstance(getattr(optimizer, "grad_scale", None), torch.Tensor)


class Rounds:
    """Tells when a step of several optimizers is complete.

    A step is complete when every optimizer has stepped since the last, or when one of them is about
    to step again: so several that share the parameters count as one, a critic's extra steps count
    each, and an optimizer that never steps delays nothing.  If one optimizer is chosen, only its
    steps count.

    Args:
        names: of the optimizers.
        counted: the one whose steps count; None for the rule above.

    Raises:
        ValueError: if `counted` is none of the names.
    """

    def __init__(self, names: Iterable[int | str], counted: int | str | None) -> None:
        self._names = frozenset(names)
        self._counted = counted
        self._stepped: set[int | str] = set()
        if counted is not None and counted not in self._names:
            raise ValueError(
                f"step must be the place or name of one of the optimizers, {list(names)}, "
                f"got {counted!r}"
            )

    @property
    def has_begun(self) -> bool:
        """True if some optimizer has stepped since the last complete step."""
        return bool(self._stepped)

    @property
    def counts_all(self) -> bool:
        """True if no optimizer was chosen as the one whose steps count."""
        return self._counted is None

    def is_complete_before(self, name: int | str) -> bool:
        """Tell whether a step is complete because this optimizer is about to step again."""
        return self.counts_all and name in self._stepped

    def is_complete_after(self, name: int | str) -> bool:
        """Note that an optimizer has stepped; tell whether a step is complete by that."""
        self._stepped.add(name)
        return self._stepped == self._names if self.counts_all else name == self._counted

    def begin(self) -> None:
        """Begin the next step."""
        self._stepped.clear()
