"""The annotations of the statistics are checked while their tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.statistics import occupied_bins
from tests.typechecker import checked


def test_a_wrong_shape_is_an_error() -> None:
    occupied_bins(torch.ones(1, CODES, dtype=torch.int64))
    with pytest.raises(TypeCheckError):
        occupied_bins(torch.ones(CODES, dtype=torch.int64))


def test_a_function_within_a_function_is_checked_whichever_time_it_is_defined() -> None:
    def define() -> object:
        def half(value: int) -> float:
            return value / 2

        return checked(half)

    for half in (define(), define()):
        assert half(3) == 1.5  # type: ignore[operator]
        with pytest.raises(Exception, match="half"):
            half("3")  # type: ignore[operator]
