import pytest

from experiments.check import flag, number_above, positive_int, share


def test_right_values_pass() -> None:
    assert positive_int("width", 3) == 3
    assert number_above("dof", 3, 2) == 3.0
    assert share("dropout", 0) == 0.0
    assert share("dropout", 0.5) == 0.5
    assert flag("batch_norm", True) is True


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_anything_but_a_flag_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=f"^batch_norm must be true or false, got {value!r}$"):
        flag("batch_norm", value)


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True])
def test_anything_but_a_positive_integer_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=f"^width must be a positive integer, got {value!r}$"):
        positive_int("width", value)


@pytest.mark.parametrize("value", [1, 1.0, -0.1, "0.5", None, False, float("nan")])
def test_anything_but_a_share_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"^dropout must be a number of at least 0 and below 1"):
        share("dropout", value)


@pytest.mark.parametrize("value", [2, -1.0, "3", None, True, float("nan"), float("inf")])
def test_anything_but_a_number_above_the_bound_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=f"^dof must be a number above 2, got {value!r}$"):
        number_above("dof", value, 2)
