"""Records as a run makes them: of real tensors, through the package's own counting and fitting."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from jaynes_callbacks.instruments.record import Record, Records, Stream
from jaynes_callbacks.instruments.summary import Moment, summarise
from jaynes_callbacks.instruments.tally import tally_of_counts, tally_of_tensors

Measure = Callable[..., Records]


def measure(
    weights: Mapping[str, Tensor],
    iota: Mapping[str, Tensor] | None = None,
    *,
    step: int = 0,
    epoch: int = 0,
    start: Records = Records(),  # noqa: B008
) -> Records:
    """One snapshot of named tensors."""
    iota = iota or {}
    streams = [Stream("weight", name, tuple(tensor.shape)) for name, tensor in weights.items()]
    streams += [Stream("iota", name) for name in iota]
    of_iota = tally_of_counts(tally_of_tensors(list(iota.values())).counts)
    tally = tally_of_tensors(list(weights.values())).joined(of_iota)
    moment = Moment(streams, tally, run="run", step=step, epoch=epoch)
    return summarise([moment], start.by_stream())[0]


@pytest.fixture(scope="session", name="measure")
def measure_fixture() -> Measure:
    """`measure`, for tests: a conftest cannot be imported."""
    return measure


@pytest.fixture(scope="session")
def snapshots() -> list[Records]:
    """Three snapshots of two layers and one activation: Gaussian, on the way to Laplace."""
    generator = torch.Generator().manual_seed(7)
    gaussian = torch.randn(2, 20_000, generator=generator)
    laplace = torch.distributions.Laplace(0.0, 1.0).icdf(
        torch.rand(2, 20_000, generator=generator).clamp(1e-6, 1 - 1e-6)
    )
    found: list[Records] = []
    for epoch, share in enumerate((0.0, 0.4, 0.8)):
        mixed = torch.lerp(gaussian, laplace, share)
        layers = {"net.0.weight": mixed[0].view(100, 200), "net.2.weight": mixed[1]}
        start = found[0] if found else Records()
        found.append(
            measure(layers, {"net.1": mixed[0].relu()}, step=10 * epoch, epoch=epoch, start=start)
        )
    return found


@pytest.fixture
def bare() -> Record:
    """A record in which nothing could be measured."""
    return Record(name="empty.weight", status="empty")
