import re
from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import DictConfig

from experiments.build import build
from experiments.errors import ConfigError

Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def weights(cfg: DictConfig) -> torch.Tensor:
    parts = build(cfg)
    return torch.nn.utils.parameters_to_vector(parts.model.parameters()).detach()


def test_the_seed_decides_the_weights(compose: Compose) -> None:
    first = weights(compose("seed=3", "init=kaiming_normal"))
    assert torch.equal(first, weights(compose("seed=3", "init=kaiming_normal")))
    assert not torch.equal(first, weights(compose("seed=4", "init=kaiming_normal")))


def test_what_watches_does_not_change_the_weights(compose: Compose) -> None:
    watched = weights(compose("seed=3"))
    assert torch.equal(watched, weights(compose("seed=3", "callbacks=none", "logger=none")))


def test_the_init_reaches_the_model(compose: Compose) -> None:
    biases = [p for p in build(compose("init=lognormal")).model.parameters() if p.ndim == 1]
    assert biases
    assert not any(bias.any() for bias in biases)


def test_values_reach_the_parts(compose: Compose) -> None:
    parts = build(compose("data.batch_size=17", "model.net.depth=4", "trainer.max_epochs=2"))
    assert parts.data.batch_size == 17  # type: ignore[attr-defined]
    assert sum(p.ndim == 2 for p in parts.model.parameters()) == 5
    assert parts.trainer.max_epochs == 2


def test_a_callback_can_be_switched_off(compose: Compose) -> None:
    assert not build(compose("~callbacks.equilibrium_monitor")).monitors


def test_threads_are_set_where_asked_for(compose: Compose) -> None:
    torch.set_num_threads(1)
    build(compose("threads=2"))
    assert torch.get_num_threads() == 2
    build(compose())
    assert torch.get_num_threads() == 2


def test_hyperparameters_are_logged(compose: Compose) -> None:
    parts = build(compose("logger=csv", "optimizer.lr=0.125"))
    parts.trainer.loggers[0].save()
    assert parts.trainer.loggers[0].experiment.hparams["optimizer"]["lr"] == 0.125  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.net.width=-3", "model: width must be a positive integer, got -3"),
        ("model.net.width=wide", "model: width must be a positive integer, got 'wide'"),
        ("model.net.width=${nowhere}", "model: Interpolation key 'nowhere' not found"),
        ("+model.colour=red", "model: .*unexpected keyword argument 'colour'"),
        ("data.batch_size=0", "data: batch_size must be a positive integer, got 0"),
        ("data=hub", "data: Missing mandatory value: data.name"),
        ("init=lognormal init.law.sigma=-1", "init: sigma must be a number above 0, got -1"),
        ("init=lognormal init.law.sigma=s", "init: sigma must be a number above 0, got 's'"),
        ("seed=one", "seed: must be an integer from 0 to 4294967295, got 'one'"),
        ("seed=-1", "seed: must be an integer from 0 to 4294967295, got -1"),
        ("threads=0", "threads: their number must be a positive integer, got 0"),
        ("trainer.max_epochs=few", "trainer.max_epochs: must be an integer.*, got 'few'"),
        ("trainer.accelerator=abacus", "trainer: .*abacus"),
        ("+callbacks.mine=3", "callbacks.mine: expected a mapping with a _target_, got 3"),
        (
            "callbacks.equilibrium_monitor.every_n_epochs=0",
            "callbacks: every_n_epochs must be a positive integer, .*, got 0",
        ),
        ("callbacks.equilibrium_monitor.kinds=[weights]", "callbacks: .*kind.*weights"),
    ],
)
@pytest.mark.sampled(4)
def test_a_wrong_value_is_one_sentence(compose: Compose, override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(compose(*override.split()))
    assert re.match(sentence, str(caught.value))
    assert "\n" not in str(caught.value)
