"""Configurations composed in the test's own process, and tiny image data."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

CONF = Path(__file__).parents[2] / "conf"

Compose = Callable[..., DictConfig]
WriteParquet = Callable[..., Path]


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
