from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from jaynes_callbacks.figures import DARK, LIGHT, Look, coalition_map, rendered
from jaynes_callbacks.instruments.coalitions import CoalitionRow, Coalitions
from jaynes_callbacks.records.frame import Frame
from jaynes_callbacks.records.parquet import write_frame


def row(
    name: str, step: int = 5, shape: tuple[int, ...] = (2, 3, 4), level: int = 0
) -> CoalitionRow:
    picture = np.full(int(np.prod(shape)), level)
    return CoalitionRow(kind="iota", name=name, step=step, picture_shape=shape, picture=picture)


def images(figure: Figure) -> list[np.ma.MaskedArray]:
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_channels_stand_beside_each_other() -> None:
    one = row("a").replace(picture=np.arange(24) % 4)
    (image,) = images(coalition_map([one]))
    assert image.shape == (3, 9)
    assert image.mask[:, 4].all()
    assert image.mask.sum() == 3
    assert image[:, :4].tolist() == (np.arange(12) % 4).reshape(3, 4).tolist()
    assert image[:, 5:].tolist() == (np.arange(12) % 4).reshape(3, 4).tolist()


def test_each_stream_is_drawn_as_it_was_last() -> None:
    figure = coalition_map([row("a", 1), row("b", 1), row("a", 2, level=3), row("b", 2, level=1)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a, step 2", "b, step 2"]
    assert [image.max() for image in images(figure)] == [3, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "weak",
        "strong",
        "in a winning 2 × 2",
        "in a winning 3 × 3",
    ]


def test_of_many_streams_some_are_drawn() -> None:
    figure = coalition_map([row(f"layer {number}") for number in range(20)])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert len(titles) == 6
    assert (titles[0], titles[-1]) == ("layer 0, step 5", "layer 19, step 5")


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_levels_have_the_colours_of_the_legend(look: Look) -> None:
    figure = coalition_map([row("a").replace(picture=np.arange(24) % 4)], look=look)
    (image,) = figure.axes[0].images
    patches = figure.legends[0].get_patches()
    found = image.to_rgba(np.arange(4.0), bytes=False)
    for color, patch in zip(found, patches, strict=True):
        assert tuple(color) == pytest.approx(to_rgba(patch.get_facecolor()), abs=0.01)
    assert len(np.unique(rendered(figure).reshape(-1, 3), axis=0)) > 4


@pytest.mark.parametrize("rows", [[], [row("a", shape=())]], ids=["no rows", "no picture"])
def test_nothing_to_draw_says_so(rows: list[CoalitionRow]) -> None:
    figure = coalition_map(Frame.from_rows(Coalitions.schema, rows))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no picture of a map"]
    without = Frame.from_rows(Coalitions.schema, [row("a")]).without_counts()
    assert not images(coalition_map(without))


def test_a_dataset_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "jaynes" / "_coalitions"
    folder.mkdir(parents=True)
    frame = Frame.from_rows(Coalitions.schema, [row("net.1", level=2)])
    write_frame(frame, folder / "part-000000000000.parquet")
    (image,) = images(coalition_map(folder))
    assert image.compressed().tolist() == [2] * 24
