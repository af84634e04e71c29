import pytest

from experiments.check import positive_int, share


def test_right_values_pass() -> None:
    assert positive_int("width", 3) == 3
    assert share("dropout", 0) == 0.0
    assert share("dropout", 0.5) == 0.5


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True])
def test_anything_but_a_positive_integer_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=f"^width must be a positive integer, got {value!r}$"):
        positive_int("width", value)


@pytest.mark.parametrize("value", [1, 1.0, -0.1, "0.5", None, False, float("nan")])
def test_anything_but_a_share_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"^dropout must be a number of at least 0 and below 1"):
        share("dropout", value)
