"""Heaps of texts in HDF5 files that would hang the library or fill the memory."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaynes_callbacks.files import Limits
from jaynes_callbacks.files.formats.hdf5_heaps import check_heaps

h5py = pytest.importorskip("h5py")


def content_of(path: Path) -> bytearray:
    """A file with a text in a heap."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "x" * 100
        file["dense/kernel"] = np.ones((9, 9))
    return bytearray(path.read_bytes())


def check(content: bytearray, values: Any = ()) -> None:
    check_heaps(np.frombuffer(bytes(content), np.uint8), values, Limits())


def test_a_whole_file_passes(tmp_path: Path) -> None:
    check(content_of(tmp_path / "a.h5"))


@pytest.mark.parametrize("padding", [2048, (1 << 20) - 5, (1 << 20) - 20, 1 << 20])
def test_a_part_without_bytes_is_found_wherever_it_is(padding: int, tmp_path: Path) -> None:
    content = content_of(tmp_path / "a.h5")
    heap = content.index(b"GCOL")
    content = bytearray(padding) + content[heap:]
    check(content)
    # The part after the only text is what is free.
    free = padding + 16 + 16 + 104
    content[free : free + 16] = bytes(16)
    with pytest.raises(ValueError, match="the parts of a heap of texts in it do not fill it"):
        check(content)
    check(content, [(0, len(content))])


def test_a_heap_that_ends_behind_the_file_is_found(tmp_path: Path) -> None:
    content = content_of(tmp_path / "a.h5")
    heap = content.index(b"GCOL")
    content[heap + 8 : heap + 16] = struct.pack("<Q", 1 << 40)
    with pytest.raises(ValueError, match="a heap of texts in it is not whole"):
        check(content)


def test_a_text_that_would_fill_the_memory_is_found(tmp_path: Path) -> None:
    content = content_of(tmp_path / "a.h5")
    reference = struct.pack("<IQI", 100, content.index(b"GCOL"), 1)
    at = content.index(reference)
    content[at : at + 4] = struct.pack("<I", 1 << 30)
    with pytest.raises(ValueError, match="a text in it is longer than 16,777,216 bytes"):
        check(content)
