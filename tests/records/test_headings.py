"""What neighbours share stands above them, and no two rows read alike."""

import pytest

from jaynes_callbacks.records.headings import under_headings

LAYERS = [f"model.layers.{n}.{part}.weight" for n in range(3) for part in ("up", "down", "gate")]


@pytest.mark.parametrize("room", [12, 18])
def test_every_name_can_be_put_together_again(room: int) -> None:
    named = under_headings(LAYERS, room)
    assert named is not None
    assert [f"{heading}.{name}.weight" for heading, name in named] == LAYERS
    assert len(set(named)) == len(LAYERS)


def test_the_shared_end_alone_may_make_room() -> None:
    names = ["block.first.weight", "block.second.weight"]
    assert under_headings(names, 12) == [("", "block.first"), ("", "block.second")]


def test_names_that_fit_stay() -> None:
    assert under_headings(LAYERS, 100) is None


@pytest.mark.parametrize(
    "names",
    [
        [f"a.{number}.{'long' * 9}.weight" for number in range(4)],
        ["alone" * 9],
        [f"{'a' * 40}{part}.{'b' * 40}" for part in "cd"],
    ],
)
def test_what_headings_do_not_help_is_left_to_shortening(names: list[str]) -> None:
    assert under_headings(names, 12) is None
