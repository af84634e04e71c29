"""Configurations composed in the test's own process, tiny image data, and finished runs."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from experiments.result import Result
from jaynes_callbacks import analyse
from jaynes_callbacks.instruments.record import Record, Records
from jaynes_callbacks.sinks.base import RunContext
from jaynes_callbacks.sinks.dataset import DatasetSink

CONF = Path(__file__).parents[2] / "conf"

Compose = Callable[..., DictConfig]
WriteParquet = Callable[..., Path]
MakeRun = Callable[..., Path]


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """The configuration of a command line, on the CPU, with its output in the test's directory."""

    def make(*overrides: str, output: Path = tmp_path) -> DictConfig:
        fixed = [f"paths.output_dir={output}", "name=test", "trainer.accelerator=cpu"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("train", [*fixed, *overrides])

    return make


def encoded(pixels: "np.ndarray[Any, Any]", picture_format: str = "PNG") -> dict[str, Any]:
    """An image as the hub's schema holds it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=picture_format)
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def encode() -> Callable[..., dict[str, Any]]:
    """An image as the hub's schema holds it."""
    return encoded


@pytest.fixture
def write_parquet(tmp_path: Path) -> WriteParquet:
    """Writes ``train`` and ``test`` files of random images in the hub's schema."""

    def make(
        size: tuple[int, ...],
        column: str = "image",
        *,
        names: tuple[str, str] = ("train.parquet", "test.parquet"),
        rows: tuple[int, int] = (40, 20),
        labels: list[Any] | None = None,
        images: list[Any] | None = None,
    ) -> Path:
        source = np.random.default_rng(5)
        folder = tmp_path / "parquet"
        folder.mkdir(exist_ok=True)
        for name, n in zip(names, rows, strict=True):
            pixels = source.integers(0, 256, (n, *size), dtype=np.uint8)
            columns = {
                column: images or [encoded(image) for image in pixels],
                "label": labels or [row % 10 for row in range(n)],
            }
            pq.write_table(pa.table(columns), folder / name)
        return folder

    return make


@cache
def counted() -> Record:
    """A record with the counts of some values."""
    (record,) = analyse(torch.linspace(0.01, 1.0, 2000))
    return record


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run's folder: its result, and a dataset of two records per stream."""

    def make(
        name: str,
        gaps: dict[str, tuple[float, float]],
        *,
        seed: int = 1,
        accuracy: float | None = 0.9,
        verdict: str = "approaching",
        choices: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        sink = DatasetSink()
        sink.open(RunContext(directory=folder))
        for step in (0, 100):
            rows = [
                counted().replace(
                    kind="iota" if "relu" in stream else "weight",
                    variable="y" if "relu" in stream else "w",
                    name=stream,
                    step=step,
                    gap=pair[step > 0],
                    verdict=verdict if step else "not emerging",
                    best_family="weibull" if step else "uniform",
                    paper_r2=0.9 + 0.001 * step,
                )
                for stream, pair in gaps.items()
            ]
            sink.write(Records(rows), Records())
        metrics = {} if accuracy is None else {"test/accuracy": accuracy}
        Result(
            {"seed": seed, "name": "test", **(config or {})},
            choices or {}, metrics, "jaynes", 30.0, {"torch": "2"},
        ).write(folder)  # fmt: skip
        return folder

    return make
