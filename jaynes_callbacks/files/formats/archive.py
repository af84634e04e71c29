"""Map a file, and find the members of a zip archive in it by the bytes that they take."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from jaynes_callbacks.files.limits import Limits
from jaynes_callbacks.records.regular import require_regular

__all__ = ["Bytes", "Member", "as_file", "map_file", "members_of", "read_member"]

#: Mapped bytes of a file, of which a slice still knows the file.
Bytes = np.memmap[Any, np.dtype[np.uint8]]

_LOCAL_HEADER = Struct("<26xHH")


@dataclass(frozen=True)
class Member:
    """A member of a zip archive.

    Attributes:
        name: with its folder.
        start: offset of its first byte in the archive.
        stored: bytes that it takes there.
        size: bytes of its content, as the archive states them.
        info: of `zipfile`.
    """

    name: str
    start: int
    stored: int
    size: int
    info: zipfile.ZipInfo

    @property
    def is_plain(self) -> bool:
        """True if the content stands in the archive as it is, so that it can be mapped."""
        return self.info.compress_type == zipfile.ZIP_STORED and not self.info.flag_bits & 1


def map_file(path: Path, start: int = 0, size: int | None = None) -> Bytes:
    """Map the bytes of a regular file; what is written to them never reaches it.

    Args:
        path: of the file.
        start: offset of the first byte.
        size: number of bytes; by default up to the end.

    Raises:
        OSError: if it is no regular file.
        EOFError: if it is empty, or shorter than `start` and `size` say.
    """
    length = require_regular(path)
    size = length - start if size is None else size
    if start < 0 or size <= 0 or start + size > length:
        raise EOFError("it is empty" if not length else f"it ends after {length:,} bytes")
    # Copy on write ("c"), because torch has no read-only tensors.
    return np.memmap(path, np.uint8, "c", start, (size,))


def members_of(content: Bytes) -> dict[str, Member]:
    """List the members of a zip archive by name.

    Raises:
        zipfile.BadZipFile: if it is none, or a member lies beyond its end.
    """
    with zipfile.ZipFile(as_file(content)) as archive:
        return {info.filename: _member(content, info) for info in archive.infolist()}


def read_member(content: Bytes, member: Member, limits: Limits) -> memoryview:
    """Return a member's content: a view of the archive, or what is decompressed from it.

    Raises:
        CheckpointError: if the content takes too much memory.
        EOFError: if there is less than the archive states.
    """
    if member.is_plain:
        return content.data[member.start : member.start + member.stored]
    what = f"{content.filename}: member {member.name}"
    limits.check_expansion(what, member.size, member.stored)
    # Opened anew: `zipfile` reads a member's own header, which may differ.
    with zipfile.ZipFile(as_file(content)) as archive, archive.open(member.info) as file:
        whole = bytearray(member.size)
        view, at = memoryview(whole), 0
        while at < member.size and (part := file.read(min(1 << 20, member.size - at))):
            view[at : at + len(part)] = part
            at += len(part)
    if at != member.size:
        raise EOFError(f"member {member.name} ends after {at:,} bytes")
    return view


def _member(content: Bytes, info: zipfile.ZipInfo) -> Member:
    # The content follows the member's own header, whose length the directory does not state.
    at = info.header_offset
    header = bytes(content[at : at + _LOCAL_HEADER.size]) if at >= 0 else b""
    if len(header) < _LOCAL_HEADER.size:
        raise zipfile.BadZipFile(f"member {info.filename} lies beyond its end")
    name, extra = _LOCAL_HEADER.unpack(header)
    start = at + _LOCAL_HEADER.size + name + extra
    if start + info.compress_size > len(content):
        raise zipfile.BadZipFile(f"member {info.filename} lies beyond its end")
    return Member(info.filename, start, info.compress_size, info.file_size, info)


def as_file(content: npt.NDArray[np.uint8]) -> IO[bytes]:
    """Return bytes in memory as an open file, without a copy."""
    return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, _Region(content.data))))


class _Region(io.RawIOBase):
    """A file over bytes in memory, without the copy that `io.BytesIO` makes."""

    def __init__(self, content: memoryview) -> None:
        super().__init__()
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._content)}[whence]
        if origin + offset < 0:
            raise OSError("a place before the beginning was asked for")
        self._at = origin + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        part = self._content[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
