"""Compute the records of several instruments: laws are fitted to all their counts in one batch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch

from jaynes_callbacks.instruments.base import Counted, FittingInstrument, Instrument, Moment
from jaynes_callbacks.instruments.laws import Laws, fit_laws
from jaynes_callbacks.records.frame import Frame

__all__ = ["compute_all", "fit_together"]


def compute_all(
    instruments: Mapping[str, Instrument[Any]], moments: Mapping[str, Sequence[Moment]]
) -> tuple[dict[str, list[Frame[Any]]], dict[str, Exception]]:
    """Let instruments compute the frames of their moments.

    Args:
        instruments: by name.
        moments: of each instrument that has any, by its name.

    Returns:
        The frames of each instrument, one for each of its moments; and, of those that could not
        compute them, what they raised.
    """
    found: dict[str, list[Frame[Any]]] = {}
    errors: dict[str, Exception] = {}
    with ExitStack() as stack:
        for name in moments:
            stack.enter_context(instruments[name].paused())
        counted = _counted(instruments, moments, errors)
        laws = fit_together(counted)
        for name, own in moments.items():
            instrument = instruments[name]
            with _kept(name, errors):
                if not isinstance(instrument, FittingInstrument):
                    found[name] = instrument.compute(own)
                elif name in counted:
                    found[name] = instrument.fitted(own, counted[name], laws[name])
    _lend(instruments, moments, found)
    return found, errors


def _counted(
    instruments: Mapping[str, Instrument[Any]],
    moments: Mapping[str, Sequence[Moment]],
    errors: dict[str, Exception],
) -> dict[str, Counted]:
    """Return what is to be fitted of each instrument that fits."""
    counted: dict[str, Counted] = {}
    for name, own in moments.items():
        instrument = instruments[name]
        if isinstance(instrument, FittingInstrument):
            with _kept(name, errors):
                counted[name] = instrument.counted(own)
    return counted


def fit_together(counted: Mapping[str, Counted]) -> dict[str, Laws]:
    """Fit the counts of several instruments in one batch, and give each its own laws."""
    if not counted:
        return {}
    tables = [each.counts for each in counted.values()]
    # Usually they are on one device.
    laws = fit_laws(torch.cat([table.to(tables[0].device) for table in tables]))
    ends = accumulate(map(len, tables), initial=0)
    return {
        name: laws.take(slice(start, end))
        for name, (start, end) in zip(counted, pairwise(ends), strict=True)
    }


def _lend(
    instruments: Mapping[str, Instrument[Any]],
    moments: Mapping[str, Sequence[Moment]],
    found: dict[str, list[Frame[Any]]],
) -> None:
    """Put what instruments lend into the frames of the main one, beside the same streams."""
    mains = [name for name in found if instruments[name].schema.main]
    for lender in (name for name in found if instruments[name].lends):
        lent = {
            moment.step: frame for moment, frame in zip(moments[lender], found[lender], strict=True)
        }
        for main in mains:
            found[main] = [
                frame.beside(lent[moment.step], instruments[lender].lends)
                if moment.step in lent
                else frame
                for moment, frame in zip(moments[main], found[main], strict=True)
            ]


@contextmanager
def _kept(name: str, errors: dict[str, Exception]) -> Iterator[None]:
    """Keep what an instrument raises in a block, by its name."""
    try:
        yield
    except Exception as error:
        errors[name] = error
