from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from jaynes_callbacks.sinks.images import file_name, rendered, save

HOSTILE = [
    "../x", "a/b", "a-b", "A/b", "a\\b", "层.权重", "x" * 300, "x" * 301, "nul\0", "", ".", "..",
    "con", "a b", "a:b", "\ud800", "$(rm)", "-rf",
]  # fmt: skip


def test_file_names_are_harmless_and_all_different() -> None:
    names = [file_name(f"paper_view_weight/{stream}") for stream in HOSTILE]
    assert len({name.lower() for name in names}) == len(HOSTILE)
    for name in names:
        assert Path(name).name == name
        assert name.startswith("paper_view_weight-")
        assert name.isascii()
        assert len(name) <= 100


def test_ordinary_names_stay_readable() -> None:
    assert file_name("log_density_iota/net.1") == "log_density_iota-net.1.png"


def test_a_figure_is_rendered_and_saved_as_it_looks(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1), dpi=50, facecolor="#ff0000")
    pixels = rendered(figure)
    assert pixels.shape == (50, 100, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == [255, 0, 0]).all()
    save(pixels, tmp_path / "below" / "figure.png")
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["figure.png"]
    read = imread(tmp_path / "below" / "figure.png")
    assert (read[..., :3] == [1, 0, 0]).all()


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = rendered(Figure(figsize=(1, 1), dpi=10))
    save(pixels, tmp_path / "figure.png")
    before = (tmp_path / "figure.png").read_bytes()

    def fails(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("jaynes_callbacks.sinks.images.imsave", fails)
    with pytest.raises(OSError, match="disk full"):
        save(pixels, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == before
