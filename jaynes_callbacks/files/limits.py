"""Bound what reading a checkpoint may cost, so that a small file cannot fill the memory."""

from dataclasses import dataclass

from jaynes_callbacks.files.entry import CheckpointError

__all__ = ["Limits"]

#: Bytes in memory for each byte in the file that are never too many: floats of 32 bits that are
#: unpacked from one bit each.
_RATIO = 32
_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds on what is expanded in memory, all proportional to one number.

    What a file stores as it is used, such as a mapped tensor, has no bound.

    Attributes:
        expanded: bytes that one tensor may take although its file stores fewer than a 32nd of them:
            compressed, repeated or overlapping values.
    """

    expanded: int = 256 * _MIB

    @property
    def objects(self) -> int:
        """Most objects of a pickle or an index: each takes about 64 bytes."""
        return self.expanded // 64

    @property
    def text(self) -> int:
        """Most bytes of an index, or of a pickle's strings."""
        return self.expanded // 16

    def check_expansion(self, what: str, nbytes: int, stored: int) -> None:
        """Refuse values that take far more memory than their file stores.

        Args:
            what: names file and tensor, for the message.
            nbytes: bytes that the values take in memory.
            stored: bytes of the file from which they are made.

        Raises:
            CheckpointError: saying how to raise the bound.
        """
        if nbytes > max(self.expanded, _RATIO * stored):
            needed = -(-nbytes // _MIB)
            raise CheckpointError(
                f"{what} takes {needed:,} MiB in memory, of which the file stores {stored:,} "
                f"bytes; if you trust it, raise the bound with --max-expanded {needed} (MiB) or "
                f"max_expanded={needed}"
            )
