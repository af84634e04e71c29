import pytest

from jaynes_callbacks.schedule import every, never


def test_every() -> None:
    assert [step for step in range(10) if every(4)(step)] == [0, 4, 8]


def test_never() -> None:
    assert not any(never(step) for step in range(10))


@pytest.mark.parametrize("interval", [0, -1, 1.5, True, "2", None])
def test_wrong_intervals_are_named(interval: object) -> None:
    with pytest.raises(
        ValueError, match=f"every_n_steps must be a positive integer, got {interval!r}"
    ):
        every(interval, what="every_n_steps")  # type: ignore[arg-type]
