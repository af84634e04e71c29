"""Tell which modules are activations as a whole, and which the watch leaves out.

Many activations are written out by hand from other operations: GPT-2's GELU calls ``tanh`` on a
polynomial of z.  The neuron is then the module, from its input z to its output y, and the functions
inside are no neurons.  Known are the classes of transformers and timm by their names, so that
neither is imported; a user names others by ``activations={"*.act": "z*y"}``.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn

from jaynes_callbacks.probes.functions import (
    ACTIVATION_MODULES,
    FUNCTIONS,
    RECURRENT_MODULES,
    reason_not_to_watch,
    variable_of,
)

__all__ = [
    "NOWHERE",
    "Activations",
    "Place",
    "Role",
    "chosen_activations",
    "place_of",
    "sees_functions",
]

#: Glob patterns on names of modules, each with the iota of those modules; None to leave them out.
Activations = tuple[tuple[str, str | None], ...]

_IOTAS = ("y", "z*y")
#: Names of classes that apply one element-wise function that keeps the sign of z.
_KNOWN = frozenset(
    {
        # transformers.activations
        "AccurateGELUActivation",
        "ClippedGELUActivation",
        "FastGELUActivation",
        "GELUActivation",
        "GELUTanh",
        "MishActivation",
        "NewGELUActivation",
        "PytorchGELUTanh",
        "QuickGELUActivation",
        "ReLUSquaredActivation",
        "SiLUActivation",
        # timm.layers, and hand-written ones that bear the usual names
        "FastGELU",
        "GELU",
        "HardMish",
        "HardSwish",
        "MemoryEfficientSwish",
        "Mish",
        "NewGELU",
        "QuickGELU",
        "ReLUSquared",
        "SquaredReLU",
        "Swish",
    }
)
_SIGN = "does not keep the sign of z, so that z·y is no iota"
#: Names of classes whose functions are no neurons either.
_KNOWN_UNFIT: Mapping[str, str] = {
    "LaplaceActivation": _SIGN,
    "XIELUActivation": _SIGN,
}
_SCRIPTED = "scripted: its functions are not seen"
_UNWANTED = "left out by activations=..."


class Role(Enum):
    """What a module is to the functions that are called in its forward."""

    #: Functions are streams, named below the module.
    CONTAINER = "container"
    #: One of torch's own, which only calls a function: the stream has the module's name.
    CALLER = "caller"
    #: The module is the stream, by its input and output; functions in it are none.
    ACTIVATION = "activation"
    #: Functions in it are no streams.
    LEFT_OUT = "left out"


class Place(NamedTuple):
    """A module, as the watch sees its forward.

    Attributes:
        name: of the module.
        role: what it is.
        iota: ``y`` or ``z*y`` of an activation.
        reason: why it is left out, if it is.
    """

    name: str
    role: Role
    iota: str = "z*y"
    reason: str | None = None

    @property
    def is_opaque(self) -> bool:
        """True if functions that are called in its forward are no streams."""
        return self.role is Role.ACTIVATION or self.role is Role.LEFT_OUT

    def site(self, function: str) -> str:
        """Name a function that is applied while this is the innermost running module."""
        if self.role is Role.CONTAINER:
            return f"{self.name}.{function}" if self.name else function
        return self.name or function


#: Outside of every module of the model.
NOWHERE = Place("", Role.CONTAINER)


def chosen_activations(
    chosen: Mapping[str, str | None] | Sequence[str] | str,
) -> Activations:
    """Check which modules a user wants to be read as activations, and how.

    Args:
        chosen: glob patterns on names of modules.  With each pattern may stand the iota that is
            recorded, ``"z*y"`` (also for patterns alone) or ``"y"``, the name of a function that is
            recorded alike, such as ``"gelu"`` or ``"relu"``, or None to leave these modules out.

    Raises:
        TypeError: for patterns that are no strings.
        ValueError: for anything else beside a pattern.

    Example:
        >>> chosen_activations({"*.act": "relu", "*.cap": None})
        (('*.act', 'y'), ('*.cap', None))
        >>> chosen_activations("*.act")
        (('*.act', 'z*y'),)
    """
    if isinstance(chosen, str):
        chosen = (chosen,)
    pairs = chosen.items() if isinstance(chosen, Mapping) else ((each, "z*y") for each in chosen)
    return tuple((_pattern(pattern), _iota(pattern, value)) for pattern, value in pairs)


def _pattern(pattern: str) -> str:
    if not isinstance(pattern, str):
        raise TypeError(f"patterns of activations must be strings, got {pattern!r}")
    return pattern


def _iota(pattern: str, value: str | None) -> str | None:
    functions = sorted(set(FUNCTIONS.values()))
    if value is None or value in _IOTAS:
        return value
    if value in functions:
        return variable_of(value)
    raise ValueError(
        f"activations[{pattern!r}] must be 'z*y' (pre-activation times output), 'y' (the output, "
        f"as of ReLU), a function that is recorded alike ({', '.join(functions)}) or None (left "
        f"out), got {value!r}"
    )


def place_of(name: str, module: nn.Module, chosen: Activations = ()) -> Place | None:
    """Return what a module is to the watch; None if no function is seen in its forward.

    Args:
        name: of the module in its model.
        module: of any class.
        chosen: by the user; the first pattern that matches decides.
    """
    for pattern, iota in chosen:
        if fnmatchcase(name, pattern):
            return _chosen(name, iota)
    if isinstance(module, torch.jit.ScriptModule):
        return Place(name, Role.LEFT_OUT, reason=_SCRIPTED)
    if isinstance(module, ACTIVATION_MODULES):
        return Place(name, Role.CALLER)
    if reason := reason_not_to_watch(module) or _KNOWN_UNFIT.get(type(module).__name__):
        return Place(name, Role.LEFT_OUT, reason=reason)
    if _is_torchs_own(module):
        return None if next(module.children(), None) is None else Place(name, Role.CONTAINER)
    if type(module).__name__ in _KNOWN and next(module.parameters(), None) is None:
        return Place(name, Role.ACTIVATION)
    return Place(name, Role.CONTAINER)


def sees_functions(module: nn.Module) -> bool:
    """Tell whether functions that a module applies are seen; recurrent kernels call none."""
    return not isinstance(module, (*RECURRENT_MODULES, torch.jit.ScriptModule))


def _chosen(name: str, iota: str | None) -> Place:
    if iota is None:
        return Place(name, Role.LEFT_OUT, reason=_UNWANTED)
    return Place(name, Role.ACTIVATION, iota)


def _is_torchs_own(module: nn.Module) -> bool:
    """Tell whether a module is one of torch's layers, which apply no function of their own."""
    return type(module).__module__.startswith("torch.nn.modules.")
