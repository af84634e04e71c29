"""The open vocabulary of kinds and variables: what nobody has listed is shown by its own name."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaynes_callbacks.records.stream import (
    IOTA,
    WEIGHT,
    Stream,
    in_order,
    kind_label,
    log_label,
    symbol,
)

_KINDS = st.sampled_from([WEIGHT, IOTA]) | st.text(max_size=5)


@given(kinds=st.lists(_KINDS))
def test_the_order_of_kinds_has_each_once_and_the_theory_s_first(kinds: list[str]) -> None:
    ordered = in_order(kinds)
    assert Counter(ordered) == Counter(set(kinds))
    ranks = [{WEIGHT: 0, IOTA: 1}.get(kind, 2 + kinds.index(kind)) for kind in ordered]
    assert ranks == sorted(ranks)
    assert in_order(ordered) == ordered


@pytest.mark.parametrize(
    ("kind", "label"),
    [(WEIGHT, "weights"), (IOTA, "activations"), ("gradient", "gradients"), ("scale", "scales")],
)
def test_kinds_have_one_plural(kind: str, label: str) -> None:
    assert kind_label(kind) == label


def test_a_gelu_s_variable_is_the_product() -> None:
    assert (log_label("z*y"), symbol("z*y")) == ("ln z·y", "z·y")
    assert (log_label("y"), symbol("own")) == ("ln y", "own")


def test_kind_and_name_identify_a_stream() -> None:
    one = Stream(WEIGHT, "fc.weight", (4, 3), aliases=("head.weight",))
    assert one.key == Stream(WEIGHT, "fc.weight").key
    assert one.key != Stream(IOTA, "fc.weight").key
    assert hash(one) != hash(Stream(WEIGHT, "fc.weight"))
