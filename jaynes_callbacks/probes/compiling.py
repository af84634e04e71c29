"""Have torch.compile (dynamo) trace the watch of activations as eager torch runs it."""

import inspect
import types

from torch import fx, nn
from torch.overrides import get_overridable_functions, resolve_name

from jaynes_callbacks.probes.functions import FUNCTIONS

__all__ = [
    "dispatch_every_spelling",
    "do_not_compile_alone",
    "is_called_by_graph_outside",
    "spellings_hidden_by_dynamo",
]

#: How `torch.fx` names the file of the code that it generates for a graph.
_GENERATED_CODE = "<eval_with_key>"


def dispatch_every_spelling() -> bool:
    """Have torch.compile hand every spelling of an activation to modes, as eager torch does.

    torch.compile (dynamo, torch 2.13) hands only those functions to a `TorchFunctionMode` that
    `torch.overrides.get_overridable_functions` lists.  That list leaves out `F.hardswish`, `F.tanh`
    and all functions whose names end in "_", such as `torch.relu_`.  It is kept in a set, to which
    the spellings are added.  The set matters only where a mode or a tensor subclass is in use.

    Returns:
        True if it has been done; other versions of torch may keep the list elsewhere.
    """
    try:
        from torch._dynamo.variables.torch import get_overridable_functions as dispatched
    except ImportError:
        return False
    functions: object = dispatched()
    if not isinstance(functions, set):
        return False
    functions.update(FUNCTIONS)
    return FUNCTIONS.keys() <= dispatched()


def spellings_hidden_by_dynamo() -> tuple[str, ...]:
    """Name the spellings that torch.compile does not hand to modes of its own accord."""
    dispatched = {each for functions in get_overridable_functions().values() for each in functions}
    return tuple(
        resolve_name(function) or function.__name__
        for function in FUNCTIONS
        if function not in dispatched
    )


def do_not_compile_alone(code: types.CodeType) -> None:
    """Leave a function that is not called from a compiled one uncompiled."""
    try:
        from torch._dynamo.eval_frame import skip_code
    except ImportError:
        # Without it there are only more graphs.
        return
    skip_code(code)


def is_called_by_graph_outside(model: nn.Module) -> bool:
    """Tell whether the running code is that of a `torch.fx` graph that is no part of a model.

    While the mode is active, this is a graph that torch.compile has traced with the mode.
    """
    frame = inspect.currentframe()
    while frame is not None:
        # To look at a frame's variables keeps them alive, so only of the one that matters.
        if frame.f_code.co_filename.startswith(_GENERATED_CODE):
            graph = frame.f_locals.get("self")
            return isinstance(graph, fx.GraphModule) and all(
                graph is not module for module in model.modules()
            )
        frame = frame.f_back
    return False
