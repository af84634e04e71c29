import math

import pytest
import torch

from experiments.summaries.law_of_z import gaps_on_z
from jaynes_callbacks import analyse
from jaynes_callbacks.instruments.record import Record


def record(values: torch.Tensor, variable: str) -> Record:
    (made,) = analyse(values)
    return made.replace(kind="iota", variable=variable)


def test_an_exponential_law_of_z_is_found_from_y(generator: torch.Generator) -> None:
    """Z = y² exponential: its own gap vanishes, the lognormal's is an exponential's, 0.091."""
    z = torch.empty(200_000).exponential_(generator=generator)
    (row,) = gaps_on_z([record(z.sqrt(), "y")]).to_dict("records")
    assert row["z_exponential"] == pytest.approx(0, abs=1e-3)
    assert row["z_lognormal"] == pytest.approx(0.091, abs=2e-3)


def test_z_itself_is_not_squared_again(generator: torch.Generator) -> None:
    z = torch.empty(200_000).exponential_(generator=generator)
    both = gaps_on_z([record(z, "z*y"), record(z, "y")])
    assert both["z_exponential"][0] == pytest.approx(0, abs=1e-3)
    assert both["z_exponential"][1] > 0.1


def test_the_lognormals_gap_is_that_of_y(generator: torch.Generator) -> None:
    one = record(torch.randn(50_000, generator=generator).abs(), "y")
    assert gaps_on_z([one])["z_lognormal"][0] == pytest.approx(one.gap, abs=1e-6)


def test_weights_and_silent_neurons_have_none() -> None:
    frame = gaps_on_z([Record(kind="weight", n=5), Record(kind="iota", n=0)])
    assert frame.map(math.isnan).all().all()
