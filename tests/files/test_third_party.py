"""Readers of other packages: found by their entry points, and none breaks another."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jaynes_callbacks import analyse
from jaynes_callbacks.files import CheckpointError, find_checkpoints
from jaynes_callbacks.files.formats import known_suffixes
from jaynes_callbacks.files.formats.third_party import found_readers

READERS = """
import torch
from jaynes_callbacks.files import Checkpoint, Limits
from jaynes_callbacks.files.entry import tensor_entries

def open_numbers(path, limits):
    assert isinstance(limits, Limits)
    numbers = torch.tensor([float(each) for each in path.read_text().split()])
    return Checkpoint(path, tensor_entries([("w", numbers.view(10, -1))], mapped=False))

class Format:
    read = staticmethod(open_numbers)

def open_nothing(path, limits):
    return None

form, number = Format(), 3
"""
POINTS = {
    ".numbers": "formats_of_others:open_numbers",
    "plain": "formats_of_others:form",
    ".nothing": "formats_of_others:open_nothing",
    ".three": "formats_of_others:number",
    ".missing": "formats_of_others:absent",
    ".broken": "formats_that_break",
    ".pt": "formats_that_break",
}


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with readers, one of which cannot be imported."""
    site = tmp_path / "site"
    (site / "others-1.0.dist-info").mkdir(parents=True)
    (site / "others-1.0.dist-info/METADATA").write_text("Name: others\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in POINTS.items()]
    points = "\n".join(["[jaynes_callbacks.readers]", *lines, ""])
    (site / "others-1.0.dist-info/entry_points.txt").write_text(points)
    (site / "formats_of_others.py").write_text(READERS)
    (site / "formats_that_break.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(site)
    found_readers.cache_clear()
    yield
    found_readers.cache_clear()
    sys.modules.pop("formats_of_others", None)


def numbers(path: Path) -> Path:
    path.write_text(" ".join(map(str, range(1, 101))))
    return path


@pytest.mark.parametrize("name", ["a.numbers", "a.plain"])
def test_a_reader_reads(name: str, tmp_path: Path) -> None:
    (row,) = analyse(numbers(tmp_path / name))
    assert (row.name, row.shape) == ("w", (10, 10))
    assert find_checkpoints(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("nothing", "its reader returned a NoneType"),
        ("three", r"the reader of .three files in the package others is int, expected a function"),
        ("missing", r"in the package others cannot be imported \(AttributeError: .*absent"),
        ("broken", r"in the package others cannot be imported \(RuntimeError: two lines\); update"),
    ],
)
def test_a_reader_that_fails_is_a_sentence(end: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        analyse(numbers(tmp_path / f"a.{end}"))
    assert "\n" not in str(caught.value)
    assert len(analyse(numbers(tmp_path / "b.numbers"))) == 1


def test_what_the_package_reads_is_left_to_no_other(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(9, 9)}, tmp_path / "a.pt")
    assert len(analyse(tmp_path / "a.pt")) == 1


def test_a_message_names_the_readers_of_others(tmp_path: Path) -> None:
    assert known_suffixes().count(".pt") == 1
    with pytest.raises(CheckpointError, match=r"ends in none of .*\.numbers, \.plain"):
        analyse(numbers(tmp_path / "a.unknown"))
