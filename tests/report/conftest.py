"""Runs on disk, as a training leaves them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.report import Run, read_run
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

Write = Callable[..., Path]


@pytest.fixture
def write_run(snapshots: list[Records], tmp_path: Path) -> Write:
    """Write snapshots as a run's dataset below a folder of a name, with its parameters."""

    def write(
        name: str = "run",
        records: list[Records] | None = None,
        description: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / name
        sink = DatasetSink()
        sink.open(RunContext(directory=folder, describe=lambda: description or {}))
        for snapshot in snapshots if records is None else records:
            sink.write(snapshot, Records())
        sink.close(Records(), Records(), Records())
        return folder / "jaynes"

    return write


@pytest.fixture
def run(write_run: Write) -> Run:
    """Two layers and one activation, on the way from Gaussian to Laplace."""
    return read_run(write_run())


def invented(number: int, step: int, verdict: str = "not emerging") -> Record:
    """One of many streams whose gaps rise with their number and fall with the steps."""
    gap = 0.01 + 0.002 * number * math.exp(-step / 50)
    return Record(
        kind="weight" if number % 2 else "iota",
        name=f"blocks.{number}.mlp.weight",
        step=step,
        n=1000 + number,
        gap=gap,
        rival_gaps={"half_normal": 0.1, "gamma": 0.05},
        best_family="lognormal" if gap < 0.05 else "gamma",
        q=1.2,
        paper_r2=0.97,
        paper_r2_gaussian=0.95,
        verdict=verdict,
    )


def with_values_of(record: Record, counted: Record) -> Record:
    """A record with another one's counts and the laws that were fitted to them."""
    names = "codes counts max rms mu sigma fits paper_mu paper_sigma".split()
    return record.replace(**{name: getattr(counted, name) for name in names})


@pytest.fixture(name="with_values_of")
def with_values_of_fixture() -> Callable[..., Record]:
    """`with_values_of`, for tests: a conftest cannot be imported."""
    return with_values_of


@pytest.fixture(name="invented")
def invented_fixture() -> Callable[..., Record]:
    """`invented`, for tests: a conftest cannot be imported."""
    return invented
