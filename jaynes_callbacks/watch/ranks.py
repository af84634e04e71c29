"""What `torch.distributed` is used for: counts of all ranks are added up, once a record.

Ranks need not have seen the same streams: one may have taken another branch, or have had no forward
at all.  They remember the streams that all have agreed on, and then one ``all_reduce`` does; its
header says whether any rank holds others, or has failed to count.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import pad

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.record import Stream

__all__ = ["Counted", "RankSum", "is_alone"]

#: The header's places: on how many ranks this is so.
_HOLDS_OTHERS, _ABSTAINS = 0, 1
_HEADER_ROWS = 1


class Counted(NamedTuple):
    """Some streams and the counts of each, in one or more groups of samples."""

    streams: Sequence[Stream]
    counts: Int64[Tensor, "streams groups 4096"]

    @classmethod
    def nothing(cls, groups: int) -> Self:
        """No streams."""
        return cls((), torch.zeros(0, groups, CODES, dtype=torch.int64))

    def joined(self, other: "Counted") -> "Counted":
        """These streams, then the other's, on the other's device and in as many groups."""
        ours = self.counts.to(other.counts.device)
        ours = pad(ours, (0, 0, 0, other.counts.shape[1] - ours.shape[1]))
        return Counted((*self.streams, *other.streams), torch.cat([ours, other.counts]))

    def seen(self) -> "Counted":
        """The streams of which anything was counted."""
        rows = self.counts.sum((1, 2)).nonzero().squeeze(-1)
        return Counted([self.streams[row] for row in rows.tolist()], self.counts[rows])

    def at(
        self, streams: Sequence[Stream], device: torch.device
    ) -> Int64[Tensor, "places groups 4096"]:
        """The counts of given streams; zeros for those that are not among these."""
        row = {stream.key: row for row, stream in enumerate(self.streams)}
        here = [place for place, stream in enumerate(streams) if stream.key in row]
        shape = len(streams), *self.counts.shape[1:]
        table = torch.zeros(shape, dtype=torch.int64, device=device)
        table[here] = self.counts[[row[streams[place].key] for place in here]].to(device)
        return table


class RankSum:
    """Adds the counts of all ranks of the default process group; alone, it gives back one's own.

    Every rank calls `sum` or `abstain` for every record, in the same order.

    Collectives: one ``all_reduce`` of 32 KiB for each stream agreed on and for the header (times
    the groups of samples).  Only
    after a record in which some rank had new streams, their names are exchanged
    (``all_gather_object``) and their counts follow in a second ``all_reduce``.

    Args:
        groups: of samples in which is counted, the same number on every rank.

    Attributes:
        streams: those that all ranks have agreed on, in the same order on each.
    """

    def __init__(self, groups: int = 1) -> None:
        self.streams: list[Stream] = []
        self._groups = groups

    def sum(self, own: Counted, device: torch.device) -> Counted:
        """The streams that any rank has counted anything of, with the counts of all ranks.

        Args:
            own: what this rank has counted.
            device: where to add, of the same type on all ranks; another one if the process group
                has no backend for it.

        Raises:
            RuntimeError: on every rank, if another one abstained.
        """
        if not _is_distributed():
            return own.seen()
        agreed, others, failed = self._add(own, device)
        if failed:
            raise RuntimeError(
                f"{failed} of {dist.get_world_size()} ranks failed to count, so there are no "
                "counts of all; each of these says why"
            )
        if not others:
            return Counted(self.streams, agreed).seen()
        new = self._exchange(own.streams)
        counts = own.at(new, agreed.device)
        dist.all_reduce(counts)
        self.streams += new
        return Counted(self.streams, torch.cat([agreed, counts])).seen()

    def abstain(self, device: torch.device) -> None:
        """Take part where this rank could not count, for the others wait for it.

        Args:
            device: as in `sum`.
        """
        if _is_distributed():
            self._add(Counted.nothing(self._groups), device, abstains=True)

    def _add(
        self, own: Counted, device: torch.device, *, abstains: bool = False
    ) -> tuple[Int64[Tensor, "agreed groups 4096"], int, int]:
        """Counts of the streams agreed on; how many ranks hold others, and how many abstain."""
        known = own.at(self.streams, _collective_device(device))
        header = known.new_zeros(_HEADER_ROWS, *known.shape[1:])
        header[0, 0, _HOLDS_OTHERS] = bool(self._not_agreed(own.streams))
        header[0, 0, _ABSTAINS] = abstains
        total = torch.cat([header, known])
        dist.all_reduce(total)
        others, failed = total[0, 0, [_HOLDS_OTHERS, _ABSTAINS]].tolist()
        return total[_HEADER_ROWS:], others, failed

    def _not_agreed(self, streams: Sequence[Stream]) -> list[Stream]:
        agreed = {stream.key for stream in self.streams}
        return [stream for stream in streams if stream.key not in agreed]

    def _exchange(self, own: Sequence[Stream]) -> list[Stream]:
        """The streams that are new on any rank, in the order of ranks."""
        everywhere: list[list[Stream]] = [[]] * dist.get_world_size()
        dist.all_gather_object(everywhere, self._not_agreed(own))
        return list({each.key: each for streams in everywhere for each in streams}.values())


def is_alone() -> bool:
    """Whether there are no other ranks to speak to."""
    return not _is_distributed() or dist.get_world_size() == 1


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _collective_device(wanted: torch.device) -> torch.device:
    """This device, or the one that the group speaks for: under nccl counts of a CPU are moved."""
    spoken = [pair.split(":")[0] for pair in dist.get_backend_config().split(",")]
    return wanted if wanted.type in spoken else torch.device(spoken[0])
