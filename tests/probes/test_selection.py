import pytest

from jaynes_callbacks.probes.selection import Coverage, Selection, Skipped
from jaynes_callbacks.records.stream import Stream

PARAMETERS = ["encoder.0.weight", "encoder.0.bias", "head.weight"]
MODULES = ["", "encoder", "encoder.0", "encoder.1", "head"]


def _selection(include: object = "*", exclude: object = ()) -> Selection:
    return Selection.of(("weight", "iota"), include, exclude, 1)  # type: ignore[arg-type]


def test_patterns() -> None:
    selection = _selection(include=["encoder.*", "head*"], exclude="*.bias")
    assert [name for name in PARAMETERS if selection.admits(name)] == [
        "encoder.0.weight",
        "head.weight",
    ]


@pytest.mark.parametrize(
    "pattern", ["*", "encoder.*", "head.weight", "encoder.1", "encoder.1#1", "encoder.relu", "relu"]
)
def test_patterns_that_can_match_pass(pattern: str) -> None:
    _selection(include=pattern).check(PARAMETERS, MODULES)
    _selection(exclude=pattern).check(PARAMETERS, MODULES)


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_patterns_that_can_match_nothing_are_refused(argument: str) -> None:
    selection = _selection(**{argument: ["*", "encodr.*"]})
    with pytest.raises(ValueError, match=rf"{argument} pattern 'encodr\.\*' matches.*encoder"):
        selection.check(PARAMETERS, MODULES)


@pytest.mark.parametrize("kinds", [(), ("weights",), "iotas", ("weight", "bias")])
def test_unknown_kinds_are_refused(kinds: object) -> None:
    with pytest.raises(ValueError, match=r"kinds must be some of \['weight', 'iota'\], got"):
        Selection.of(kinds, "*", (), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [-1, 2.5, True, "3"])
def test_wrong_sizes_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match="min_size must be"):
        Selection.of("weight", "*", (), size)  # type: ignore[arg-type]


def test_patterns_must_be_strings() -> None:
    with pytest.raises(TypeError, match="include must be strings, got 3"):
        _selection(include=[3])


def test_coverage_reads_as_a_sentence() -> None:
    watched = (Stream("weight", "a.weight"), Stream("iota", "relu"))
    skipped = tuple(Skipped(f"{i}.bias", "fewer than 2 dimensions") for i in range(7))
    assert str(Coverage(watched, skipped)) == (
        "watching 1 weight (a.weight) and 1 activation (relu); not 7: fewer than 2 dimensions "
        "(0.bias, 1.bias, 2.bias, 3.bias, 4.bias and 2 more)"
    )


def test_coverage_of_nothing_says_so() -> None:
    assert str(Coverage((), (), "a note")) == "watching nothing; a note"


def test_no_pattern_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="include must have at least one glob pattern"):
        _selection(include=())


def test_patterns_that_no_stream_matched() -> None:
    selection = _selection(include=["encoder.*", "head"])
    assert selection.unmatched(["encoder.0.weight"]) == ["head"]
    assert _selection(include="*").unmatched([]) == []
