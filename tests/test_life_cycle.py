"""Resuming, killing, copying, and other callbacks beside ours: each as a whole run."""

import copy
import pickle
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch import callbacks as averaging
from torch import Tensor
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.sinks.dataset import DatasetSink, read_records
from tests.processes import python, running

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]

#: What tells where a run was written, not what was measured.
WHERE = ["run"]


class Stateful:
    """Batches in one order, and which is the next: it goes on mid-epoch where it was."""

    def __init__(self, batches: int = 6) -> None:
        source = torch.Generator().manual_seed(3)
        self.batches = [
            (
                torch.randn(16, 16, generator=source),
                torch.randint(4, (16,), generator=source),
            )
            for _ in range(batches)
        ]
        self.next = self.first = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.next, self.first = self.first, 0
        while self.next < len(self.batches):
            self.next += 1
            yield self.batches[self.next - 1]

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["next"] % len(self.batches)


def _task(kind: Any) -> Any:
    L.seed_everything(11, verbose=False)
    model = kind()
    # Dropout would draw from the global state, which a checkpoint does not hold.
    model.drop.p = 0.0
    return model


def _monitor(**options: Any) -> EquilibriumMonitor:
    return EquilibriumMonitor(sinks=[DatasetSink()], **options)


def _dataset(directory: Path) -> pd.DataFrame:
    return read_records(directory).to_pandas(counts=True).drop(columns=WHERE)


def _history(monitor: EquilibriumMonitor) -> pd.DataFrame:
    return monitor.history.drop(columns=WHERE)


# Resuming -----------------------------------------------------------------------------------------


class Saving(L.Callback):
    """Saves a checkpoint after one step, as ModelCheckpoint does after all other callbacks."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    ("saved_at", "elsewhere"),
    [pytest.param(4, False, marks=pytest.mark.fitted), (6, True), (8, True), (12, False)],
)
@pytest.mark.sampled(2)
def test_a_resumed_run_equals_the_uninterrupted_one(
    saved_at: int, elsewhere: bool, task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"every_n_steps": 5, "iota_every_n_batches": 2}
    whole = _monitor(dirpath=tmp_path / "whole", **options)
    make_trainer(whole, max_epochs=3).fit(_task(type(task)), Stateful())

    broken = _monitor(dirpath=tmp_path / "broken", **options)
    saving = Saving(saved_at, tmp_path / "saved.ckpt")
    trainer = make_trainer(broken, saving, max_steps=14, max_epochs=3)
    trainer.fit(_task(type(task)), Stateful())

    place = "other" if elsewhere else "broken"
    resumed = EquilibriumMonitor(sinks=[DatasetSink()], dirpath=tmp_path / "broken", **options)
    resumed._dirpath = tmp_path / place
    make_trainer(resumed, max_epochs=3).fit(
        _task(type(task)), Stateful(), ckpt_path=tmp_path / "saved.ckpt"
    )
    pd.testing.assert_frame_equal(_history(resumed), _history(whole))
    pd.testing.assert_frame_equal(
        _dataset(tmp_path / place / "jaynes"), _dataset(tmp_path / "whole" / "jaynes")
    )


def test_two_monitors_are_resumed_each_with_its_own(
    task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def two(place: str) -> list[EquilibriumMonitor]:
        return [
            _monitor(dirpath=tmp_path / place / kind, kinds=kind, every_n_steps=steps)
            for kind, steps in (("weight", 2), ("iota", 3))
        ]

    whole, first, second = two("whole"), two("broken"), two("broken")
    make_trainer(*whole).fit(_task(type(task)), Stateful())
    saving = Saving(7, tmp_path / "seven.ckpt")
    make_trainer(*first, saving, max_steps=8).fit(_task(type(task)), Stateful())
    make_trainer(*second).fit(_task(type(task)), Stateful(), ckpt_path=tmp_path / "seven.ckpt")
    for one, other in zip(whole, second, strict=True):
        pd.testing.assert_frame_equal(_history(other), _history(one))


def test_a_monitor_of_another_run_does_not_mix_histories(
    task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    first, other = _monitor(dirpath=tmp_path / "a"), _monitor(dirpath=tmp_path / "a")
    trainer = make_trainer(first, max_epochs=1)
    trainer.fit(_task(type(task)), Stateful())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    other._dirpath = tmp_path / "b"
    make_trainer(other, max_epochs=1).fit(type(task)(width=16), Stateful())
    make_trainer(other).fit(type(task)(), Stateful(), ckpt_path=tmp_path / "one.ckpt")
    rows = other.history
    assert rows[rows.name == "first.weight"].n.tolist() == [512] * 3
    assert rows.step.unique().tolist() == [0, 6, 12]


def test_without_a_dataset_history_begins_where_the_run_is_resumed(
    task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(EquilibriumMonitor(sinks=[]), max_epochs=1)
    trainer.fit(task, Stateful())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = EquilibriumMonitor(sinks=[])
    make_trainer(resumed).fit(type(task)(), Stateful(), ckpt_path=tmp_path / "one.ckpt")
    assert resumed.history.step.unique().tolist() == [12]


def test_a_dataset_that_cannot_be_read_is_said(
    task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(_monitor(), max_epochs=1)
    trainer.fit(task, Stateful())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    (tmp_path / "jaynes" / "part-000000000000.parquet").write_bytes(b"rotten")
    resumed = _monitor()
    with pytest.warns(UserWarning, match=r"history begins where .* DatasetSink cannot read"):
        make_trainer(resumed).fit(type(task)(), Stateful(), ckpt_path=tmp_path / "one.ckpt")
    assert resumed.history.step.unique().tolist() == [12]
    assert (tmp_path / "jaynes" / "part-000000000012.parquet").exists()


# Killing ------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.sinks.dataset import DatasetSink

place, steps, ckpt = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
torch.set_num_threads(1)


class Task(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    def training_step(self, batch):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


batches = [torch.randn(16, 16, generator=torch.Generator().manual_seed(i)) for i in range(8)]
monitor = EquilibriumMonitor(every_n_steps=1, sinks=[DatasetSink()], dirpath=place)
saving = ModelCheckpoint(place, "last", every_n_train_steps=8,
                         enable_version_counter=False)
L.Trainer(
    accelerator="cpu", max_steps=steps, max_epochs=-1, callbacks=[monitor, saving], logger=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=place,
).fit(Task(), DataLoader(torch.cat(batches), 16), ckpt_path=ckpt)
print(*monitor.history.step.unique())
"""


def _kill_amid(place: Path, parts: int, pause: float) -> None:
    """Run until so many parts are there, and a little longer, then kill it."""
    with running("-c", PROGRAM, place, 10**6, "", fitted=False) as run:
        run.wait_until(lambda: len(list(place.rglob("part-*.parquet"))) >= parts)
        time.sleep(pause)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_whole_parts_and_is_resumed(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    _kill_amid(tmp_path, parts=17 + draw.randrange(8), pause=draw.uniform(0, 0.05))
    killed = read_records(tmp_path / "jaynes")
    last = killed[-1].step
    assert sorted({row.step for row in killed}) == list(range(last + 1))
    reached = int(torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"])
    until = last + 9

    def run(place: Path, ckpt: str = "") -> str:
        done = python("-c", PROGRAM, place, until, ckpt, fitted=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    wanted = " ".join(map(str, range(until + 1)))
    assert 8 <= reached <= last
    assert run(tmp_path, str(tmp_path / "last.ckpt")) == wanted
    assert not list((tmp_path / "jaynes").glob(".*"))
    # A fresh run in the same place, and equal to the one that was killed and resumed.
    assert run(tmp_path) == wanted
    pd.testing.assert_frame_equal(_dataset(tmp_path / "jaynes"), _dataset(tmp_path / "jaynes-1"))


# Copies -------------------------------------------------------------------------------------------


class Copying(L.Callback):
    """Copies a monitor amid its fit."""

    def __init__(self, monitor: EquilibriumMonitor, duplicate: Callable[[Any], Any]) -> None:
        self.monitor, self.duplicate = monitor, duplicate

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            self.copy = self.duplicate(self.monitor)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_a_monitor_copied_amid_its_fit_can_be_fitted(
    duplicate: Callable[[Any], Any], task: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = _monitor(dirpath=tmp_path / "one", every_n_steps=2)
    copying = Copying(monitor, duplicate)
    make_trainer(monitor, copying).fit(_task(type(task)), Stateful())
    assert monitor.history.step.unique().tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert copying.copy.state_key == monitor.state_key
    assert copying.copy.history.step.unique().tolist() == [0, 2]
    copying.copy._dirpath = tmp_path / "two"
    make_trainer(copying.copy).fit(_task(type(task)), Stateful())
    pd.testing.assert_frame_equal(_history(copying.copy), _history(monitor))


# Beside others ------------------------------------------------------------------------------------


class Remembering(L.Callback):
    """The training weights' norm after each batch."""

    def __init__(self) -> None:
        self.rms: dict[int, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        weight = pl_module.first.weight.detach()
        # The first with this step: in the epoch that SWA adds, the average has taken its place.
        self.rms.setdefault(trainer.global_step, float(weight.square().mean().sqrt()))


AVERAGING: dict[str, Callable[[], L.Callback]] = {
    "swa": lambda: averaging.StochasticWeightAveraging(1e-2, swa_epoch_start=2),
    "mean": lambda: averaging.WeightAveraging(),
    "ema": lambda: averaging.EMAWeightAveraging(decay=0.5),
}


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("kind", AVERAGING)
@pytest.mark.sampled(3)
def test_beside_weight_averaging_the_training_weights_are_watched(
    kind: str, ours_first: bool, task: Any, make_trainer: MakeTrainer
) -> None:
    if kind != "swa" and not hasattr(averaging, "EMAWeightAveraging"):
        pytest.skip("this version of Lightning averages weights by SWA alone")

    def run(*ours: L.Callback) -> tuple[dict[str, Tensor], list[float], Tensor]:
        theirs = AVERAGING[kind]()
        callbacks = [*ours, theirs] if ours_first else [theirs, *ours]
        model = _task(type(task))
        make_trainer(*callbacks, max_epochs=4).fit(model, Stateful(), Stateful())
        return model.state_dict(), model.losses, torch.get_rng_state()

    monitor = EquilibriumMonitor(sinks=[])
    remembering = Remembering()
    with warnings.catch_warnings():
        # SWA replaces the schedulers and says so.
        warnings.simplefilter("ignore")
        plain, watched = run(), run(monitor, remembering)
    assert watched[1] == plain[1]
    assert torch.equal(watched[2], plain[2])
    assert all(torch.equal(watched[0][name], plain[0][name]) for name in plain[0])
    rows = monitor.history[lambda rows: rows.name == "first.weight"].set_index("step")
    # SWA adds an epoch of its own, of one step, for the batch norms of the averaged network.
    assert rows.index.tolist() == [0, 6, 12, 18, 24, *([25] if kind == "swa" else [])]
    for step in (6, 12, 18, 24):
        assert rows.rms[step] == pytest.approx(remembering.rms[step], rel=2e-3)


# Memory -------------------------------------------------------------------------------------------


class Resident(L.Callback):
    """Resident memory in MiB, every hundred steps."""

    def __init__(self) -> None:
        self.mib: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % 100 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.mib.append(pages * 4096 / 2**20)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells resident memory")
def test_resident_memory_is_flat(task: Any, make_trainer: MakeTrainer) -> None:
    resident = Resident()
    monitor = EquilibriumMonitor(sinks=[], iota_every_n_batches=1)
    trainer = make_trainer(monitor, resident, max_epochs=-1, max_steps=5000)
    task.losses = type("Forgetting", (), {"append": lambda *_: None})()
    trainer.fit(task, Stateful(1000))
    early, late = resident.mib[5:15], resident.mib[-10:]
    assert max(late) - max(early) < 8, resident.mib[::5]
