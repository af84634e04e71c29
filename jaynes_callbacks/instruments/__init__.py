"""Instruments: what is measured of a network in training, one file each.

An instrument is asked for by its name, or given as an object.  To add one, write its file and name
it in `KNOWN`; `instruments.base` says what it must have.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaynes_callbacks.instruments.base import Instrument

__all__ = ["DEFAULT", "KNOWN", "made"]

#: Instruments that can be asked for by name, and where each is defined.
KNOWN: Mapping[str, str] = {
    "magnitudes": "jaynes_callbacks.instruments.magnitudes:Magnitudes",
    "scales": "jaynes_callbacks.instruments.scales:Scales",
    "gradients": "jaynes_callbacks.instruments.gradients:Gradients",
    "neurons": "jaynes_callbacks.instruments.neurons:Neurons",
    "saliency": "jaynes_callbacks.instruments.saliency:Saliency",
    "energy": "jaynes_callbacks.instruments.energy:Energy",
    "coalitions": "jaynes_callbacks.instruments.coalitions:Coalitions",
    "alignment": "jaynes_callbacks.instruments.alignment:Alignment",
    "operators": "jaynes_callbacks.instruments.operators:Operators",
    "jacobian": "jaynes_callbacks.instruments.jacobian:Jacobian",
}

#: Stands for every known instrument.
ALL = "all"
#: What is measured where nobody chooses.
DEFAULT = ("magnitudes", "scales")


def made(
    chosen: "Sequence[str | Instrument[Any]] | str | Instrument[Any]",
    options: Mapping[str, Mapping[str, Any]],
) -> "list[Instrument[Any]]":
    """Make the instruments that a user has chosen.

    Args:
        chosen: names and objects, or one of them; ``"all"`` for every known instrument.
        options: arguments of instruments that are chosen by name, by that name.

    Raises:
        ValueError: for an unknown name, none at all, or two instruments of one name.
        TypeError: for what is neither a name nor an instrument.
    """
    from jaynes_callbacks.instruments.base import Instrument

    if isinstance(chosen, str) and chosen == ALL:
        chosen = list(KNOWN)
    listed = [chosen] if isinstance(chosen, str | Instrument) else list(chosen)
    instruments = [_made(each, options) for each in listed]
    names = [each.name for each in instruments]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"instruments must be one or more of different names, got {names or 'none'}; known are "
            f"{list(KNOWN)}, and {ALL!r} for all of them"
        )
    return instruments


def _made(
    chosen: "str | Instrument[Any]", options: Mapping[str, Mapping[str, Any]]
) -> "Instrument[Any]":
    from jaynes_callbacks.instruments.base import Instrument

    if isinstance(chosen, Instrument):
        return chosen
    if not isinstance(chosen, str):
        raise TypeError(
            f"an instrument is a name of {list(KNOWN)} or an object of a subclass of "
            f"jaynes_callbacks.instruments.base.Instrument, got {chosen!r}"
        )
    if chosen not in KNOWN:
        raise ValueError(
            f"there is no instrument {chosen!r}; known are {list(KNOWN)}, and {ALL!r}, not in a "
            "list, for all of them"
        )
    module, name = KNOWN[chosen].split(":")
    instrument: Instrument[Any] = getattr(import_module(module), name)(**options.get(chosen, {}))
    return instrument
