"""Multiply weights of 8-bit floats by the scales that Hugging Face saves beside them.

``x.weight`` is multiplied by ``x.weight_scale_inv`` or ``x.weight_scale``: one number, one for each
row, or one for each block of the size that ``config.json`` states.  A weight whose scales have any
other shape is left out, with the reason.  Weights of 4- or 8-bit integers are always left out:
their files do not say how they were packed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import torch
from torch import Tensor

from jaynes_callbacks.files.entry import Entry

__all__ = ["with_scales"]

_SUFFIXES = ("_scale_inv", "_scale")
_EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
#: End of the name of packed integers' scales -> end of the name of the integers.
_PACKED = {".scales": ".qweight", ".SCB": ".weight", ".absmax": ""}


def with_scales(entries: Sequence[Entry], config: Callable[[], str]) -> Iterator[Entry]:
    """Multiply weights of 8 bits by their scales when they are loaded, and leave the scales out.

    Args:
        entries: of one file.
        config: returns the text of the model's ``config.json``; raises OSError if there is none.
    """
    by_name = {entry.name: entry for entry in entries}
    for entry in entries:
        if scaled := _weight_scaled_by(entry.name, by_name):
            yield replace(entry, reason=f"the scales of {scaled}")
        elif entry.dtype in _EIGHT_BITS and (scale := _scales_of(entry.name, by_name)):
            yield _scaled(entry, scale, config)
        else:
            yield entry


def _scales_of(name: str, entries: Mapping[str, Entry]) -> Entry | None:
    return next((entries[name + end] for end in _SUFFIXES if name + end in entries), None)


def _weight_scaled_by(name: str, entries: Mapping[str, Entry]) -> str | None:
    """Return the name of the weight whose scales have this name; None if they are no scales."""
    for end in _SUFFIXES:
        if name.endswith(end) and name.removesuffix(end) in entries:
            return name.removesuffix(end)
    for end, packed in _PACKED.items():
        weight = name.removesuffix(end) + packed
        if name.endswith(end) and weight in entries:
            return weight
    return None


def _scaled(entry: Entry, scale: Entry, config: Callable[[], str]) -> Entry:
    block = _block_shape(entry.shape, scale.shape, config)
    if block is None:
        reason = (
            f"quantised with scales of shape {list(scale.shape)}, and no config.json beside it "
            "says of which blocks"
        )
        return replace(entry, reason=reason)
    return replace(
        entry, load=partial(_load_scaled, entry, scale, block), mapped=False, nbytes=4 * entry.size
    )


def _block_shape(
    shape: tuple[int, ...], scale: tuple[int, ...], config: Callable[[], str]
) -> tuple[int, ...] | None:
    """Return how many values share a scale in each dimension; None if the shapes do not say."""
    if prod(scale) == 1:
        return shape
    if scale in ((shape[0],), (shape[0], *(1 for _ in shape[1:]))):
        return (1, *shape[1:])
    block = _stated_block(config)
    if len(block) == len(shape) and scale == tuple(
        -(-size // step) for size, step in zip(shape, block, strict=True)
    ):
        return block
    return None


def _stated_block(config: Callable[[], str]) -> tuple[int, ...]:
    """Read the block size from ``config.json``; empty where it states none."""
    try:
        sizes = json.loads(config())["quantization_config"]["weight_block_size"]
        return tuple(int(size) for size in sizes if int(size) > 0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def _load_scaled(entry: Entry, scale: Entry, block: tuple[int, ...]) -> Tensor:
    values = entry.load().to(torch.float32)
    factors = scale.load().to(torch.float32)
    if factors.numel() == 1:
        return values.mul_(factors.reshape(()))
    factors = factors.view(*factors.shape, *(1 for _ in range(values.dim() - factors.dim())))
    # Scale a slice of rows at a time, so that the factors are never expanded for every value.
    for row, part in zip(factors, values.split(block[0]), strict=True):
        spread = row
        for dimension, (step, size) in enumerate(zip(block[1:], part.shape[1:], strict=True)):
            if row.shape[dimension] > 1:
                spread = spread.repeat_interleave(step, dimension).narrow(dimension, 0, size)
        part.mul_(spread)
    return values
