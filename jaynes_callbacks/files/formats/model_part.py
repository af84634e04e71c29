"""Find the model's tensors among all that a training script saved in one file."""

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["model_part"]

#: Keys under which training scripts save the weights, beside everything else.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module")
#: Beginnings of top-level keys without weights; an optimizer's moments have the weights' shapes.
_NOT_WEIGHTS = ("optim", "lr_scheduler", "scheduler", "callbacks", "loops", "scaler", "rng")

_Value = TypeVar("_Value")


def model_part(places: Mapping[_Value, tuple[object, ...]]) -> dict[str, _Value]:
    """Select the model's tensors and name them as the model does.

    Where the file has a part for the model (``state_dict``, ``model``, …), only that part is taken,
    without its own key.  Otherwise everything is taken except what is known to be no weight, such
    as an optimizer's moments.

    Args:
        places: for each tensor the keys under which it is, from the outermost.

    Returns:
        The keys of `places` by the names that the tensors have in the model.

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
