"""A history of a small network on a stand-in hub, each step in a branch."""

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.files.hub import client
from tests.hub import Repository, StandIn, safetensors_of, stand_in

STEPS = (0, *(2**power for power in range(15)), 20000, 30000, 40000, 50000)


def network_at(step: int) -> dict[str, Tensor]:
    """Gaussian weights that become lognormal as steps go on."""
    source = torch.Generator().manual_seed(1)
    near = math.log1p(step) / math.log1p(STEPS[-1])
    state = {"embed.weight": torch.randn(300, 40, generator=source)}
    for layer in range(2):
        gaussian = torch.randn(60, 50, generator=source)
        lognormal = torch.randn(60, 50, generator=source).exp() * gaussian.sign()
        state[f"layers.{layer}.weight"] = (1 - near) * gaussian + near * lognormal
    return state


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The hub, with ``org/net`` of 20 steps and a main branch."""
    monkeypatch.setattr(client, "_WAITS", (0.0, 0.0))
    with stand_in() as hub:
        repository = hub.repositories["org/net"] = Repository()
        repository.add({"model.safetensors": safetensors_of(network_at(STEPS[-1]))})
        for step in STEPS:
            add_step(repository, f"step{step}", network_at(step))
        yield hub


def add_step(repository: Repository, branch: str, state: Mapping[str, Tensor]) -> None:
    """Commit one step."""
    repository.add({"model.safetensors": safetensors_of(state)}, branch)
