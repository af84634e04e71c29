"""Tensors that are spread over ranks: DTensors of FSDP2, tensor parallelism or both.

A DTensor has one placement for each dimension of its device mesh: along it the ranks hold parts
(Shard), copies (Replicate), or terms of a sum that is still to be taken (Partial).  Nothing here
speaks to other ranks, and nothing needs `torch.distributed`: DTensors are told by their attributes.
"""

from typing import Any

import torch.distributed as dist
from torch import Tensor

__all__ = ["held", "is_sharded", "reason_not_to_share", "sampled", "share"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether ranks hold parts of this tensor, so that only together they can count it."""
    return any(not placement.is_replicate() for _, placement in _placements(tensor))


def held(tensor: Tensor) -> Tensor:
    """What this rank holds: the tensor itself, or of a DTensor the own part or copy."""
    local: Any = tensor.detach()
    part: Tensor = local.to_local() if hasattr(local, "to_local") else local
    return part


def share(tensor: Tensor) -> Tensor:
    """What this rank counts: the shares of all ranks hold every value of a DTensor once.

    Its part; of copies only the first rank's, elsewhere there are no values.
    """
    part = held(tensor)
    copies = [dim for dim, placement in _placements(tensor) if placement.is_replicate()]
    return part.flatten()[:0] if any(_coordinate(tensor)[dim] for dim in copies) else part


def sampled(tensor: Tensor) -> Tensor:
    """What values are remembered of: the whole, or of what is sharded the part of rank 0."""
    part = held(tensor)
    return part.flatten()[:0] if is_sharded(tensor) and dist.get_rank() else part


def reason_not_to_share(tensor: Tensor) -> str:
    """Why a DTensor cannot be counted in parts; empty if it can, or is none."""
    if any(placement.is_partial() for _, placement in _placements(tensor)):
        return "a sum over ranks that is still to be taken (Partial)"
    return ""


def _coordinate(tensor: Any) -> list[int]:
    """This rank's place in the mesh; outside of it there are no values anyway."""
    return tensor.device_mesh.get_coordinate() or [0] * tensor.device_mesh.ndim


def _placements(tensor: Any) -> list[tuple[int, Any]]:
    """Dimensions of the mesh that have several ranks, and the placement along each."""
    placements = getattr(tensor, "placements", ())
    return [
        (dim, placement)
        for dim, placement in enumerate(placements)
        if tensor.device_mesh.size(dim) > 1
    ]
