"""Files that are whole or not there."""

from pathlib import Path

import pytest

from jaynes_callbacks.records.atomic import put


def test_a_file_has_its_name_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("before")

    def write(hidden: Path) -> None:
        hidden.write_text("aft")
        assert path.read_text() == "before"
        assert hidden.name.startswith("."), "readers of folders leave out hidden files"
        hidden.write_text("after")

    put(path, write)
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("of ours")])
def test_after_an_error_nothing_is_left_of_it(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("before")

    def fail(hidden: Path) -> None:
        hidden.write_text("half")
        raise error

    with pytest.raises(type(error)):
        put(path, fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "nowhere" / "x.txt", lambda hidden: hidden.write_text("x"))
