"""Shared by all tests: shapes and types are checked at run time, one thread a worker."""

import atexit
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

# Before numpy and torch are imported, here and by the processes that tests start: workers share the
# cores, and a pool of threads in each of them would wait for the others most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# trackio takes its folder when it is imported: never that of whoever runs the tests.
os.environ["TRACKIO_DIR"] = f"{gettempdir()}/trackio-of-tests-{os.getpid()}"
# W&B takes its mode when its first run begins, whatever a later test says.
os.environ["WANDB_MODE"] = "offline"

import hypothesis
import jaxtyping
import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests import blank, processes, typechecker

# Before the first import of the package: every annotation of these can be checked from here on.
# Not of what torch.compile traces: the sources and the counting.
jaxtyping.install_import_hook(
    [
        f"jaynes_callbacks.{part}"
        for part in ("counts.grid", "statistics", "instruments.distribution")
    ],
    f"{typechecker.__name__}.{typechecker.checked.__name__}",
)
#: Where they are checked: in the tests of just these, and in all slow ones.  It takes as long as
#: the fits themselves, and a whole run calls nothing that those tests do not call.
_CHECKED = ("counts", "statistics", "test_api.py", "test_change.py", "test_distribution.py")

# After the hook: these import the package.
from jaynes_callbacks.instruments.distribution import Tallied, summarise  # noqa: E402
from jaynes_callbacks.instruments.record import Record, Records  # noqa: E402
from jaynes_callbacks.instruments.tally import tally_of_counts, tally_of_tensors  # noqa: E402
from jaynes_callbacks.records.stream import IOTA, WEIGHT, Stream  # noqa: E402
from tests import rough  # noqa: E402

atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)
torch.set_num_threads(1)
# Tests share their cores: how long one example takes says nothing.  The same examples every time,
# of which a campaign takes more: HYPOTHESIS_EXAMPLES=1000.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")),
)
hypothesis.settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check the types of calls in the tests of what is checked."""
    parts = item.path.relative_to(Path(__file__).parent).parts
    checked = item.get_closest_marker("slow") or set(parts) & set(_CHECKED)
    jaxtyping.config.update("jaxtyping_disable", not checked)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all cases but every n-th of a test that is marked as ``sampled(n)``.

    Where n has no factor in common with the lengths of a grid's axes, every value of each axis is
    met in the fast suite.  A case that is asked for alone is the first, and runs.
    """
    seen = Counter[tuple[Path, str]]()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled and isinstance(item, pytest.Function):
            key = item.path, item.originalname
            if seen[key] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[key] += 1


@pytest.fixture
def generator() -> torch.Generator:
    """A private source of random numbers, so that tests do not share a global state."""
    return torch.Generator().manual_seed(20240517)


class SmallTask(L.LightningModule):
    """A network with dropout, batch norm, a module ReLU and a functional one."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(16, width)
        self.norm = nn.BatchNorm1d(width)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(width, 4)
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.drop(self.act(self.norm(self.first(x))))))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.losses.append(float(nn.functional.cross_entropy(self(batch[0]), batch[1])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.fixture
def task() -> SmallTask:
    """A fresh seeded network."""
    torch.manual_seed(7)
    return SmallTask()


def small_loader() -> DataLoader[Any]:
    source = torch.Generator().manual_seed(3)
    data = TensorDataset(
        torch.randn(96, 16, generator=source), torch.randint(4, (96,), generator=source)
    )
    return DataLoader(data, 16, shuffle=True)


@pytest.fixture
def loader() -> DataLoader[Any]:
    """96 random samples in six shuffled batches."""
    return small_loader()


def quiet_trainer(folder: Path, *callbacks: L.Callback, **changes: Any) -> L.Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 1,
    }
    return L.Trainer(callbacks=list(callbacks), **{**options, **changes})


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Trainers that say and show nothing and write below the test's own directory."""
    return partial(quiet_trainer, tmp_path)


@pytest.fixture(scope="session")
def train_small() -> Callable[..., tuple[SmallTask, L.Trainer]]:
    """Train a fresh network once, for fixtures that several tests share."""

    def train(folder: Path, *callbacks: L.Callback) -> tuple[SmallTask, L.Trainer]:
        torch.manual_seed(7)
        task, trainer = SmallTask(), quiet_trainer(folder, *callbacks)
        trainer.fit(task, small_loader())
        return task, trainer

    return train


# Records as a run makes them ------------------------------------------------------------

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
    streams = [Stream(WEIGHT, name, tuple(tensor.shape)) for name, tensor in weights.items()]
    streams += [Stream(IOTA, name) for name in iota]
    of_iota = tally_of_counts(tally_of_tensors(list(iota.values())).counts)
    tally = tally_of_tensors(list(weights.values())).joined(of_iota)
    moment = Tallied(streams, tally, run="run", step=step, epoch=epoch)
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


# Figures ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of runs and of reports blank, unless a test is marked as `painted`.

    They are made, saved and shown all the same; layout and painting take 0.3 s each.
    """
    if not request.node.get_closest_marker("painted"):
        blank.leave_figures_blank(monkeypatch)


# Laws -------------------------------------------------------------------------------------


@pytest.fixture
def unfitted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Leave laws at their estimates by moments, in ranks too, unless a test is marked as `fitted`.

    For tests of when runs are recorded, of what is counted and where records go: most of the time
    that such a run takes would be spent on fits.
    """
    if request.node.get_closest_marker("fitted"):
        return False
    rough.leave_laws_unfitted(monkeypatch)
    return True


# Several processes as ranks of one run ----------------------------------------------------

# They are forked from one that has imported everything, and has run nothing.
processes.preload()

#: A collective that another rank never enters is an error after so long, and a test after twice it.
_PATIENCE = timedelta(seconds=120)

Ranks = Callable[..., list[Any]]


def _rank(
    rank: int, function: Callable[..., Any], size: int, path: Path, args: Any, fitted: bool
) -> None:
    torch.set_num_threads(1)
    if not fitted:
        rough.leave_laws_unfitted(pytest.MonkeyPatch())
    os.environ |= {"LOCAL_RANK": str(rank)}  # Lightning then starts no processes of its own
    dist.init_process_group("gloo", f"file://{path}/store", _PATIENCE, rank=rank, world_size=size)
    torch.save(function(*args), path / f"result-{rank}")
    dist.destroy_process_group()


@pytest.fixture
def ranks(request: pytest.FixtureRequest, tmp_path: Path) -> Ranks:
    """Call a function in several processes of one gloo group; what each of them returned."""
    fitted = not ("unfitted" in request.fixturenames and request.getfixturevalue("unfitted"))

    def call(function: Callable[..., Any], *args: Any, size: int = 2) -> list[Any]:
        path = tmp_path / f"ranks-{len(list(tmp_path.glob('ranks-*')))}"
        path.mkdir()
        context = mp.start_processes(
            _rank, (function, size, path, args, fitted), size, join=False, start_method="forkserver"
        )
        assert context is not None
        deadline = time.monotonic() + 2 * _PATIENCE.total_seconds()
        while not context.join(timeout=1):
            if time.monotonic() > deadline:
                for process in context.processes:
                    process.kill()
                pytest.fail(f"{function.__name__} hangs")
        return [torch.load(path / f"result-{rank}", weights_only=False) for rank in range(size)]

    return call
