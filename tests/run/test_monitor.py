import copy
import importlib
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import jaynes_callbacks
from jaynes_callbacks import EquilibriumMonitor
from jaynes_callbacks.figures import log_density
from jaynes_callbacks.run.arguments import default_sinks

pytestmark = pytest.mark.usefixtures("unfitted")

Loader = DataLoader[Any]


def _task(namespace: ModuleType) -> Any:
    class Task(namespace.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Task()


NAMESPACES = pytest.mark.parametrize(
    ("namespace", "home"),
    [(lightning, "jaynes_callbacks"), (pytorch_lightning, "jaynes_callbacks.pytorch_lightning")],
    ids=["lightning", "pytorch_lightning"],
)


def _trainer(namespace: ModuleType, place: Path, *callbacks: Any, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "default_root_dir": place,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return namespace.Trainer(callbacks=list(callbacks), **{**options, **changes})


@NAMESPACES
def test_both_names_of_lightning(
    namespace: ModuleType, home: str, loader: Loader, tmp_path: Path
) -> None:
    make = importlib.import_module(home).EquilibriumMonitor
    monitor = make()
    assert isinstance(monitor, namespace.Callback)
    trainer = _trainer(namespace, tmp_path, monitor)
    trainer.fit(_task(namespace), loader)
    assert monitor.history.step.unique().tolist() == [0, 6, 12]
    assert set(monitor.history.name) == {"net.0.weight", "net.1", "net.2.weight"}
    # The start is not judged: rows of step 0 bear no verdict.
    assert ((monitor.history.verdict != "") == (monitor.history.step > 0)).all()
    assert len(list((tmp_path / "jaynes").glob("part-*.parquet"))) == 3

    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed = make()
    stopping = namespace.pytorch.callbacks if namespace is lightning else namespace.callbacks
    stopping = stopping.EarlyStopping(
        "equilibrium/weight/gap_median", patience=1, min_delta=10.0, check_on_train_epoch_end=True
    )
    again = _trainer(namespace, tmp_path, resumed, stopping, max_epochs=9)
    again.fit(_task(namespace), loader, ckpt_path=tmp_path / "two.ckpt")
    # The third epoch is the best that early stopping has seen, the fourth is no better.
    assert again.current_epoch == 4
    assert resumed.history.step.unique().tolist() == [0, 6, 12, 18, 24]
    assert len(list((tmp_path / "jaynes").glob("part-*.parquet"))) == 5


@NAMESPACES
def test_both_names_survive_an_error(
    namespace: ModuleType, home: str, loader: Loader, tmp_path: Path
) -> None:
    class Breaking(namespace.Callback):  # type: ignore[name-defined, misc]
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 8:
                raise RuntimeError("broken batch")

    monitor = importlib.import_module(home).EquilibriumMonitor()
    task = _task(namespace)
    with pytest.raises(RuntimeError, match="broken batch"):
        _trainer(namespace, tmp_path, monitor, Breaking()).fit(task, loader)
    assert not any(module._forward_hooks for module in task.modules())
    assert monitor.history.step.unique().tolist() == [0, 6]
    assert len(list((tmp_path / "jaynes").glob("part-*.parquet"))) == 2


def test_the_default_sinks() -> None:
    names = [type(sink).__name__ for sink in default_sinks()]
    viewers = ["SummarySink", "LoggerSink", "HistogramSink", "TensorBoardSink"]
    assert names == [*viewers, "DatasetSink", "FigureSink", "ReportSink"]


def test_the_state_key_tells_arguments_apart() -> None:
    make = jaynes_callbacks.EquilibriumMonitor
    changes: list[dict[str, Any]] = [
        {},
        {"kinds": "weight"},
        {"include": "encoder.*"},
        {"min_size": 65},
        {"every_n_steps": 3},
        {"iota_from": "validation"},
        {"iota_values_per_call": 9},
        {"dirpath": "elsewhere"},
    ]
    assert len({make(**change).state_key for change in changes}) == len(changes)
    assert make().state_key == make().state_key


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
@pytest.mark.parametrize("after_fit", [False, True])
def test_a_monitor_can_be_copied_and_pickled(
    duplicate: Any, after_fit: bool, loader: Loader, make_trainer: Any, task: Any
) -> None:
    monitor = jaynes_callbacks.EquilibriumMonitor()
    if after_fit:
        make_trainer(monitor, max_epochs=1).fit(task, loader)
    again = duplicate(monitor)
    assert again.history.equals(monitor.history)
    assert again.state_key == monitor.state_key


def test_records_are_the_history_with_the_counts_of_start_and_end(
    task: Any, loader: Any, make_trainer: Any
) -> None:
    monitor = EquilibriumMonitor(sinks=[])
    assert len(monitor.records) == 0
    make_trainer(monitor).fit(task, loader)
    assert monitor.records.to_pandas().equals(monitor.history)
    of_weight = monitor.records.select(name="first.weight")
    assert of_weight["step"].tolist() == [0, 6, 12]
    assert [len(row.counts) > 0 for row in of_weight] == [True, False, True]
    assert log_density(of_weight).axes[0].get_title("left").endswith("nats, undetermined")
    copied = copy.deepcopy(monitor).records
    assert copied.to_pandas().equals(monitor.history)
    with pytest.raises(KeyError, match="no instrument 'gradients'"):
        monitor.records_of("gradients")
