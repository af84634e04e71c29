"""Which of the tensors in a training script's file are the model's."""

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["model_part"]

#: Under one of these a training script keeps the weights, beside all else that it saves.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module")
#: What begins like this at the top is no weight: moments of an optimizer have the weights' shapes.
_NOT_WEIGHTS = ("optim", "lr_scheduler", "scheduler", "callbacks", "loops", "scaler", "rng")

_Value = TypeVar("_Value")


def model_part(places: Mapping[_Value, tuple[object, ...]]) -> dict[str, _Value]:
    """The model's tensors by the name that they have in it.

    Where the file has a part for the model (``state_dict``, ``model`` …), that part alone, its own
    key left out; else everything but what is known to be no weight, such as an optimizer's moments.

    Args:
        places: the keys, from the outermost, under which each tensor is.

    Example:
        >>> model_part({0: ("model", "fc.weight"), 1: ("optimizer", "fc.weight")})
        {'fc.weight': 0}
    """
    tops = {place[0] for place in places.values() if len(place) > 1}
    for top in _WEIGHTS:
        if top in tops:
            return {
                _joined(place[1:]): tensor
                for tensor, place in places.items()
                if place[0] == top and len(place) > 1
            }
    return {
        _joined(place): tensor
        for tensor, place in places.items()
        if not str(place[0]).startswith(_NOT_WEIGHTS)
    }


def _joined(place: tuple[object, ...]) -> str:
    return ".".join(map(str, place))
