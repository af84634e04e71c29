"""Make activations by their names."""

from torch import nn

__all__ = ["activation_module"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
}


def activation_module(name: str) -> nn.Module:
    """Make a new module of an activation.

    Args:
        name: ``relu``, ``gelu``, ``silu``, ``tanh`` or ``leaky_relu``.

    Raises:
        ValueError: for any other name.
    """
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"activation must be one of {known}, got {name!r}")
    return _ACTIVATIONS[name]()
