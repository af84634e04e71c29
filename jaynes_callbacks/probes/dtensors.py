"""Tensors that are spread over ranks: DTensors of FSDP2, tensor parallelism or both.

A DTensor has one placement for each dimension of its device mesh: along that dimension the ranks
hold parts (Shard), copies (Replicate), or terms of a sum that is still to be taken (Partial).
No function here communicates with other ranks or needs a process group.  DTensors are recognised by
their attributes, so that plain tensors need no import of `torch.distributed.tensor`.
"""

from typing import Any

import torch.distributed as dist
from torch import Tensor

__all__ = [
    "is_sharded",
    "is_sharded_along",
    "local_shard",
    "owned_values",
    "place_of_shard",
    "reason_not_countable_in_parts",
    "sample_source",
]


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether ranks hold parts of this tensor, so that only together they can count it."""
    return any(not placement.is_replicate() for _, placement in _placements(tensor))


def is_sharded_along(tensor: Tensor, dim: int) -> bool:
    """Tell whether ranks hold different parts of this tensor's dimension `dim`."""
    return any(placement.is_shard(dim) for _, placement in _placements(tensor))


def local_shard(tensor: Tensor) -> Tensor:
    """Return what is in this rank's memory: a plain tensor itself, a DTensor's part or copy."""
    detached: Any = tensor.detach()
    local: Tensor = detached.to_local() if hasattr(detached, "to_local") else detached
    return local


def owned_values(tensor: Tensor) -> Tensor:
    """Return the values that this rank counts: each value of a DTensor is owned by one rank.

    The rank's shard.  Of copies the first rank of the mesh dimension owns the values; on the others
    the tensor returned is empty.
    """
    local = local_shard(tensor)
    copies = [dim for dim, placement in _placements(tensor) if placement.is_replicate()]
    return local.flatten()[:0] if any(_coordinate(tensor)[dim] for dim in copies) else local


def place_of_shard(tensor: Tensor) -> tuple[int, ...]:
    """Return where this rank's shard begins in the whole tensor, along each dimension."""
    # Not public in torch, so not imported with this module.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded: Any = tensor
    _, offset = compute_local_shape_and_global_offset(
        tensor.shape, sharded.device_mesh, sharded.placements
    )
    return tuple(offset)


def sample_source(tensor: Tensor) -> Tensor:
    """Return the tensor to sample from: the whole tensor, or rank 0's shard of a sharded one.

    On other ranks a sharded tensor's is empty.
    """
    local = local_shard(tensor)
    return local.flatten()[:0] if is_sharded(tensor) and dist.get_rank() else local


def reason_not_countable_in_parts(tensor: Tensor) -> str | None:
    """Say why the ranks cannot count a DTensor in parts; None if they can, or if it is none."""
    if any(placement.is_partial() for _, placement in _placements(tensor)):
        return "a sum over ranks that is still to be taken (Partial)"
    return None


def _coordinate(tensor: Any) -> list[int]:
    """Return this rank's place in the mesh; a rank outside of it holds no values anyway."""
    return tensor.device_mesh.get_coordinate() or [0] * tensor.device_mesh.ndim


def _placements(tensor: Any) -> list[tuple[int, Any]]:
    """List the dimensions of the mesh that have several ranks, with the placement along each."""
    placements = getattr(tensor, "placements", ())
    return [
        (dim, placement)
        for dim, placement in enumerate(placements)
        if tensor.device_mesh.size(dim) > 1
    ]
