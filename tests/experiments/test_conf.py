"""Every file of conf/ is composed, and what it names is made; nothing is trained or downloaded."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import hydra
import lightning as L
import pytest
import torch
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, StepLR

from experiments.build import build
from experiments.classifier import Classifier
from experiments.data import ImageDataModule
from experiments.errors import ConfigError
from experiments.models import CNN, MLP, ResNet, Transformer
from jaynes_callbacks import EquilibriumMonitor

CONF = Path(__file__).parents[2] / "conf"
#: Groups whose options say how a run is made, beside those below that are made one by one.
MADE_ELSEWHERE = {"paths", "hydra"}
NETS = {"mlp": MLP, "cnn": CNN, "resnet": ResNet, "transformer": Transformer}
HUB = ["data.name=owner/images", "data.shape=[3,16,16]"]

Compose = Callable[..., DictConfig]


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def test_every_group_is_covered_here() -> None:
    covered = {"callbacks", "control", "data", "debug", "experiment", "init", "launcher"}
    covered |= {"logger", "model", "optimizer", "scheduler", "sweeper", "trainer"} | MADE_ELSEWHERE
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} == covered


@pytest.mark.parametrize(
    ("model", "data"),
    [
        # How a size is handed on is the same for all of them.
        pytest.param(model, data, marks=[pytest.mark.slow] * (data != "digits" and model != "cnn"))
        for model in sorted(NETS)
        for data in ("digits", "mnist", "cifar10")
    ],
)
def test_model(compose: Compose, model: str, data: str) -> None:
    cfg = compose(f"model={model}", f"data={data}")
    made = instantiate(cfg.model, _convert_="all")
    assert isinstance(made, Classifier)
    assert isinstance(made.net, NETS[model])
    assert made(torch.zeros(2, *cfg.data.shape)).shape == (2, 10)
    (optimizer,), (scheduler,) = made.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert isinstance(scheduler, ConstantLR)


def test_an_own_model(compose: Compose) -> None:
    """Any class, here torch's and this package's own; see also test_own_model.py."""
    assert set(options("model")) == {*NETS, "own", "own_net"}
    cfg = compose("model=own", "model._target_=torch.nn.Linear", "+model.in_features=3",
                  "+model.out_features=2")  # fmt: skip
    assert isinstance(instantiate(cfg.model), nn.Linear)
    cfg = compose(
        "model=own_net", "model.net._target_=experiments.models.MLP", "+model.net.depth=1"
    )
    made = instantiate(cfg.model, _convert_="all")
    assert isinstance(made, Classifier)
    assert made(torch.zeros(2, *cfg.data.shape)).shape == (2, 10)
    cfg = compose("data=own", "data._target_=experiments.data.Digits", "+data.shape=[1,8,8]",
                  "+data.classes=10")  # fmt: skip
    assert isinstance(instantiate(cfg.data, _convert_="all"), ImageDataModule)


@pytest.mark.parametrize("part", ["model", "data"])
def test_an_own_part_without_its_name_is_one_sentence(compose: Compose, part: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{part}: Missing mandatory value: {part}\._target_"):
        build(compose(f"{part}=own"))


@pytest.mark.parametrize("data", sorted(set(options("data")) - {"own"}))
def test_data(compose: Compose, data: str) -> None:
    cfg = compose(f"data={data}", *(HUB if data == "hub" else []))
    assert isinstance(instantiate(cfg.data, _convert_="all"), ImageDataModule)


@pytest.mark.parametrize("init", options("init"))
def test_init(compose: Compose, init: str) -> None:
    layer = nn.Linear(400, 400)
    before = layer.weight.detach().clone()
    instantiate(compose(f"init={init}").init, _convert_="all")(layer)
    kept = torch.equal(layer.weight, before)
    assert kept == (init == "default")
    variance = layer.weight.var().item() * 400
    assert variance == pytest.approx(1 / 3 if kept else 2, rel=0.05)


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_optimizer(compose: Compose, optimizer: str) -> None:
    made = instantiate(compose(f"optimizer={optimizer}").optimizer)(nn.Linear(2, 2).parameters())
    classes = {"muon": "MuonWithAdamW", "madam_free": "Madam"}
    expected = classes.get(optimizer, optimizer.replace("_", ""))
    assert type(made).__name__.lower() == expected.lower()
    assert made.defaults["lr"] > 0
    assert "weight_decay" in made.defaults


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.sampled(4)
def test_a_learning_rate_of_zero_changes_no_weight(compose: Compose, optimizer: str) -> None:
    layer = nn.Linear(4, 3)
    before = [p.detach().clone() for p in layer.parameters()]
    cfg = compose(f"optimizer={optimizer}", "optimizer.lr=0", "optimizer.weight_decay=0.1")
    made = instantiate(cfg.optimizer)(layer.parameters())
    layer(torch.ones(2, 4)).sum().backward()
    made.step()
    assert all(torch.equal(p, q) for p, q in zip(layer.parameters(), before, strict=True))


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_scheduler(compose: Compose, scheduler: str) -> None:
    expected: dict[str, tuple[type[LRScheduler], list[float]]] = {
        "none": (ConstantLR, [1.0, 1.0, 1.0, 1.0]),
        "cosine": (CosineAnnealingLR, [1.0, 0.75, 0.25, 0.0]),
        "step": (StepLR, [1.0, 1.0, 0.5, 0.5]),
    }
    steps = ["scheduler.step_size=2", "scheduler.gamma=0.5"] if scheduler == "step" else []
    cfg = compose(f"scheduler={scheduler}", "trainer.max_epochs=3", "optimizer=sgd", *steps)
    optimizer = instantiate(cfg.optimizer)(nn.Linear(2, 2).parameters(), lr=1.0)
    made = instantiate(cfg.scheduler)(optimizer)
    rates = []
    for _ in range(4):
        rates.append(made.get_last_lr()[0])
        optimizer.step()
        made.step()
    kind, course = expected[scheduler]
    assert isinstance(made, kind)
    assert rates == pytest.approx(course, abs=1e-6)


@pytest.mark.parametrize("trainer", options("trainer"))
def test_trainer(compose: Compose, trainer: str) -> None:
    # The fixture's CPU stands in for the accelerator; the rest is the file's own.
    devices = ["trainer.devices=1"] if trainer == "ddp" else []
    cfg = compose(f"trainer={trainer}", *devices)
    made = instantiate(cfg.trainer, logger=False)
    assert isinstance(made, L.Trainer)
    assert made.max_epochs == cfg.trainer.max_epochs
    assert type(made.strategy).__name__.startswith("DDP" if "ddp" in trainer else "SingleDevice")


@pytest.mark.parametrize("callbacks", options("callbacks"))
@pytest.mark.sampled(3)
def test_callbacks(compose: Compose, callbacks: str, tmp_path: Path) -> None:
    parts = build(compose(f"callbacks={callbacks}", "logger=none"))
    made = {type(callback).__name__ for callback in parts.trainer.callbacks}  # type: ignore[attr-defined]
    expected = {
        "dataset_and_robustness": {"EquilibriumMonitor", "Robustness"},
        "dataset_only": {"EquilibriumMonitor"},
        "default": {"EquilibriumMonitor", "ModelCheckpoint", "RunBar"},
        "early_stopping": {"EarlyStopping"},
        "equilibrium_monitor": {"EquilibriumMonitor"},
        "model_checkpoint": {"ModelCheckpoint"},
        "none": set(),
        "progress_bar": {"RunBar"},
        "robustness": {"Robustness"},
    }
    assert made >= expected[callbacks]
    assert bool(parts.monitors) == ("equilibrium_monitor" in callbacks or callbacks.startswith("d"))


def test_the_monitors_file_holds_its_defaults(compose: Compose) -> None:
    import inspect

    written = dict(compose().callbacks.equilibrium_monitor)
    del written["_target_"], written["dirpath"]
    parameters = inspect.signature(EquilibriumMonitor).parameters
    defaults = {name: parameters[name].default for name in written}
    defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    assert written == defaults


def test_a_schedule_can_be_given_on_the_command_line(compose: Compose) -> None:
    target = "{_target_: jaynes_callbacks.schedule.log_spaced, per_decade: 5}"
    cfg = compose(f"+callbacks.equilibrium_monitor.every_n_steps={target}", "logger=none")
    (monitor,) = build(cfg).monitors
    assert "every_n_steps=log_spaced(per_decade=5)" in monitor.state_key


@pytest.mark.parametrize("logger", options("logger"))
def test_logger(compose: Compose, logger: str) -> None:
    expected: dict[str, list[type[Logger]]] = {
        "tensorboard": [TensorBoardLogger],
        "csv": [CSVLogger],
        "wandb": [WandbLogger],
        "many": [TensorBoardLogger, CSVLogger],
        "none": [],
    }
    cfg = compose(f"logger={logger}")
    made = [instantiate(one) for one in (cfg.get("logger") or {}).values()]
    assert [type(one) for one in made] == expected[logger]


def test_wandb_is_offline(compose: Compose) -> None:
    assert compose("logger=wandb").logger.wandb.offline is True


@pytest.mark.parametrize("experiment", options("experiment"))
@pytest.mark.sampled(4)
def test_experiment(compose: Compose, experiment: str) -> None:
    parts = build(compose(f"experiment={experiment}"))
    assert parts.monitors


@pytest.mark.parametrize("debug", options("debug"))
def test_debug(compose: Compose, debug: str) -> None:
    parts = build(compose(f"debug={debug}"))
    assert bool(parts.monitors) == (debug == "limit")


CONTROLS = {
    "none": ("kaiming_normal", "AdamW", 0.001, False),
    "shuffled_labels": ("kaiming_normal", "AdamW", 0.001, True),
    "frozen_gaussian": ("kaiming_normal", "AdamW", 0.0, False),
    "frozen_lognormal": ("lognormal", "AdamW", 0.0, False),
    "lognormal_start": ("lognormal", "AdamW", 0.001, False),
    "gibrat": ("kaiming_normal", "Gibrat", 0.06, False),
    "multiplicative": ("kaiming_normal", "Madam", 0.06, False),
}


@pytest.mark.parametrize("control", options("control"))
@pytest.mark.sampled(3)
def test_control(compose: Compose, control: str) -> None:
    """Each says what it is called, on top of the experiment that sweeps them all."""
    cfg = compose("experiment=controls", f"control={control}", "seed=3")
    init, optimizer, rate, shuffled = CONTROLS[control]
    assert cfg.init == compose(f"init={init}").init
    parts = build(cfg)
    (made,), _ = parts.model.configure_optimizers()  # type: ignore[misc]
    assert type(made).__name__ == optimizer
    assert made.defaults["lr"] == rate
    assert parts.data.shuffle_labels == shuffled  # type: ignore[attr-defined]


STUDIES = sorted(set(options("experiment")) - {"demo"})


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.sampled(4)
def test_every_run_of_a_study_can_be_made(compose: Compose, study: str) -> None:
    """Every combination is composed, and every value of every parameter made at least once."""
    runs = sweep(study)
    assert all("seed=1" in run or "seed=2" in run or "seed=3" in run for run in runs)
    assert len(runs) == len(set(runs))
    seen: set[str] = set()
    for run in runs:
        if not set(run) <= seen:
            parts = build(compose(f"experiment={study}", *run))
            assert parts.monitors
            seen |= set(run)


def sweep(study: str) -> list[tuple[str, ...]]:
    """The overrides of each of a study's runs, as Hydra's own sweeper makes them."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [f"experiment={study}"], return_hydra_config=True)
    assert cfg.hydra.mode is RunMode.MULTIRUN
    assert "${now" not in str(OmegaConf.to_container(cfg.hydra.sweep))
    given = [f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items()]
    overrides = OverridesParser.create().parse_overrides(given)
    (runs,) = BasicSweeper.split_arguments(overrides, None)
    return [tuple(run) for run in runs]


#: The plugin that each needs, and what it must then say of it.
PLUGINS = {
    "joblib": ("hydra_joblib_launcher", "launcher", {"n_jobs": -1}),
    "slurm": ("hydra_submitit_launcher", "launcher", {"timeout_min": 60, "cpus_per_task": 2}),
    "ray": ("ray_tasks", "launcher", {"init": {"address": "local", "include_dashboard": False}}),
    "optuna": ("hydra_optuna_sweeper", "sweeper", {"n_trials": 20}),
}


@pytest.mark.parametrize("option", [*options("launcher"), *options("sweeper")])
def test_how_a_sweep_is_run(option: str) -> None:
    plugin, group, values = PLUGINS[option]
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(
            "train", ["experiment=controls", f"{group}={option}"], return_hydra_config=True
        )
    made = cfg.hydra[group]
    assert plugin in made._target_
    assert {key: made[key] for key in values} == values
    # Neither how nor where a run is done is a condition.
    assert group in {*cfg.hydra.job.config.override_dirname.exclude_keys, "sweeper"}


@pytest.mark.parametrize("group", ["experiment", "debug", "control"])
def test_each_opens_with_the_command_that_runs_it(group: str) -> None:
    for option in options(group):
        first, second, *_ = (CONF / group / f"{option}.yaml").read_text().splitlines()
        assert first == "# @package _global_"
        assert second == f"# python -m experiments.train {group}={option}"


def test_an_experiment_chooses_and_a_user_overrides(compose: Compose) -> None:
    cfg = compose("experiment=demo", "model=cnn", "trainer.max_epochs=3", "name=mine")
    assert (cfg.name, cfg.trainer.max_epochs) == ("mine", 3)
    assert cfg.model.net._target_.endswith("CNN")
