"""Datasets and checkpoints of version 0.1: read, shown and resumed.

``tests/data/version_0_1`` holds a run of 24 steps with a record at every fourth, as version 0.1
wrote it, and two checkpoints of it: amid an epoch and at the end of one.  `Net` and `batches` are
the network and the data of that run.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.cli import main
from jaynes_callbacks.counts.grid import CODES
from jaynes_callbacks.instruments.distribution import recompute
from jaynes_callbacks.sinks.dataset import DatasetSink, read_description, read_records
from jaynes_callbacks.statistics import Equilibrium, equilibrium, occupied_bins

DATA = Path(__file__).parent / "data" / "version_0_1"
STEPS = [0, 4, 6, 8, 12, 16, 18, 20, 24]
#: Batches of an epoch.
BATCHES = 6


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(16, 24), nn.GELU()
        self.second, self.relu = nn.Linear(24, 16), nn.ReLU()
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.relu(self.second(self.act(self.first(x)))))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Batches:
    """The same batches in every epoch; the first epoch begins where a checkpoint lies.

    Lightning does not skip what an interrupted epoch has seen already.
    """

    def __init__(self, step: int) -> None:
        source = torch.Generator().manual_seed(1)
        x = torch.randn(96, 16, generator=source)
        y = torch.randint(0, 4, (96,), generator=source)
        self._batches = list(zip(x.split(16), y.split(16), strict=True))
        self._done = step % BATCHES

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Lightning makes an iterator that it does not use.
        batches, self._done = self._batches[self._done :], 0
        yield from batches


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A copy of the dataset, in the folder of a run."""
    folder = tmp_path / "whole" / "jaynes"
    shutil.copytree(DATA / "jaynes", folder)
    return folder


@pytest.fixture(scope="module")
def as_stored() -> pd.DataFrame:
    """What pandas reads of the dataset."""
    return pd.read_parquet(DATA / "jaynes")


def at_maximum(stored: pd.DataFrame) -> Equilibrium:
    """The theory's quantities of w/max from the stored counts; version 0.1 had them of w."""
    counts = torch.zeros(len(stored), CODES, dtype=torch.int64)
    for row, (codes, numbers) in enumerate(zip(stored["codes"], stored["counts"], strict=True)):
        counts[row, torch.from_numpy(codes.astype(np.int64))] = torch.from_numpy(numbers.copy())
    mu, sigma, unit = (
        torch.tensor(each.to_numpy(float))
        for each in (stored["mu"], stored["sigma"], np.log(stored["max"]))
    )
    return equilibrium(occupied_bins(counts).shifted(-unit), mu - unit, sigma)


def test_the_dataset_is_read(dataset: Path, as_stored: pd.DataFrame) -> None:
    records = read_records(dataset)
    assert len(records) == len(as_stored) == 45
    assert list(dict.fromkeys(records["step"].tolist())) == STEPS
    for name, stored in as_stored.items():
        ours = records[str(name)]
        if name in ("shape", "codes", "counts", "paper_counts"):
            assert [list(each) for each in ours] == [each.tolist() for each in stored]
        elif name in ("alpha", "potential", "entropy"):
            expected = getattr(at_maximum(as_stored), str(name)).numpy()
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
        elif ours.dtype == np.float64:
            np.testing.assert_array_equal(np.ma.filled(ours, np.nan), stored.astype(float))
        else:
            assert ours.tolist() == stored.tolist()
    gaps = [str(name) for name in as_stored if str(name).startswith("gap")]
    assert len(gaps) >= 11
    assert np.isfinite(records["gap"]).all()
    assert np.isnan(records["gap_best_rival"]).all(), "version 0.1 had no such column"
    assert read_description(dataset)["outcome"] == "finished"


def test_the_dataset_is_shown(dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(dataset), "--output", str(page)]) == 0
    text = page.read_text()
    assert all(name in text for name in ("first.weight", "second.weight", "out.weight", "relu"))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("step", [9, 18])
@pytest.mark.sampled(2)
def test_a_resumed_run_equals_the_uninterrupted_one(
    step: int, dataset: Path, as_stored: pd.DataFrame
) -> None:
    monitor = EquilibriumMonitor(
        every_n_steps=4, iota_every_n_batches=2, iota_groups=2, sinks=[DatasetSink()]
    )
    options: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=4,
        callbacks=[monitor],
        default_root_dir=dataset.parent,
        **options,
    )
    trainer.fit(Net(), Batches(step), ckpt_path=DATA / f"step-{step}.ckpt", weights_only=False)
    assert monitor.directory == dataset.parent
    # What came before the checkpoint is as it was, but for units; later rows follow today's rules.
    read = read_records(DATA / "jaynes")
    before = as_stored["step"] <= step
    expected = read.to_pandas().where(before, recompute(read).to_pandas())
    files = read_records(dataset).to_pandas()
    for history in (monitor.history, files):
        for name in ("run", "step", "epoch", "kind", "name", "variable", "n", "zeros", "verdict"):
            assert history[name].tolist() == as_stored[name].tolist(), name
        # A column that no row has is in the files and not in data frames.
        for name in as_stored.dropna(axis="columns", how="all").select_dtypes("float"):
            # Columns are clusters since: an error no longer follows from a row's counts alone.
            known = before if name == "gap_se" else slice(None)
            np.testing.assert_allclose(
                history[name][known],
                expected[name][known].astype(float),
                rtol=1e-6,
                atol=1e-9,
                err_msg=name,
            )
        assert np.isfinite(history["gap_se"]).all()
        assert np.isnan(history["gap_change_se"]).all(), "version 0.1 kept nothing of its start"
    for name in ("codes", "counts", "paper_counts"):
        found = pd.read_parquet(dataset)[name]
        assert [each.tolist() for each in found] == [each.tolist() for each in as_stored[name]]
    new = read_records(dataset)
    assert np.isfinite(new["gap_best_rival"]).any()
    assert sorted(path.name for path in dataset.parent.iterdir()) == ["jaynes"]
