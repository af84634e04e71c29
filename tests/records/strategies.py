"""Any row of the demonstration table, for property tests."""

import numpy as np
from hypothesis import strategies as st

from jaynes_callbacks.records.schema import Integers
from tests.records.demo import HOSTILE, Demo

_integers = st.integers(-(2**63), 2**63 - 1)
_reals = st.floats(allow_nan=True, allow_infinity=True)


def _arrays(most: int) -> st.SearchStrategy[Integers]:
    values = st.lists(st.integers(0, most), max_size=4)
    return values.map(lambda each: np.array(each, dtype=np.int64))


def demos(texts: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Demo]:
    """Any row: names are any text, numbers go to their limits, groups have any of their keys."""
    texts = st.text(max_size=8) | st.sampled_from(HOSTILE) if texts is None else texts
    return st.builds(
        Demo,
        run=texts,
        step=st.integers(0, 2**53),
        epoch=_integers,
        kind=texts,
        name=texts,
        size=_integers,
        value=_reals,
        note=texts,
        shape=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
        shares=st.dictionaries(st.sampled_from(["a", "b", "of another version"]), _reals),
        codes=_arrays(4095),
        counts=_arrays(2**62),
    )
