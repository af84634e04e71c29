"""One reduction over ranks for each record: all instruments' states in one packed collective.

Ranks need not have seen the same streams: one may have taken another branch, or have had no forward
at all.  They remember the slots that all have agreed on, and then one ``all_reduce`` for each kind
of reduction does; the header of the first says whether any rank holds others, or has failed to
collect.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from jaynes_callbacks.instruments.base import Quantity, Reduction, Slot, State

__all__ = ["RankReduction", "is_alone", "summed"]

_REDUCTIONS: tuple[Reduction, ...] = ("sum", "max", "min")

Slots = Mapping[str, Sequence[Slot]]


class RankReduction:
    """Reduces the states of all ranks of the default process group; alone, it returns one's own.

    Every rank calls `reduce` for every record, with the same instruments in the same order.

    Collectives: one ``all_reduce`` for each kind of reduction that the instruments use (of counts:
    a sum of 32 KiB for each shared slot agreed on).  Only after a record in which some rank had new
    slots, these are exchanged (``all_gather_object``) and their values follow in a second round.
    Numbers are packed as int64 if all of them are integers, else as float64, in which counts are
    exact up to 2**53.

    Args:
        quantities: of each instrument's state, by its name; the same on every rank.

    Attributes:
        agreed: for each instrument the shared slots that all ranks have agreed on, in the same
            order on each.
    """

    def __init__(self, quantities: Mapping[str, Mapping[str, Quantity]]) -> None:
        self.agreed: dict[str, list[Slot]] = {name: [] for name in quantities}
        self._quantities = quantities

    def reduce(
        self, own: Mapping[str, State | None], device: torch.device
    ) -> tuple[dict[str, State], dict[str, Exception]]:
        """Return each instrument's state with the shared slots of all ranks.

        Args:
            own: what this rank has collected, by instrument; None where it could not.
            device: where to reduce, of the same type on all ranks; another one if the process
                group has no backend for it.

        Returns:
            The states, and for each instrument that some rank could not collect an error instead.
        """
        here = {name: state for name, state in own.items() if state is not None}
        if not _is_distributed():
            return here, {}
        states = {
            name: State.empty(self._quantities[name]) if state is None else state
            for name, state in own.items()
        }
        known = {name: tuple(self.agreed[name]) for name in own}
        header = [any(self._not_agreed(states).values()), *(own[name] is None for name in own)]
        reduced, (others, *failed) = self._round(states, known, device, header)
        if others:
            new = self._exchange(states)
            added, _ = self._round(states, new, device, [])
            for name, slots in new.items():
                self.agreed[name] += slots
            reduced = {name: reduced[name].joined(added[name]) for name in own}
        errors = {
            name: RuntimeError(
                f"{number} of {dist.get_world_size()} ranks failed to count, so there are no "
                "counts of all; each of these says why"
            )
            for name, number in zip(own, failed, strict=True)
            if number
        }
        whole = {
            name: _local(state).joined(reduced[name])
            for name, state in states.items()
            if name not in errors
        }
        return whole, dict(errors)

    def _round(
        self,
        own: Mapping[str, State],
        slots: Slots,
        device: torch.device,
        header: Sequence[int],
    ) -> tuple[dict[str, State], list[int]]:
        """Reduce some slots of each instrument, and the sum of a header beside them."""
        device = _collective_device(device)
        placed = {
            (name, quantity): _placed(own[name], slots[name], quantity, described, device)
            for name in own
            for quantity, described in self._quantities[name].items()
        }
        told: list[int] = []
        for reduction in _REDUCTIONS:
            keys = [key for key in placed if self._of(key).reduction == reduction]
            keys = [key for key in keys if placed[key].numel()]
            parts = [placed[key] for key in keys]
            leads = reduction == "sum" and bool(header)
            if leads:
                parts.insert(0, torch.tensor(list(map(int, header)), device=device))
            if not parts:
                continue
            parts = _reduced(parts, reduction)
            if leads:
                told = parts.pop(0).tolist()
            placed |= dict(zip(keys, parts, strict=True))
        states = {
            name: State(
                slots[name],
                {quantity: placed[name, quantity] for quantity in self._quantities[name]},
                [True] * len(slots[name]),
            )
            for name in own
        }
        return states, told

    def _of(self, key: tuple[str, str]) -> Quantity:
        return self._quantities[key[0]][key[1]]

    def _not_agreed(self, own: Mapping[str, State]) -> dict[str, list[Slot]]:
        found = {}
        for name, state in own.items():
            agreed = {_key(slot) for slot in self.agreed[name]}
            pairs = zip(state.slots, state.shared, strict=True)
            found[name] = [slot for slot, shared in pairs if shared and _key(slot) not in agreed]
        return found

    def _exchange(self, own: Mapping[str, State]) -> dict[str, list[Slot]]:
        """Return the slots that are new on any rank, in the order of ranks."""
        everywhere: list[dict[str, list[Slot]]] = [{}] * dist.get_world_size()
        dist.all_gather_object(everywhere, self._not_agreed(own))
        return {
            name: list({_key(slot): slot for new in everywhere for slot in new[name]}.values())
            for name in own
        }


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, each of which must call this; alone, the tensor.

    For what ranks must know of each other before they can collect, such as the scales of the rows
    and columns of which each has parts.
    """
    if is_alone():
        return values
    packed = values.to(_collective_device(values.device), copy=True)
    dist.all_reduce(packed)
    return packed.to(values.device)


def is_alone() -> bool:
    """Tell whether there are no other ranks to speak to."""
    return not _is_distributed() or dist.get_world_size() == 1


def _key(slot: Slot) -> tuple[str, str, int]:
    """Return what identifies a slot on all ranks, whatever shape its stream has on each."""
    return *slot.stream.key, slot.group


def _local(state: State) -> State:
    """Return the slots that every rank holds alike."""
    return state.take([row for row, shared in enumerate(state.shared) if not shared])


def _placed(
    state: State,
    slots: Sequence[Slot],
    name: str,
    quantity: Quantity,
    device: torch.device,
) -> Tensor:
    """Return this rank's values of given slots; neutral ones where it has none."""
    row = {_key(slot): row for row, slot in enumerate(state.slots)}
    here = [place for place, slot in enumerate(slots) if _key(slot) in row]
    table = quantity.empty(len(slots), device)
    if here:
        table[here] = state[name][[row[_key(slots[place])] for place in here]].to(device)
    return table


def _reduced(parts: Sequence[Tensor], reduction: Reduction) -> list[Tensor]:
    """Reduce tensors of any shapes over all ranks in one packed ``all_reduce``."""
    whole = all(part.dtype == torch.int64 for part in parts)
    dtype = torch.int64 if whole else torch.float64
    packed = torch.cat([part.flatten().to(dtype) for part in parts])
    operation = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}
    dist.all_reduce(packed, operation[reduction])
    pieces = packed.split([part.numel() for part in parts])
    return [
        piece.to(part.dtype).view(part.shape) for piece, part in zip(pieces, parts, strict=True)
    ]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _collective_device(wanted: torch.device) -> torch.device:
    """Return this device, or the one that the group speaks for: nccl takes no CPU tensors."""
    spoken = [pair.split(":")[0] for pair in dist.get_backend_config().split(",")]
    return wanted if wanted.type in spoken else torch.device(spoken[0])
