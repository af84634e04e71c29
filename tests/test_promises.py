"""The promises of the README, each as a whole run."""

import gc
import math
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.instruments.saliency import Saliency
from jaynes_callbacks.run.lightning import LightningHost
from jaynes_callbacks.sinks.dataset import DatasetSink
from tests.operators import Recording

pytestmark = pytest.mark.usefixtures("unfitted")

#: Every instrument that listens to forwards.
LISTENING = ["magnitudes", "neurons", "energy", "coalitions", Saliency(activations=True)]
MakeTrainer = Callable[..., L.Trainer]
Loader = DataLoader[Any]


def _hooks(model: nn.Module) -> int:
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_forward_hooks_always_called",
    )
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


# 1. The watched run is the unwatched run ---------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        # How figures are painted depends on no option.
        pytest.param({}, marks=[pytest.mark.painted, pytest.mark.fitted]),
        {"every_n_steps": 1, "iota_every_n_batches": 1},
        {"iota_from": "validation", "iota_every_n_batches": 1},
        {"iota_values_per_call": 10},
        {"instruments": LISTENING, "every_n_steps": 2, "iota_every_n_batches": 1},
    ],
)
@pytest.mark.sampled(2)
def test_the_watched_run_is_the_unwatched_run(
    options: dict[str, Any], task: Any, loader: Loader, make_trainer: MakeTrainer
) -> None:
    def run(*callbacks: L.Callback) -> tuple[list[float], dict[str, Tensor], Tensor, Tensor]:
        L.seed_everything(11, verbose=False)
        model = type(task)()
        # The validation loader draws from the global generator too: its state must not differ.
        make_trainer(*callbacks, max_epochs=3).fit(model, loader, loader)
        draws = torch.cat([torch.rand(3), torch.from_numpy(np.random.rand(3))])  # noqa: NPY002
        return model.losses, model.state_dict(), torch.get_rng_state(), draws

    plain, watched = run(), run(EquilibriumMonitor(**options))
    assert watched[0] == plain[0]
    assert list(watched[1]) == list(plain[1])
    for name, values in plain[1].items():
        assert torch.equal(watched[1][name], values), name
    assert torch.equal(watched[2], plain[2])
    assert torch.equal(watched[3], plain[3])


# 2. Nothing that is met stops a run ---------------------------------------------------------------


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def _filled(value: float) -> nn.Sequential:
    net = _network()
    nn.init.constant_(net[0].weight, value)
    return net


def _with(**parts: nn.Module | nn.Parameter) -> nn.Sequential:
    net = _network()
    for name, part in parts.items():
        setattr(net, name, part)
    return net


def _dead() -> nn.Sequential:
    net = _network()
    nn.init.constant_(net[0].bias, -1e6)
    return net


ODD_NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "zero": lambda: _filled(0.0),
    "constant": lambda: _filled(0.25),
    "inf": lambda: _filled(math.inf),
    "nan": lambda: _filled(math.nan),
    "dead": _dead,
    "integer": lambda: _with(
        table=nn.Parameter(torch.zeros(40, 40, dtype=torch.int8), requires_grad=False)
    ),
    "empty": lambda: _with(nothing=nn.Parameter(torch.zeros(0, 5))),
    "tiny": lambda: _with(small=nn.Parameter(torch.ones(1, 1))),
    "no relu": lambda: nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)),
}
PAINTED = ("zero", "nan", "tiny")


class Anything(L.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.outputs: list[weakref.ref[Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = batch[0]
        for layer in list(self.net)[:3]:
            out = layer(out)
            self.outputs.append(weakref.ref(out))
        return nn.functional.cross_entropy(out, batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        wanted = [p for p in self.parameters() if p.requires_grad and not p.is_meta and p.numel()]
        return torch.optim.SGD(wanted, lr=0.01)


@pytest.mark.fitted
@pytest.mark.parametrize(
    "kind",
    [
        # Figures of the others are painted from records that look like these, or like any other's.
        pytest.param(kind, marks=[pytest.mark.painted] * (kind in PAINTED))
        for kind in ODD_NETWORKS
    ],
)
@pytest.mark.sampled(3)
def test_odd_networks_train_on(
    kind: str, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = EquilibriumMonitor()
    trainer = make_trainer(monitor, logger=CSVLogger(tmp_path))
    trainer.fit(Anything(ODD_NETWORKS[kind]()), loader)
    assert trainer.global_step == 12
    assert monitor.history.step.unique().tolist() == [0, 6, 12]
    explained = monitor.history[monitor.history.gap.isna()]
    assert (explained.status != "ok").all()
    assert sorted(path.name for path in tmp_path.rglob("jaynes/part-*.parquet")) == [
        f"part-{step:012d}.parquet" for step in (0, 6, 12)
    ]


class FailingLogger(DummyLogger):
    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to the tracking server")


def test_a_failing_logger_stops_nothing(
    task: Any, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor = EquilibriumMonitor()
    good = CSVLogger(tmp_path / "csv")
    trainer = make_trainer(monitor, logger=[FailingLogger(), good])
    with pytest.warns(UserWarning, match="FailingLogger.*no route to the tracking server") as said:
        trainer.fit(task, loader)
    assert sum("FailingLogger" in str(warning.message) for warning in said) == 1
    assert monitor.history.step.unique().tolist() == [0, 6, 12]
    assert "equilibrium/weight/gap_median" in (Path(good.log_dir) / "metrics.csv").read_text()


class SilentLogger(DummyLogger):
    """Cannot say anything of itself: its server answers the trainer's first two calls only."""

    calls = 0

    def _fail(self) -> Any:
        raise ConnectionError("no route to the tracking server")

    # Not `save_dir`, for which the trainer itself asks its first logger.
    log_dir = name = version = property(_fail)

    @property
    def experiment(self) -> Any:
        self.calls += 1
        return super().experiment if self.calls <= 2 else self._fail()


@pytest.mark.parametrize("alone", [True, False])
def test_a_logger_that_says_nothing_of_itself_stops_nothing(
    alone: bool, task: Any, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    monitor, good = EquilibriumMonitor(), CSVLogger(tmp_path / "csv")
    loggers = [SilentLogger(), *([] if alone else [good])]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(monitor, logger=loggers).fit(task, loader)
    said = [str(each.message) for each in caught if "SilentLogger" in str(each.message)]
    assert "SilentLogger does not tell its log_dir: ConnectionError: no route" in said[0]
    assert all("no route" in text and "training" in text for text in said)
    assert monitor.history.step.unique().tolist() == [0, 6, 12]
    assert monitor.dataset == (tmp_path if alone else Path(good.log_dir)) / "jaynes"


def test_a_host_that_answers_nothing_stops_nothing(
    task: Any,
    loader: Loader,
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Any, *_: Any) -> Any:
        raise RuntimeError("not now")

    for question in ("directory", "loggers"):
        monkeypatch.setattr(LightningHost, question, property(fail))
    monkeypatch.setattr(LightningHost, "decides_by", fail)
    monitor = EquilibriumMonitor(sinks=[])
    with pytest.warns(UserWarning, match="no .* from the trainer: RuntimeError: not now") as said:
        make_trainer(monitor).fit(task, loader)
    assert len([each for each in said if "from the trainer" in str(each.message)]) == 3
    assert monitor.history.step.unique().tolist() == [0, 6, 12]


def test_a_directory_that_cannot_be_written_stops_nothing(
    task: Any, loader: Loader, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    # A file in the directory's place: permissions would not stop the super-user.
    (tmp_path / "taken").write_text("")
    monitor = EquilibriumMonitor(dirpath=tmp_path / "taken")
    with pytest.warns(UserWarning, match="gets no more records") as said:
        make_trainer(monitor).fit(task, loader)
    dataset, figures = (
        text for text in (str(warning.message) for warning in said) if "gets no more" in text
    )
    assert "DatasetSink" in dataset
    assert "taken" in dataset
    assert "dirpath=..." in dataset
    assert "FigureSink" in figures
    assert monitor.history.step.unique().tolist() == [0, 6, 12]


# 3. Nothing is left behind ------------------------------------------------------------------------


def test_hooks_are_gone_after_fit(task: Any, loader: Loader, make_trainer: MakeTrainer) -> None:
    before = _hooks(task)
    make_trainer(EquilibriumMonitor(sinks=[])).fit(task, loader)
    assert _hooks(task) == before


@pytest.mark.parametrize("instruments", ["magnitudes", LISTENING], ids=["one", "all"])
@pytest.mark.parametrize("error", [RuntimeError("broken batch"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.sampled(3)
def test_hooks_are_gone_and_records_kept_after_an_interruption(
    error: BaseException,
    where: str,
    instruments: Any,
    task: Any,
    loader: Loader,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    class Breaking(L.Callback):
        def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
            if trainer.global_step == 8 and where == "backward":
                raise error

    def explode(module: nn.Module, args: Any) -> None:
        if task.trainer.global_step == 8 and where == "forward":
            raise error

    task.act.register_forward_pre_hook(explode)
    before = _hooks(task)
    sinks = None if instruments == "magnitudes" else [DatasetSink()]
    monitor = EquilibriumMonitor(instruments=instruments, iota_every_n_batches=1, sinks=sinks)
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        make_trainer(monitor, Breaking()).fit(task, loader)
    assert _hooks(task) == before
    assert torch.overrides._get_current_function_mode() is None
    assert monitor.history.step.unique().tolist() == [0, 6]
    assert len(list((tmp_path / "jaynes").glob("part-*.parquet"))) == 2
    # The model is as free as before: a forward outside the run is nobody's business.
    task.eval()
    torch.relu(task.norm(task.first(torch.randn(2, 16))))
    assert monitor.history.step.unique().tolist() == [0, 6]


@pytest.mark.parametrize("options", [{}, {"instruments": LISTENING, "every_n_steps": 1}])
def test_no_activation_is_kept(
    options: dict[str, Any], loader: Loader, make_trainer: MakeTrainer
) -> None:
    model = Anything(_network())
    monitor = EquilibriumMonitor(sinks=[], iota_every_n_batches=1, **options)
    make_trainer(monitor).fit(model, loader)
    gc.collect()
    assert len(model.outputs) == 36
    assert not any(reference() is not None for reference in model.outputs)


def test_tensors_do_not_pile_up_with_steps(
    task: Any, loader: Loader, make_trainer: MakeTrainer
) -> None:
    class Counting(L.Callback):
        def __init__(self) -> None:
            self.tensors: list[int] = []

        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            # Reading the history computes the records that wait for their group, and so lets their
            # counts go: how many wait differs from epoch to epoch.
            assert len(monitor.history) or not trainer.global_step
            gc.collect()
            self.tensors.append(sum(issubclass(type(each), Tensor) for each in gc.get_objects()))

    counting = Counting()
    monitor = EquilibriumMonitor(sinks=[], iota_every_n_batches=1, every_n_steps=1)
    make_trainer(monitor, counting, max_epochs=6).fit(task, loader)
    assert counting.tensors[5] <= counting.tensors[2]


# 5. No synchronisation on a step that is not due --------------------------------------------------


class Opening(L.Callback):
    """Records each training batch, from before every other callback's hook …"""

    def __init__(self) -> None:
        self.steps: list[Counter[str]] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.mode = Recording()
        self.mode.__enter__()


class Closing(L.Callback):
    """… to after it."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening

    def on_train_batch_end(self, *args: Any) -> None:
        self.opening.mode.__exit__(None, None, None)
        self.opening.steps.append(self.opening.mode.ops)


def _operators(make_trainer: MakeTrainer, model: Any, loader: Loader, *watch: L.Callback) -> Any:
    opening = Opening()
    make_trainer(opening, *watch, Closing(opening), max_epochs=1).fit(model, loader)
    return opening.steps


def test_steps_that_are_not_due_only_count(
    task: Any, loader: Loader, make_trainer: MakeTrainer
) -> None:
    monitor = EquilibriumMonitor(sinks=[], iota_every_n_batches=3, every_n_epochs=1)
    plain = _operators(make_trainer, type(task)(), loader)
    watched = _operators(make_trainer, type(task)(), loader, monitor)
    extra = [step - without for step, without in zip(watched, plain, strict=True)]
    # Steps 0 and 6 are due; activations are counted in batches 1 (the first since) and 3.
    assert extra[0]
    assert extra[5]
    for batch in (2, 4):
        assert not extra[batch], batch
    for batch in (1, 3):
        assert extra[batch]["jaynes_callbacks.count_.default"] == 2
        assert set(extra[batch]) <= {"jaynes_callbacks.count_.default", "aten.detach.default"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counting_on_a_gpu_does_not_synchronise() -> None:
    from jaynes_callbacks.counts.counting import count_
    from jaynes_callbacks.counts.grid import CODES

    values = torch.randn(1 << 20, device="cuda")
    counts = torch.zeros(1, CODES, dtype=torch.int64, device="cuda")
    count_(values, counts, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        count_(values, counts, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = torch.zeros(1, CODES, dtype=torch.int64)
    count_(values.cpu(), expected, 0)
    assert torch.equal(counts.cpu(), 2 * expected)


@pytest.mark.parametrize("other", ["energy", "coalitions", "operators"])
@pytest.mark.sampled(2)
def test_an_instrument_that_listens_when_due_keeps_no_other_listening(
    other: str, task: Any, loader: Loader, make_trainer: MakeTrainer
) -> None:
    def counted(*instruments: str) -> list[int]:
        monitor = EquilibriumMonitor(
            instruments=["magnitudes", *instruments], every_n_steps=5, sinks=[]
        )
        make_trainer(monitor).fit(type(task)(), loader)
        rows = monitor.history
        numbers: list[int] = rows[rows.kind == "iota"].n.tolist()
        return numbers

    L.seed_everything(1, verbose=False)
    alone = counted()
    L.seed_everything(1, verbose=False)
    assert counted(other) == alone
