"""Make the pictures of the documentation: what a user sees in a browser and in files.

Trains small networks on handwritten digits with the monitor in a plain Lightning Trainer.  Then
takes screenshots of their TensorBoard and of their report with chromium, and draws every figure of
one run.  Last it draws one untrained network whose neurons are rescaled.

    python docs/pictures.py        # a few minutes; needs the extra 'experiments' and chromium
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.init import he_scaled, normal
from experiments.models import MLP
from experiments.rescaling import rescale_
from jaynes_callbacks import EquilibriumMonitor, Recorder, figures
from jaynes_callbacks.counts.grid import log_edges
from jaynes_callbacks.instruments.record import NEAR
from jaynes_callbacks.records.parts import read_parts
from jaynes_callbacks.report import read_run, write_report
from jaynes_callbacks.sinks.dataset import instrument_folders

IMAGES = Path(__file__).parent / "images"
TABS = ("scalars", "custom_scalars", "images", "histograms", "hparams")
RATES, DECAYS, EPOCHS = (1e-3, 3e-3), (0.0, 0.1), 30
WIDTH = 1000
SCALES = (0.0, 0.5, 1.0, 1.5)
INNER = "hidden2.weight"


class Digits(L.LightningModule):
    """A network as a user would write it, without a word about the monitor."""

    def __init__(self, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), **self.hparams)


def train(folder: Path) -> Path:
    """Train four networks of different hyperparameters; return the dataset of the last."""
    inputs, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(inputs).float() / 8 - 1, torch.tensor(labels))
    for rate in RATES:
        for decay in DECAYS:
            L.seed_everything(1, verbose=False)
            name = f"lr={rate},decay={decay}"
            logger = TensorBoardLogger(folder, name=name, version="", default_hp_metric=False)
            trainer = L.Trainer(
                accelerator="cpu",
                max_epochs=EPOCHS,
                logger=logger,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[
                    EquilibriumMonitor(
                        instruments=("magnitudes", "scales", "gradients"),
                        figures_every_n_epochs=10,
                    )
                ],
            )
            trainer.fit(Digits(rate, decay), DataLoader(data, 64, shuffle=True))
    return folder / name / "jaynes"


def screenshot(address: str, path: Path, height: int) -> None:
    """Save what chromium shows of a page, 1400 pixels wide."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("the pictures are taken with chromium, which is not installed")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size=1400,{height}",
            "--virtual-time-budget=15000", f"--screenshot={path}", address,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    keep(Image.open(path), path)


def keep(image: Image.Image, path: Path) -> None:
    """Save an image with few colours, which suffice for text and lines."""
    image = image.convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.LANCZOS)
    image.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Run a TensorBoard of a folder; yield its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name]
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder.parent, stderr=subprocess.DEVNULL
    ) as server:
        address = f"http://localhost:{port}"
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/data/runs", timeout=5)
                    break
                except OSError:
                    time.sleep(1)
            time.sleep(5)
            yield address
        finally:
            server.terminate()


def draw(dataset: Path) -> None:
    """Draw every figure of one run."""
    run = read_run(dataset)
    gradients = read_parts(instrument_folders(dataset)["gradients"])
    pictures = {
        "paper_view": figures.paper_view(run.end[1], run.start[1]),
        "log_density": figures.log_density(run.end[1], run.start[1]),
        "utility_over_magnitude": figures.utility_over_magnitude(run.end[1], run.start[1]),
        "gap_over_steps": figures.gap_over_steps(run.history),
        "gap_map": figures.gap_map(run.history),
        "laws_over_steps": figures.laws_over_steps(run.history),
        "microstructure_map": figures.microstructure_map(run.history),
        "statistics_map": figures.statistics_map(run.end),
        "exponents_over_layers": figures.exponents_over_layers(run.end),
        "columns_over_steps": figures.columns_over_steps(gradients),
    }
    for name, figure in pictures.items():
        keep(Image.fromarray(figures.rendered(figure)), IMAGES / f"{name}.png")


def rescaled() -> Figure:
    """Draw one layer and its core, and the gap of both, as neurons are multiplied by e^N(0, s²)."""
    records = [_rescaled(scale) for scale in SCALES]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    raw, core, gaps = figure.subplots(1, 3)
    colors = colormaps["viridis_r"](np.linspace(0.1, 1.0, len(SCALES)))
    for scale, own, color in zip(SCALES, records, colors, strict=True):
        _density(raw, own["magnitudes"], f"s = {scale:g}", color)
        # The cores are the same: each narrower than the one before, so that all can be seen.
        _density(core, own["scales"], f"s = {scale:g}", color, 7 - 4 * scale)
    raw.set(title="ln|w|, less its mean", xlabel="ln|w|", ylabel="density", xlim=(-8, 6))
    core.set(title="without scales of rows and columns", xlabel="ln|w|", xlim=(-8, 6))
    raw.legend(fontsize="small")
    for name, label in (("gap", "gap"), ("core_gap", "core gap")):
        gaps.semilogy(SCALES, [own["magnitudes"][name][0] for own in records], "o-", label=label)
    gaps.axhline(NEAR, color="k", linestyle="--", linewidth=1, label="limit of the verdict")
    gaps.set(title="distance to the lognormal", xlabel="s", ylabel="nats")
    gaps.legend(fontsize="small")
    return figure


def _rescaled(scale: float) -> dict[str, Any]:
    torch.manual_seed(1)
    network = MLP((1, 28, 28), 10, width=512, depth=3)
    he_scaled(network, law=normal)
    rescale_(network, scale, seed=1)
    with Recorder(network, kinds="weight", include=INNER) as recorder:
        return recorder.record()


def _density(axes: Axes, frame: Any, label: str, color: Any, width: float = 1.5) -> None:
    row, edges = frame[0], log_edges().numpy()
    # Four bins together: for a picture they are fine enough.
    counts = np.zeros(len(edges) - 1)
    positive = row.codes > 0
    counts[row.codes[positive]] = row.counts[positive]
    edges, counts = edges[16::4], counts[16:].reshape(-1, 4).sum(1)
    middle = (edges[1:] + edges[:-1]) / 2
    mean = (counts * middle).sum() / row.n
    axes.plot(middle - mean, counts / row.n / np.diff(edges), color=color, lw=width, label=label)


def main() -> None:
    """Train, draw, take screenshots."""
    warnings.filterwarnings("ignore", module="lightning")
    IMAGES.mkdir(exist_ok=True)
    keep(Image.fromarray(figures.rendered(rescaled())), IMAGES / "rescaled_network.png")
    with tempfile.TemporaryDirectory() as folder:
        dataset = train(Path(folder) / "runs")
        draw(dataset)
        report = write_report([read_run(dataset)], Path(folder) / "report.html")
        screenshot(report.as_uri(), IMAGES / "report.png", 1900)
        with tensorboard(Path(folder) / "runs") as address:
            for tab in TABS:
                screenshot(f"{address}/#{tab}", IMAGES / f"tensorboard_{tab}.png", 950)


if __name__ == "__main__":
    main()
