"""The ways in which people train: each run is, to the bit, the run without the monitor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from jaynes_callbacks import EquilibriumMonitor

pytestmark = pytest.mark.usefixtures("unfitted")

MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]
Batch = tuple[Tensor, Tensor]


def _data(samples: int = 96) -> TensorDataset:
    source = torch.Generator().manual_seed(3)
    return TensorDataset(
        torch.randn(samples, 16, generator=source), torch.randint(4, (samples,), generator=source)
    )


def _loader() -> Loader:
    return DataLoader(_data(), 16, shuffle=True)


class Endless(IterableDataset[Batch]):
    """Has no length and no end."""

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield torch.randn(16), torch.randint(4, ())


class Task(L.LightningModule):
    """Dropout draws from the global state; every loss is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(16, 32), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(32, 4)
        )
        self.losses: list[float] = []

    def loss(self, batch: Batch) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]).float(), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.loss(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Combined(Task):
    def training_step(self, batch: dict[str, Batch]) -> Tensor:
        return self.loss(batch["a"]) + self.loss(batch["b"])


class Images(Task):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(32, 4),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Sentences(Task):
    """Fused in evaluation, when nothing is counted."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.net = nn.Sequential(
            nn.Unflatten(1, (2, 8)),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.Flatten(),
            nn.Linear(16, 4),
        )


class Normed(Task):
    """Weights that are computed, one of them by an iteration that goes on at every look."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(16, 32)),
            nn.SiLU(inplace=True),
            parametrizations.weight_norm(nn.Linear(32, 4)),
        )


class LastState(nn.Module):
    def forward(self, states: tuple[Tensor, Any]) -> Tensor:
        return states[0][:, -1]


class Recurrent(Task):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Unflatten(1, (4, 4)),
            nn.LSTM(4, 16, batch_first=True),
            LastState(),
            nn.Tanh(),
            nn.Linear(16, 4),
        )


class Compiled(Task):
    """A part of it, before the monitor sees it."""

    def __init__(self) -> None:
        super().__init__()
        hidden = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.2))
        self.net = nn.Sequential(torch.compile(hidden, backend="aot_eager"), nn.Linear(32, 4))


class GAN(Task):
    """Manual optimization, two optimizers, one of them toggled at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
        self.critic = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Batch) -> None:  # type: ignore[override]
        generator, critic = self.optimizers()
        fake = self.net(torch.randn(16, 8))
        self._step(generator, lambda: -self.critic(fake).mean())
        real = self.critic(batch[0]).mean()
        self._step(critic, lambda: self.critic(fake.detach()).mean() - real)

    def _step(self, optimizer: Any, loss: Callable[[], Tensor]) -> None:
        self.toggle_optimizer(optimizer)
        value = loss()
        self.losses.append(float(value.detach()))
        optimizer.zero_grad()
        self.manual_backward(value, retain_graph=True)
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        return [torch.optim.Adam(part.parameters(), lr=1e-2) for part in (self.net, self.critic)]


class Setup(NamedTuple):
    steps: list[int]
    trainer: dict[str, Any] = {}  # noqa: RUF012
    task: type[Task] = Task
    train: Callable[[], Any] = _loader
    validation: Callable[[], Any] = lambda: None


PAIR = lambda: CombinedLoader({"a": _loader(), "b": _loader()}, "min_size")  # noqa: E731
ENDLESS = lambda: DataLoader(Endless(), 16)  # noqa: E731
BY_STEP = [0, 4, 6, 8, 12]

SETUPS: dict[str, Setup] = {
    "plain": Setup(BY_STEP, validation=_loader),
    "manual optimization": Setup([0, 4, 8, 12, 16, 20, 24], task=GAN),
    "several train loaders": Setup(BY_STEP, task=Combined, train=PAIR),
    "several validation loaders": Setup(BY_STEP, validation=lambda: [_loader(), _loader()]),
    "limit_train_batches": Setup([0, 3, 4, 6], {"limit_train_batches": 3}),
    "fast_dev_run": Setup([0, 1], {"fast_dev_run": True}, validation=_loader),
    "overfit_batches": Setup([0, 2, 4], {"overfit_batches": 2}),
    "max_steps": Setup([0, 4, 6, 8, 9], {"max_epochs": -1, "max_steps": 9}),
    "no length": Setup(
        [0, 4, 8, 10],
        {"max_epochs": -1, "max_steps": 10, "val_check_interval": 5, "limit_val_batches": 2},
        train=ENDLESS,
        validation=ENDLESS,
    ),
    "accumulation": Setup([0, 2, 4], {"accumulate_grad_batches": 3}),
    "clipping": Setup(BY_STEP, {"gradient_clip_val": 0.1}),
    "clipping by value": Setup(
        BY_STEP, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    ),
    "deterministic": Setup(BY_STEP, {"deterministic": True}),
    "no inference mode": Setup(BY_STEP, {"inference_mode": False}, validation=_loader),
    "bf16-mixed": Setup(BY_STEP, {"precision": "bf16-mixed"}, validation=_loader),
    "16-mixed": Setup(BY_STEP, {"precision": "16-mixed"}),
    "bf16-true": Setup(BY_STEP, {"precision": "bf16-true"}),
    "64-true": Setup(BY_STEP, {"precision": "64-true"}),
    "channels_last": Setup(BY_STEP, task=Images),
    "transformer": Setup(BY_STEP, task=Sentences, validation=_loader),
    "computed weights": Setup(BY_STEP, task=Normed, validation=_loader),
    "recurrent": Setup(BY_STEP, task=Recurrent),
    "compiled in part": Setup(BY_STEP, task=Compiled, validation=_loader),
    "anomalies": Setup(BY_STEP, {"detect_anomaly": True}),
    "mid-epoch validation": Setup(BY_STEP, {"val_check_interval": 0.5}, validation=_loader),
}
#: They change what fits are computed under too.
OF_ALL_OF_TORCH = ("deterministic", "bf16-mixed", "16-mixed", "bf16-true", "64-true", "anomalies")
#: Lightning's own remarks on these setups.
REMARKS = (
    "ignore:.*(overfit_batches|Anomaly|deterministic|precision|bf16|half|size of|epoch|"
    "number of training batches).*"
)


class Ran(NamedTuple):
    weights: dict[str, Tensor]
    losses: list[float]
    optimizers: list[Any]
    draws: Tensor


def _train(setup: Setup, make_trainer: MakeTrainer, *callbacks: L.Callback) -> Ran:
    L.seed_everything(11, verbose=False)
    task = setup.task()
    trainer = make_trainer(*callbacks, **setup.trainer)
    try:
        trainer.fit(task, setup.train(), setup.validation())
    finally:
        torch.use_deterministic_algorithms(False)
        torch.autograd.set_detect_anomaly(False)
    states = [optimizer.state_dict() for optimizer in trainer.optimizers]
    return Ran(task.state_dict(), task.losses, states, torch.get_rng_state())


def assert_equal(one: Ran, other: Ran) -> None:
    assert one.losses == other.losses
    torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=0, equal_nan=True)
    for mine, theirs in zip(one.optimizers, other.optimizers, strict=True):
        assert mine["param_groups"] == theirs["param_groups"]
        torch.testing.assert_close(mine["state"], theirs["state"], rtol=0, atol=0)
    assert torch.equal(one.draws, other.draws)


@pytest.mark.filterwarnings(REMARKS)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.fitted] * (name in OF_ALL_OF_TORCH)) for name in SETUPS],
)
def test_the_watched_run_is_the_unwatched_run(
    name: str, make_trainer: MakeTrainer, recwarn: pytest.WarningsRecorder
) -> None:
    setup = SETUPS[name]
    plain = _train(setup, make_trainer)
    monitor = EquilibriumMonitor(sinks=[], every_n_steps=4, iota_every_n_batches=1)
    watched = _train(setup, make_trainer, monitor)
    assert_equal(plain, watched)
    assert monitor.history.step.unique().tolist() == setup.steps
    assert set(monitor.history.kind) == {"weight", "iota"}
    assert (monitor.history.n > 0).all()
    assert not any("jaynes_callbacks" in str(said.filename) for said in recwarn)


@pytest.mark.filterwarnings(REMARKS)
def test_a_run_that_is_out_of_time_ends_with_a_record(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = EquilibriumMonitor(sinks=[], every_n_epochs=None)
    trainer = make_trainer(monitor, max_epochs=-1, max_time={"seconds": 1})
    trainer.fit(Task(), ENDLESS())
    assert monitor.history.step.unique().tolist() == [0, trainer.global_step]
